import re

from modules.web.api.docs import PAGE


def test_the_page_needs_no_network_and_reads_the_description(client) -> None:
    answer = client.get("/docs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:https?:)?//[a-z]", PAGE.read_text("utf-8"))
    assert 'new URL("openapi.json", root)' in answer.text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/darkroom/v1/jobs", "/sdapi/v1/txt2img", "/internal/ping"} <= set(paths)

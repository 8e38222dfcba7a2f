import asyncio
import re
from pathlib import Path

import gradio
import pytest

from modules.web.head import Head, head, rewritten

TEMPLATE = Path(gradio.__file__).parent / "templates" / "frontend" / "index.html"


def test_gradios_document_loses_every_reference_to_another_site() -> None:
    document = rewritten(TEMPLATE.read_text("utf-8"), head("abc", None))
    assert not re.findall(r'(?:href|src|content)="https?://[^"]*"', document)
    assert "iframeResizer" not in document.replace("window.iFrameResizer", "")
    assert "manifest.json" not in document
    assert document.count("page.js") == 1 and "gradio-app" in document


def test_a_theme_is_set_before_gradio_starts_only_where_asked_for() -> None:
    assert "__theme" not in head("abc", None)
    assert '"__theme", "light"' in head("abc", "light")


@pytest.mark.parametrize(("path", "root", "changed"), [
    ("/", "", True), ("/sub/", "/sub", True), ("/config", "", False), ("/sub/config", "/sub", False),
])
def test_only_the_document_itself_is_rewritten(path: str, root: str, changed: bool) -> None:
    sent = _answer(Head(_page, "<ours>"), {"type": "http", "method": "GET", "path": path, "root_path": root})
    body = b"".join(message.get("body", b"") for message in sent)
    assert (b"<ours>" in body) is changed
    length = dict(sent[0]["headers"]).get(b"content-length")
    assert length is None or int(length) == len(body)


async def _page(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<html><head>", "more_body": True})
    await send({"type": "http.response.body", "body": b"</head></html>"})


def _answer(site: Head, scope: dict) -> list[dict]:
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(site(scope, None, send))
    return sent

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import Body, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from modules.core.errors import InvalidRequest
from modules.launcher.flags import Flags
from modules.web.answers import add_error_answers
from modules.web.protection import BodyLimit, Sites, protect

OURS = "http://127.0.0.1:7860"


def client_of(tmp_path: Path, flags: Flags, base_url: str = OURS) -> TestClient:
    site = FastAPI()
    add_error_answers(site)

    @site.api_route("/thing", methods=["GET", "POST", "DELETE"])
    def thing() -> dict[str, bool]:
        return {"done": True}

    @site.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    protect(site, flags, tmp_path)
    return TestClient(site, base_url=base_url)


@pytest.mark.parametrize("headers, allowed", [
    ({}, True),
    ({"origin": OURS}, True),
    ({"origin": "http://127.0.0.1:3000"}, False),
    ({"origin": "https://evil.example"}, False),
    ({"origin": "null"}, False),
    ({"origin": ""}, False),
    ({"sec-fetch-site": "same-origin", "origin": OURS}, True),
    ({"sec-fetch-site": "none"}, True),
    ({"sec-fetch-site": "cross-site", "origin": OURS}, False),
    ({"sec-fetch-site": "same-site"}, False),
])
def test_another_web_site_cannot_change_anything(tmp_path: Path, headers, allowed: bool) -> None:
    client = client_of(tmp_path, Flags())
    for method in ("POST", "DELETE"):
        answer = client.request(method, "/thing", headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert allowed or answer.json()["error"] == "Forbidden"
    assert client.get("/thing", headers=headers).status_code == 200


@pytest.mark.parametrize("host, allowed", [
    ("127.0.0.1", True), ("127.0.0.1:7860", True), ("localhost:7860", True), ("[::1]:7860", True),
    ("page.localhost", True), ("127.0.0.2", True), ("LOCALHOST", True), ("evil.example", False),
    ("127.0.0.1.evil.example", False), ("192.168.1.5:7860", False), ("[", False), ("localhost@evil.example", False),
])
def test_without_accounts_only_names_of_this_machine_are_answered(tmp_path: Path, host: str, allowed: bool) -> None:
    client = client_of(tmp_path, Flags())
    assert client.get("/thing", headers={"host": host}).status_code == (200 if allowed else 403)


def test_with_accounts_any_name_will_do_but_no_foreign_page(tmp_path: Path) -> None:
    client = client_of(tmp_path, replace(Flags(), accounts=(("a", "b"),)), "https://studio.example")
    assert client.get("/thing", auth=("a", "b")).status_code == 200
    assert client.post("/thing", auth=("a", "b"), headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/thing", auth=("a", "b"), headers={"origin": "https://studio.example"}).status_code == 200


def test_a_websocket_of_another_site_is_closed(tmp_path: Path) -> None:
    client = client_of(tmp_path, Flags())
    with client.websocket_connect(f"{OURS.replace('http', 'ws')}/live", headers={"origin": OURS}):
        pass
    with pytest.raises(WebSocketDisconnect):
        with client.websocket_connect("/live", headers={"origin": "https://evil.example"}):
            raise AssertionError("it was let in")


def test_flags_let_sites_in_and_browsers_hear_of_it(tmp_path: Path) -> None:
    flags = replace(Flags(), cors_allow_origins="https://a.example, https://b.example/",
                    cors_allow_origins_regex=r"https://.*\.c\.example", accounts=())
    client = client_of(tmp_path, flags)
    for origin, allowed in (("https://a.example", True), ("https://b.example", True), ("https://x.c.example", True),
                            ("https://d.example", False), ("https://a.example.evil.example", False)):
        asked = {"origin": origin, "access-control-request-method": "POST",
                 "access-control-request-headers": "content-type"}
        assert client.options("/thing", headers=asked).status_code == (200 if allowed else 400)
        answer = client.post("/thing", headers={"origin": origin})
        assert answer.status_code == (200 if allowed else 403)
        assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert client.get("/thing", headers={"host": "a.example"}).status_code == 200


def test_a_star_lets_all_in_but_without_their_cookies(tmp_path: Path) -> None:
    client = client_of(tmp_path, replace(Flags(), cors_allow_origins="*"))
    answer = client.post("/thing", headers={"origin": "https://a.example"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_needs_no_account(tmp_path: Path) -> None:
    flags = replace(Flags(), cors_allow_origins="https://a.example", accounts=(("a", "b"),))
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert client_of(tmp_path, flags).options("/thing", headers=asked).status_code == 200


def test_a_bad_pattern_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cors-allow-origins-regex"):
        protect(FastAPI(), replace(Flags(), cors_allow_origins_regex="("), tmp_path)


def test_no_sites_allow_nothing() -> None:
    assert not Sites() and not Sites().allow("https://a.example") and not Sites().allow("")


def test_large_bodies_are_refused_however_they_come() -> None:
    site = FastAPI()
    add_error_answers(site)

    @site.post("/size")
    def size(body: bytes = Body(media_type="application/octet-stream")) -> int:  # noqa: B008
        return len(body)

    site.add_middleware(BodyLimit, limit=2 * 1024**2, drained=4 * 1024**2)
    client = TestClient(site)
    plain = {"content-type": "application/octet-stream"}
    assert client.post("/size", content=b"x" * 2 * 1024**2, headers=plain).json() == 2 * 1024**2
    for content in (b"x" * (2 * 1024**2 + 1), iter([b"x" * 1024**2] * 3), b"x" * 10 * 1024**2):
        answer = client.post("/size", content=content, headers=plain)
        assert answer.status_code == 413 and "2 MiB" in answer.json()["message"]


def test_every_answer_says_how_long_it_took(tmp_path: Path) -> None:
    client = client_of(tmp_path, replace(Flags(), accounts=(("a", "b"),)))
    for path, auth in (("/thing", None), ("/thing", ("a", "b")), ("/nothing", ("a", "b"))):
        answer = client.get(path, auth=auth)
        assert 0 <= float(answer.headers["x-process-time"]) < 60

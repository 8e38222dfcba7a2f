import asyncio
import base64
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from modules.launcher.flags import Flags
from modules.web.auth import (
    COOKIE,
    LONGEST_DELAY,
    MOST_ADDRESSES,
    SESSION_SECONDS,
    Accounts,
    Attempts,
    Keyring,
    TooManyAttempts,
    session_secret,
)
from modules.web.protection import protect

ACCOUNTS = (("ann", "pa:ss"), ("bob", "wörd"))
SECRET = b"s" * 32


@pytest.fixture
def site(tmp_path: Path) -> FastAPI:
    site = FastAPI()

    @site.get("/who")
    def who(request_scope: str = "") -> dict[str, str]:
        return {"said": "hello"}

    @site.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(socket.scope["darkroom_user"])
        await socket.close()

    protect(site, replace(Flags(), accounts=ACCOUNTS), tmp_path)
    return site


@pytest.fixture
def client(site: FastAPI) -> TestClient:
    return TestClient(site, follow_redirects=False)


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", ["/who", "/", "/docs", "/openapi.json", "/internal/ping", "/darkroom/assets/x/y.js"])
def test_nothing_answers_without_an_account(client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")
    assert answer.json()["error"] == "LoginRequired"


@pytest.mark.parametrize("user, password", ACCOUNTS)
def test_programs_use_http_basic(client, user: str, password: str) -> None:
    assert client.get("/who", headers=basic(user, password)).json() == {"said": "hello"}


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!", "Basic YQ==", "Bearer x", "Basic " + "A" * 9999])
def test_headers_that_hold_no_account_are_refused(client, header: str) -> None:
    assert client.get("/who", headers={"authorization": header}).status_code == 401


def test_a_browser_is_led_to_the_login_page_and_back(client) -> None:
    away = client.get("/who?x=1&y=2", headers={"accept": "text/html"})
    assert away.status_code == 303 and away.headers["location"] == "/login?next=/who%3Fx%3D1%26y%3D2"
    page = client.get(away.headers["location"])
    assert page.status_code == 200 and 'value="/who?x=1&amp;y=2"' in page.text
    assert "http://" not in page.text and "https://" not in page.text
    fields = {"username": "bob", "password": "wörd", "next": "/who?x=1"}
    back = client.post("/login", data=fields, headers={"accept": "text/html"})
    assert back.status_code == 303 and back.headers["location"] == "/who?x=1"
    cookie = back.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    assert client.get("/who").status_code == 200
    out = client.get("/logout")
    assert out.headers["location"] == "/login" and client.get("/who").status_code == 401


def test_a_wrong_password_shows_the_page_again_and_says_so(client) -> None:
    answer = client.post("/login", data={"username": "ann", "password": "<b>"}, headers={"accept": "text/html"})
    assert answer.status_code == 401 and "is wrong" in answer.text and "<b>" not in answer.text
    assert "set-cookie" not in answer.headers


def test_programs_can_log_in_too(client) -> None:
    assert client.post("/login", json={"username": "ann", "password": "pa:ss"}).json() == {"success": True}
    assert client.get("/who").status_code == 200


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb", ""])
def test_nobody_is_led_elsewhere_after_the_login(client, target: str) -> None:
    fields = {"username": "ann", "password": "pa:ss", "next": target}
    assert client.post("/login", data=fields, headers={"accept": "text/html"}).headers["location"] == "/"


def test_a_script_of_the_page_gets_no_dialog_of_the_browser(client) -> None:
    answer = client.get("/who", headers={"sec-fetch-mode": "cors"})
    assert answer.status_code == 401 and "www-authenticate" not in answer.headers


def test_a_body_that_is_no_login_is_refused(client) -> None:
    assert client.post("/login", content=b"x" * 100_000).status_code == 403
    assert client.post("/login", content=b"[[", headers={"content-type": "application/json"}).status_code == 401


def test_websockets_need_an_account_too(client) -> None:
    with pytest.raises(WebSocketDisconnect) as closed:
        with client.websocket_connect("/live"):
            raise AssertionError("it was let in")
    assert closed.value.code == 1008
    with client.websocket_connect("/live", headers=basic("ann", "pa:ss")) as socket:
        assert socket.receive_text() == "ann"


def test_a_path_below_which_all_is_served_stays_in_addresses(site) -> None:
    client = TestClient(site, root_path="/studio", follow_redirects=False)
    away = client.get("/studio/who", headers={"accept": "text/html"})
    assert away.headers["location"].startswith("/studio/login?next=/studio/who")
    done = client.post("/studio/login", data={"username": "ann", "password": "pa:ss"})
    assert "Path=/studio/" in done.headers["set-cookie"]


def test_a_session_ends_with_its_time_its_password_and_its_secret() -> None:
    ring = Keyring(ACCOUNTS, SECRET)
    value = ring.session("bob", 1000.0)
    assert ring.session_user(value, 1000.0 + SESSION_SECONDS) == "bob"
    assert ring.session_user(value, 1001.0 + SESSION_SECONDS) == ""
    assert Keyring((("bob", "other"),), SECRET).session_user(value, 1000.0) == ""
    assert Keyring(ACCOUNTS, b"t" * 32).session_user(value, 1000.0) == ""
    name, expires, signature = value.split(".")
    longer = f"{name}.{int(expires) + 1}.{signature}"
    other = f"{base64.urlsafe_b64encode(b'ann').decode()}.{expires}.{signature}"
    odd = (f"{name}.{expires}.", f"{name}.²2.{signature}", f"é.{expires}.{signature}", "", "..", "x.y.z")
    for forged in (longer, other, *odd):
        assert ring.session_user(forged, 1000.0) == "", forged


def test_an_account_is_a_name_with_its_own_password() -> None:
    ring = Keyring(ACCOUNTS, SECRET)
    assert ring.check("ann", "pa:ss") == "ann"
    for user, password in (("ann", "wörd"), ("ann:pa", "ss"), ("", ""), ("Ann", "pa:ss"), ("ann", "")):
        assert ring.check(user, password) == ""


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "session.key"
    secret = session_secret(path)
    assert len(secret) == 32 and session_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"cut")
    assert len(session_secret(path)) == 32 and path.read_bytes() != b"cut"


def test_guessing_becomes_slow_and_stays_bounded() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    assert attempts.pause("a") == 0.0
    guesses, waited = 0, []
    while now[0] < 120:
        wait = attempts.pause("a")
        assert wait <= LONGEST_DELAY
        waited.append(wait)
        now[0] += wait
        attempts.failed("a")
        guesses += 1
    assert guesses < 40 and waited[-1] == LONGEST_DELAY
    assert attempts.pause("b") == 0.0
    with pytest.raises(TooManyAttempts):
        for _ in range(5):
            attempts.pause("a")
    attempts.succeeded("a")
    assert attempts.pause("a") == 0.0
    for number in range(2 * MOST_ADDRESSES):
        attempts.failed(str(number))
    assert len(attempts._records) == MOST_ADDRESSES


def test_many_guesses_at_once_are_turned_away(tmp_path: Path) -> None:
    reached = []

    async def inner(scope, receive, send) -> None:
        reached.append(scope["darkroom_user"])

    async def guess(layer: Accounts) -> int:
        sent = []

        async def send(message) -> None:
            sent.append(message)

        async def receive():
            return {"type": "http.request"}

        header = basic("ann", "no")["authorization"].encode()
        scope = {"type": "http", "path": "/", "method": "GET", "query_string": b"", "client": ("9.9.9.9", 1),
                 "headers": [(b"authorization", header)]}
        await layer(scope, receive, send)
        return sent[0]["status"]

    async def attack() -> list[int]:
        layer = Accounts(inner, Keyring(ACCOUNTS, SECRET), Attempts(lambda: 0.0))
        tasks = [asyncio.create_task(guess(layer)) for _ in range(50)]
        done, waiting = await asyncio.wait(tasks, timeout=0.3)
        for task in waiting:
            task.cancel()
        return [task.result() for task in done]

    statuses = asyncio.run(attack())
    assert statuses.count(429) > 35 and statuses.count(401) <= 2 and reached == []


def test_without_accounts_there_is_no_layer(tmp_path: Path) -> None:
    site = FastAPI()
    protect(site, Flags(), tmp_path)
    assert Accounts not in [layer.cls for layer in site.user_middleware]
    assert not (tmp_path / "data").exists()
    assert COOKIE == "darkroom_session"

"""The one authentication layer: accounts in front of every route, Gradio's and static ones included.

Browsers get a login page and a signed cookie, other clients use HTTP Basic. Without accounts there is no layer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from modules.core.errors import DarkroomError, DiskFull, Forbidden
from modules.web.answers import answer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "darkroom_session"
SESSION_SECONDS = 30 * 24 * 3600
SECRET_BYTES = 32
FIRST_DELAY, LONGEST_DELAY = 0.5, 5.0
FORGET_AFTER = 900.0
MOST_ADDRESSES = 1024
MAX_LOGIN_BYTES = 16 * 1024
REALM = 'Basic realm="Darkroom", charset="UTF-8"'

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Darkroom</title>
<link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="dark light">
<style>body{{margin:0;min-height:100vh;display:grid;place-items:center;background:#121010;color:#ece6e1;
font:16px system-ui,sans-serif}}form{{width:min(20rem,84vw);display:grid;gap:.9rem}}
h1{{font-size:1.2rem;margin:0 0 .4rem}}
i{{display:inline-block;width:.6em;height:.6em;border-radius:50%;background:#dd4f33;margin-right:.5em}}
label{{display:grid;gap:.3rem;color:#a99e96;font-size:.9rem}}input{{font:inherit;padding:.55rem .6rem;border-radius:5px;
border:1px solid #38322e;background:#131110;color:inherit}}button{{font:inherit;font-weight:600;padding:.6rem;border:0;
border-radius:6px;background:#c23a20;color:#fff;cursor:pointer}}:focus-visible{{outline:2px solid #f27a5e}}
p{{margin:0;color:#fba48f}}</style></head><body><form method="post" action="login"><h1><i></i>Darkroom</h1>{problem}
<label>User name<input name="username" autocomplete="username" autofocus required></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="{target}"><button>Log in</button></form></body></html>"""


class TooManyAttempts(DarkroomError):
    """Passwords are tried faster than is allowed."""

    status = 429


class LoginRequired(DarkroomError):
    """There is no valid account in the request."""

    status = 401


def session_secret(path: Path) -> bytes:
    """Return the secret in ``path``, made at random (mode 0600) where there is none; raises ``DiskFull``."""
    try:
        secret = path.read_bytes()
        if len(secret) == SECRET_BYTES:
            return secret
    except FileNotFoundError:
        pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        secret = secrets.token_bytes(SECRET_BYTES)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise DiskFull(f"{path} could not be written: {error.strerror}.", "Check the folder's permissions.") from error
    return secret


class Keyring:
    """The accounts, and sessions signed for them; one ends with its time, its account's password or the secret."""

    def __init__(self, accounts: Sequence[tuple[str, str]], secret: bytes) -> None:
        self._secret = secret
        self._accounts = tuple((user, self._sign("account", user, password)) for user, password in accounts)

    def check(self, user: str, password: str) -> str:
        """Return ``user`` if there is such an account, else an empty text, after the same time."""
        given = self._sign("account", user, password)
        matches = [hmac.compare_digest(given, expected) for _, expected in self._accounts]
        return user if any(matches) else ""

    def session(self, user: str, now: float) -> str:
        """Return the cookie's value for ``user``, valid for 30 days."""
        expires = str(int(now) + SESSION_SECONDS)
        account = next(digest for name, digest in self._accounts if name == user)
        name = base64.urlsafe_b64encode(user.encode()).decode()
        return f"{name}.{expires}.{self._sign('session', account, expires)}"

    def session_user(self, value: str, now: float) -> str:
        """Return the user of a cookie's value, empty where it is not, or no longer, valid."""
        name, _, rest = value.partition(".")
        expires, _, signature = rest.partition(".")
        try:
            user = base64.urlsafe_b64decode(name.encode()).decode()
        except ValueError:
            return ""
        if not (expires.isascii() and expires.isdigit() and signature.isascii()) or int(expires[:20]) < now:
            return ""
        digests = [digest for known, digest in self._accounts if known == user]
        valid = [hmac.compare_digest(signature, self._sign("session", digest, expires)) for digest in digests]
        return user if any(valid) else ""

    def _sign(self, *parts: str) -> str:
        text = json.dumps(parts).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()


@dataclass
class _Record:
    failures: int = 0
    next: float = 0.0

    def delay(self) -> float:
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures - 1, 10)) if self.failures else 0.0


class Attempts:
    """Slows guessing down: from an address that failed, one attempt at a time and 5 seconds apart in the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def pause(self, address: str) -> float:
        """Return the seconds to wait before the next attempt is looked at; raises ``TooManyAttempts`` beyond 5."""
        now, record = self._clock(), self._records.get(address)
        if record is None or now - record.next > FORGET_AFTER:
            self._records.pop(address, None)
            return 0.0
        wait = max(0.0, record.next - now)
        if wait > LONGEST_DELAY:
            raise TooManyAttempts("Too many wrong passwords came from this address.", "Try again in a minute.")
        record.next = now + wait + record.delay()
        return wait

    def failed(self, address: str) -> None:
        """Count a wrong password."""
        record = self._records.pop(address, None) or _Record()
        record.failures += 1
        record.next = max(record.next, self._clock() + record.delay())
        self._records[address] = record
        while len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the address's failures."""
        self._records.pop(address, None)


class Accounts:
    """ASGI middleware that lets only holders of an account through, and puts their name into the scope."""

    def __init__(self, site: Any, keyring: Keyring, attempts: Attempts | None = None,
                 clock: Callable[[], float] = time.time) -> None:
        self._site = site
        self._keyring = keyring
        self._attempts = attempts or Attempts()
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._site(scope, receive, send)
            return
        path = str(scope["path"]).removeprefix(str(scope.get("root_path") or ""))
        if scope["type"] == "http" and path in ("/login", "/login/", "/logout", "/logout/"):
            respond = self._logged_out if path.startswith("/logout") else self._login
            await (await respond(scope, receive))(scope, receive, send)
            return
        try:
            scope["darkroom_user"] = await self._user(scope)
        except DarkroomError as error:
            await _refuse(scope, receive, send, error)
            return
        await self._site(scope, receive, send)

    async def _user(self, scope: Scope) -> str:
        """Return whose request this is; raises ``LoginRequired`` or ``TooManyAttempts``."""
        headers = Headers(scope=scope)
        user = self._keyring.session_user(_cookie(headers), self._clock())
        if user:
            return user
        credentials = _basic(headers.get("authorization", ""))
        if credentials is None:
            raise LoginRequired("An account is needed.", "Log in, or send a user name and password (HTTP Basic).")
        return await self._checked(scope, *credentials)

    async def _checked(self, scope: Scope, user: str, password: str) -> str:
        address = str((scope.get("client") or ("",))[0])
        wait = self._attempts.pause(address)
        if wait:
            await anyio.sleep(wait)
        if not self._keyring.check(user, password):
            self._attempts.failed(address)
            raise LoginRequired("The user name or the password is wrong.")
        self._attempts.succeeded(address)
        return user

    async def _login(self, scope: Scope, receive: Receive) -> Response:
        headers, wants_page = Headers(scope=scope), _wants_page(scope)
        if scope["method"] != "POST":
            return _page(_target(QueryParams(scope["query_string"]).get("next", ""), scope))
        try:
            fields = _fields(await _body(receive), headers.get("content-type", ""))
            user = await self._checked(scope, fields.get("username", ""), fields.get("password", ""))
        except DarkroomError as error:
            target = _target(fields.get("next", ""), scope) if error.status == 401 else _root(scope)
            return _page(target, error) if wants_page else answer(error)
        response: Response = JSONResponse({"success": True})
        if wants_page:
            response = RedirectResponse(_target(fields.get("next", ""), scope), 303)
        response.set_cookie(COOKIE, self._keyring.session(user, self._clock()), SESSION_SECONDS, path=_root(scope),
                            httponly=True, samesite="lax", secure=scope.get("scheme") == "https")
        return response

    async def _logged_out(self, scope: Scope, receive: Receive) -> Response:
        response = RedirectResponse(f"{_root(scope)}login", 303)
        response.delete_cookie(COOKIE, path=_root(scope), httponly=True, samesite="lax")
        return response


async def _refuse(scope: Scope, receive: Receive, send: Send, error: DarkroomError) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "An account is needed."})
        return
    if error.status == 401 and scope["method"] in ("GET", "HEAD") and _wants_page(scope):
        wanted = quote(str(scope["path"]) + _query(scope), safe="/")
        await RedirectResponse(f"{_root(scope)}login?next={wanted}", 303)(scope, receive, send)
        return
    # A browser would answer this header to a script's request with a dialog of its own.
    asks = error.status == 401 and "sec-fetch-mode" not in Headers(scope=scope)
    await answer(error, {"WWW-Authenticate": REALM} if asks else None)(scope, receive, send)


def _page(target: str, error: DarkroomError | None = None) -> Response:
    problem = f'<p role="alert">{html.escape(error.message)}</p>' if error else ""
    content = PAGE.format(problem=problem, target=html.escape(target, quote=True))
    return HTMLResponse(content, error.status if error else 200, {"Cache-Control": "no-store"})


def _wants_page(scope: Scope) -> bool:
    return "text/html" in Headers(scope=scope).get("accept", "")


def _root(scope: Scope) -> str:
    return f"{str(scope.get('root_path') or '').rstrip('/')}/"


def _query(scope: Scope) -> str:
    query = bytes(scope.get("query_string") or b"").decode("latin-1")
    return f"?{query}" if query else ""


def _target(wanted: str, scope: Scope) -> str:
    """Return ``wanted`` if it is a path of ours, so that nobody is led elsewhere."""
    ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if ours else _root(scope)


def _cookie(headers: Headers) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _basic(header: str) -> tuple[str, str] | None:
    """Return user and password of an ``Authorization: Basic`` header (RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
        if len(body) > MAX_LOGIN_BYTES:
            raise Forbidden("This is no login.")
    return body


def _fields(body: bytes, content_type: str) -> dict[str, str]:
    text = body.decode(errors="replace")
    if content_type.startswith("application/json"):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return {str(key): str(value) for key, value in values.items()} if isinstance(values, dict) else {}
    return {key: values[-1] for key, values in parse_qs(text).items()}

"""What stands in front of every route: accounts, foreign web sites, sizes, and how long an answer took."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from modules.core.errors import DarkroomError, Forbidden, InvalidRequest
from modules.launcher import access
from modules.web.answers import answer
from modules.web.auth import Accounts, Keyring, session_secret

if TYPE_CHECKING:
    from modules.launcher.flags import Flags

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_DRAINED_BYTES = 4 * MAX_BODY_BYTES
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class TooLarge(DarkroomError):
    """A request's body is larger than is accepted."""

    status = 413


@dataclass(frozen=True)
class Sites:
    """The other web sites that may call: ``origins`` such as ``https://a.example`` (``*`` for all) and a pattern."""

    origins: tuple[str, ...] = ()
    pattern: str = ""

    def __bool__(self) -> bool:
        return bool(self.origins or self.pattern)

    def allow(self, origin: str) -> bool:
        """Return whether ``origin`` is one of them."""
        return "*" in self.origins or origin in self.origins or bool(
            self.pattern and re.fullmatch(self.pattern, origin))

    def allow_host(self, host: str) -> bool:
        """Return whether one of them has this ``Host``."""
        return any(self.allow(f"{scheme}://{host}") for scheme in ("http", "https"))


def protect(site: FastAPI, flags: Flags, data_dir: Path) -> None:
    """Put every layer in front of ``site``; the session's secret is kept in ``data_dir``.

    Raises ``InvalidRequest`` where ``--cors-allow-origins-regex`` is no regular expression, ``DiskFull``.
    """
    sites = allowed_sites(flags)
    site.add_middleware(BodyLimit)
    if flags.accounts:
        secret = session_secret(data_dir / "data" / "session.key")
        site.add_middleware(Accounts, keyring=Keyring(flags.accounts, secret))
    own_host = None if flags.accounts else access.host(flags)
    site.add_middleware(OwnSite, sites=sites, own_host=own_host)
    if sites:
        site.add_middleware(
            CORSMiddleware, allow_origins=sites.origins, allow_origin_regex=sites.pattern or None,
            allow_methods=["*"], allow_headers=["*"], allow_credentials="*" not in sites.origins,
            expose_headers=["X-Process-Time"])
    site.add_middleware(ProcessTime)


def allowed_sites(flags: Flags) -> Sites:
    """Return the sites that the flags of CORS name; raises ``InvalidRequest`` for a bad regular expression."""
    origins = (origin.strip().rstrip("/") for origin in flags.cors_allow_origins.split(","))
    try:
        re.compile(flags.cors_allow_origins_regex)
    except re.error as error:
        raise InvalidRequest(f"--cors-allow-origins-regex is no regular expression: {error}.") from None
    return Sites(tuple(origin for origin in origins if origin), flags.cors_allow_origins_regex)


class OwnSite:
    """ASGI middleware that refuses what other web sites send through a visitor's browser.

    A browser names the page that sends a change in ``Origin``. With ``own_host`` (no accounts, so this machine alone
    may ask) the ``Host`` must be ours too: another name that was made to point here (DNS rebinding) is not.
    """

    def __init__(self, site: Any, sites: Sites, own_host: str | None = None) -> None:
        self._site = site
        self._sites = sites
        self._own_host = own_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)):
            if scope["type"] == "http":
                await answer(refusal)(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "Another web site asked."})
            return
        await self._site(scope, receive, send)

    def _refusal(self, scope: Scope) -> Forbidden | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if self._own_host is not None and host and not self._knows(host):
            return Forbidden(f"This server does not answer to the name {host[:100]!r}.",
                             "Add its address to --cors-allow-origins, or protect the server with --gradio-auth.")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if not changes or not _is_foreign(headers) or self._sites.allow(origin):
            return None
        return Forbidden(f"Another web site ({origin[:100] or 'unnamed'}) tried to use this server.",
                         "Allow it with --cors-allow-origins if that is wanted.")

    def _knows(self, host: str) -> bool:
        name = _host_name(host)
        own = access.is_loopback(name) or name.endswith(".localhost") or name == self._own_host
        return own or self._sites.allow_host(host)


def _is_foreign(headers: Headers) -> bool:
    """Return whether a browser says that another site's page sends this."""
    fetched = headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class BodyLimit:
    """ASGI middleware that answers 413 to bodies larger than ``limit`` bytes."""

    def __init__(self, site: Any, limit: int = MAX_BODY_BYTES, drained: int = MAX_DRAINED_BYTES) -> None:
        self._site = site
        self._limit = limit
        self._drained = drained

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._site(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > self._limit:
            await _drain(receive, self._drained)
            await answer(TooLarge(self._message()))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # The one exception that passes whatever reads the body.
                raise HTTPException(TooLarge.status, self._message())
            return message

        await self._site(scope, counted, send)

    def _message(self) -> str:
        return f"The request is larger than {self._limit // 1024**2} MiB."


async def _drain(receive: Receive, most: int) -> None:
    """Read and forget a body, since many clients listen for the answer only after they have sent it."""
    more = True
    while more and most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        more = bool(message.get("more_body"))


class ProcessTime:
    """ASGI middleware that says in ``X-Process-Time`` how many seconds passed until the answer began."""

    def __init__(self, site: Any) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._site(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Process-Time"] = f"{time.perf_counter() - began:.4f}"
            await send(message)

        await self._site(scope, receive, timed)

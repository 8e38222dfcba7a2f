"""Pictures in requests and answers: base64, data URIs and, where settings allow it, addresses to fetch."""

from __future__ import annotations

import base64
import binascii
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from modules.core.addresses import public_address
from modules.core.errors import Forbidden, InvalidRequest, NotFound
from modules.core.settings import Settings

MAX_FETCHED_BYTES = 64 * 1024 * 1024
MAX_REDIRECTS = 5
FETCH_SECONDS = 20.0
CHUNK = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)

Connect = Callable[[tuple[str, int], float], socket.socket]
Resolve = Callable[[str, int], list[Any]]


def encoded(path: str) -> str:
    """Return a saved picture's file as base64; raises ``NotFound`` where it is gone."""
    try:
        return base64.b64encode(Path(path).read_bytes()).decode()
    except OSError:
        raise NotFound("The picture's file is no longer there.") from None


def decoded(text: str, settings: Settings) -> bytes:
    """Return the bytes of a picture given as base64, as a data URI, or as an address of http(s).

    Raises ``InvalidRequest`` for anything else and ``Forbidden`` for an address that settings do not allow.
    """
    text = text.strip()
    if text.lower().startswith(("http://", "https://")):
        if not settings.api_enable_requests:
            raise Forbidden("Pictures are not fetched from addresses here.", "Send the picture itself, as base64.")
        return Fetcher(allow_local=not settings.api_forbid_local_requests).fetch(text)
    if text[:5].lower() == "data:":
        _, comma, text = text.partition(",")
        if not comma:
            raise InvalidRequest("The data URI holds no picture.")
    if not text:
        raise InvalidRequest("There is no picture.", "Send one as base64.")
    compact = "".join(text.split())
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The picture is not valid base64.") from None


def _resolve(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


@dataclass(frozen=True)
class Fetcher:
    """Fetches a file of at most 64 MiB within 20 seconds.

    Each address, redirects included, is resolved once; unless ``allow_local``, every result must be public, and the
    connection goes to what was checked, so that a name that changes its mind in between gains nothing.
    """

    allow_local: bool = False
    resolve: Resolve = _resolve
    connect: Connect = socket.create_connection
    seconds: float = FETCH_SECONDS
    most: int = MAX_FETCHED_BYTES

    def fetch(self, url: str) -> bytes:
        """Return what is at ``url``; raises ``InvalidRequest`` or ``Forbidden``."""
        deadline = time.monotonic() + self.seconds
        try:
            for _ in range(MAX_REDIRECTS + 1):
                body, target = self._ask(url, deadline)
                if target is None:
                    return body
                url = urljoin(url, target)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise InvalidRequest(f"The picture could not be fetched: {error or type(error).__name__}.") from None
        raise InvalidRequest("The picture could not be fetched: it is redirected again and again.")

    def _ask(self, url: str, deadline: float) -> tuple[bytes, str | None]:
        """Return the content of ``url``, or where it points to."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest("The address of a picture begins with http:// or https://.")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        connection = http.client.HTTPConnection(parts.hostname, port)
        connection.sock = self._open(parts, self._checked(parts.hostname, port), port, _left(deadline))
        try:
            path = parts.path or "/"
            connection.request("GET", f"{path}?{parts.query}" if parts.query else path,
                               headers={"User-Agent": "Darkroom", "Accept": "image/*"})
            response = connection.getresponse()
            if response.status in REDIRECTS:
                return b"", response.headers.get("Location") or ""
            if response.status != 200:
                raise InvalidRequest(f"The picture could not be fetched: its server answered {response.status}.")
            return self._read(response, connection.sock, deadline), None
        finally:
            connection.close()

    def _checked(self, host: str, port: int) -> str:
        found = [str(item[4][0]) for item in self.resolve(host, port)]
        if not found:
            raise InvalidRequest(f"There is no address for {host}.")
        if not self.allow_local and not all(map(public_address, found)):
            raise Forbidden(f"{host} is in a local network; pictures are not fetched from there.",
                            "Send the picture itself, as base64.")
        return found[0]

    def _open(self, parts: SplitResult, address: str, port: int, timeout: float) -> socket.socket:
        opened = self.connect((address, port), timeout)
        if parts.scheme == "https":
            return ssl.create_default_context().wrap_socket(opened, server_hostname=parts.hostname)
        return opened

    def _read(self, response: http.client.HTTPResponse, sock: Any, deadline: float) -> bytes:
        body = bytearray()
        while True:
            if sock.fileno() >= 0:
                sock.settimeout(_left(deadline))
            chunk = response.read1(CHUNK)
            if not chunk:
                return bytes(body)
            body += chunk
            if len(body) > self.most:
                raise InvalidRequest(f"The picture at that address has more than {self.most // 1024**2} MiB.")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left

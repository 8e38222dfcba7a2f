"""What others offer at an address, downloaded by https alone, wherever it is redirected to."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from modules.core.addresses import public_address
from modules.core.errors import Forbidden, InvalidRequest, NotFound

SCHEME = "https://"
SECONDS = 300.0
STEP = 64 * 1024

Check = Callable[[str], None]
Resolve = Callable[[str, int], list[Any]]


def is_https(address: str) -> bool:
    """Return whether ``address`` is one of https."""
    return address[:len(SCHEME)].lower() == SCHEME


def check_https(address: str) -> None:
    """Raise ``Forbidden`` where ``address`` is none of https."""
    if not is_https(address):
        raise Forbidden(f"{address[:200]!r} is no address of https, so anybody on the way could change what it has.")


def _resolve(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def check_public(address: str, resolve: Resolve = _resolve) -> None:
    """Raise ``Forbidden`` where ``address`` is none of https or leads into this machine or its network.

    A name that changes its mind afterwards gains nothing: what is there cannot prove to be of that name.
    """
    check_https(address)
    try:
        parts = urlsplit(address)
        found = [str(item[4][0]) for item in resolve(parts.hostname or "", parts.port or 443)]
    except (OSError, ValueError) as error:
        raise NotFound(f"{address[:200]} cannot be found: {error}.", "Check the address.") from None
    if not found or not all(map(public_address, found)):
        raise Forbidden(f"{urlsplit(address).hostname} is in a local network; nothing is fetched from there from afar.",
                        "Use the command line on the machine itself.")


def download(address: str, most: int, check: Check = check_https,
             handlers: Sequence[urllib.request.BaseHandler] = ()) -> bytes:
    """Return what is at ``address``; ``check`` is asked about it and about wherever it is redirected to.

    ``handlers`` take the place of urllib's own. Raises ``InvalidRequest`` for more than ``most`` bytes, ``NotFound``
    where it cannot be had within five minutes, and what ``check`` raises.
    """
    check(address)
    deadline = time.monotonic() + SECONDS
    body = bytearray()
    try:
        with urllib.request.build_opener(_Redirects(check), *handlers).open(address, timeout=SECONDS) as answer:
            while chunk := answer.read(STEP):
                body += chunk
                if len(body) > most:
                    raise InvalidRequest(f"{address} has more than {most:,} bytes.")
                if time.monotonic() > deadline:
                    raise TimeoutError("it takes too long")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotFound(f"{address} cannot be read: {getattr(error, 'reason', None) or error}.",
                       "Check the address and the network.") from error
    return bytes(body)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, check: Check) -> None:
        self._check = check

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any,
                         newurl: str) -> urllib.request.Request | None:
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

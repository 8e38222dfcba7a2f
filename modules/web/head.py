"""The document around Gradio's application: our scripts and styles in its head, nothing that points elsewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

_FOREIGN = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>', re.DOTALL)
_RESIZER = re.compile(r"<script>\s*\(\(\) => \{\s*const root = .*?</script>", re.DOTALL)
ICON = ("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' "
        "height='32' rx='7' fill='%23121010'/%3E%3Ccircle cx='16' cy='16' r='8' fill='%23dd4f33'/%3E%3C/svg%3E")


def head(version: str, theme: str | None, scripts: Sequence[str] = ()) -> str:
    """Return what is put into the document's head; addresses are relative to its base.

    ``scripts`` are JavaScript modules of extensions.
    """
    base = f"./darkroom/assets/{version}"
    preset = f"""<script>{{const page = new URL(location.href);
if (!page.searchParams.has("__theme")) {{ page.searchParams.set("__theme", "{theme}");
history.replaceState(null, "", page); }}}}</script>""" if theme else ""
    return (f'{preset}<meta name="theme-color" content="#121010"><link rel="icon" href="{ICON}">'
            f'<link rel="stylesheet" href="{base}/page.css"><link rel="stylesheet" href="{base}/editor.css">'
            f'<link rel="stylesheet" href="{base}/extras.css">'
            f'<link rel="stylesheet" href="{base}/networks.css">'
            f'<link rel="stylesheet" href="{base}/inspector.css">'
            f'<script type="module" src="{base}/page.js"></script>{"".join(map(_module, scripts))}')


def _module(script: str) -> str:
    # As an address nothing in it can end the element.
    encoded = base64.b64encode(script.encode()).decode()
    return f'<script type="module" src="data:text/javascript;base64,{encoded}"></script>'


def rewritten(document: str, ours: str) -> str:
    """Return Gradio's document without references to other sites, and with ``ours`` at the end of its head."""
    document = _RESIZER.sub("", _FOREIGN.sub("", document), count=1)
    return document.replace("</head>", f"{ours}</head>", 1)


class Head:
    """ASGI middleware that passes the HTML of the page, and nothing else, through ``rewritten``."""

    def __init__(self, site: Any, ours: str) -> None:
        self._site = site
        self._ours = ours

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not _is_root(scope):
            await self._site(scope, receive, send)
            return
        start: MutableMapping[str, Any] = {}
        body = bytearray()

        async def collect(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                await _send_document(send, start, bytes(body), self._ours)

        await self._site(scope, receive, collect)


def _is_root(scope: MutableMapping[str, Any]) -> bool:
    return str(scope["path"]).removeprefix(str(scope.get("root_path") or "")) in ("", "/")


async def _send_document(send: Callable[[Any], Awaitable[None]], start: MutableMapping[str, Any], body: bytes,
                         ours: str) -> None:
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    if any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in headers):
        body = rewritten(body.decode(), ours).encode() if body else body
        headers.append((b"cache-control", b"no-cache"))
    if body:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Answers from the first moment: a small page while the rest is still being imported, then the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PAGE = b"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Darkroom</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="1">
<style>body{margin:0;min-height:100vh;display:grid;place-items:center;background:#121010;color:#a99e96;
font:16px system-ui,sans-serif}i{display:inline-block;width:.6em;height:.6em;border-radius:50%;background:#dd4f33;
margin-right:.6em}</style></head><body><p role="status"><i></i>Darkroom is starting\xe2\x80\xa6</p></body></html>"""


class Starting:
    """An ASGI application that builds another in a thread. Until that is there a browser gets a page that asks
    again every second, and every other client waits. Where it cannot be built, ``failure`` says why and
    ``on_failure`` is called.
    """

    def __init__(self, build: Callable[[], Any], on_failure: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        self._build = build
        self._on_failure = on_failure
        self._site: Any = None
        self._ready = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if not self._ready.is_set() and _is_browser(scope):
            await _answer(send, 503, PAGE)
            return
        await self._ready.wait()
        if self.failure is not None:
            await _answer(send, 500, b"Darkroom could not start; the terminal says why.")
            return
        await self._site(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Run the inner application's lifespan inside our own, which must not wait for it."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        async with AsyncExitStack() as stack:
            try:
                self._site = await asyncio.to_thread(self._build)
                await stack.enter_async_context(self._site.router.lifespan_context(self._site))
            except Exception as error:  # noqa: BLE001 - whatever it is, the server must say so and end
                self.failure = error
                self._on_failure()
            self._ready.set()
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _is_browser(scope: Scope) -> bool:
    accept = dict(scope.get("headers") or ()).get(b"accept", b"")
    return scope["type"] == "http" and b"text/html" in accept


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"),
               (b"content-length", str(len(body)).encode()), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

import asyncio
import threading
from types import SimpleNamespace

from modules.web.starting import Starting

BROWSER = {"type": "http", "headers": [(b"accept", b"text/html,*/*")]}
CLIENT = {"type": "http", "headers": [(b"accept", b"application/json")]}


class Site:
    """An inner application that notes its lifespan."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.router = SimpleNamespace(lifespan_context=self._lifespan)

    def _lifespan(self, site: object) -> "Site":
        return self

    async def __aenter__(self) -> None:
        self.notes.append("up")

    async def __aexit__(self, *error: object) -> None:
        self.notes.append("down")

    async def __call__(self, scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})


async def _ask(starting: Starting, scope: dict) -> tuple[int, bytes]:
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    await starting(scope, None, send)
    return sent[0]["status"], sent[1]["body"]


async def _lifespan(starting: Starting) -> tuple[asyncio.Task, asyncio.Queue, list[str]]:
    inbox: asyncio.Queue = asyncio.Queue()
    sent: list[str] = []

    async def send(message: dict) -> None:
        sent.append(message["type"])

    await inbox.put({"type": "lifespan.startup"})
    task = asyncio.create_task(starting({"type": "lifespan"}, inbox.get, send))
    while "lifespan.startup.complete" not in sent:
        await asyncio.sleep(0)
    return task, inbox, sent


def test_a_browser_is_answered_while_the_site_is_built_and_a_client_waits_for_it() -> None:
    async def scenario() -> None:
        gate, site = threading.Event(), Site()
        starting = Starting(lambda: gate.wait(5) and site, lambda: None)
        task, inbox, sent = await _lifespan(starting)
        status, body = await _ask(starting, BROWSER)
        assert status == 503 and b"starting" in body
        client = asyncio.create_task(_ask(starting, CLIENT))
        await asyncio.sleep(0.01)
        assert not client.done()
        gate.set()
        assert await client == (200, b"inner")
        assert await _ask(starting, BROWSER) == (200, b"inner")
        await inbox.put({"type": "lifespan.shutdown"})
        await task
        assert site.notes == ["up", "down"] and sent[-1] == "lifespan.shutdown.complete"

    asyncio.run(scenario())


def test_a_site_that_cannot_be_built_is_reported_and_answers_500() -> None:
    async def scenario() -> None:
        stopped: list[bool] = []

        def fail() -> None:
            raise ValueError("no")

        starting = Starting(fail, lambda: stopped.append(True))
        task, inbox, _ = await _lifespan(starting)
        assert (await _ask(starting, CLIENT))[0] == 500
        assert stopped == [True] and isinstance(starting.failure, ValueError)
        await inbox.put({"type": "lifespan.shutdown"})
        await task

    asyncio.run(scenario())

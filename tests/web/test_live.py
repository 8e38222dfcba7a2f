import asyncio
import json
from pathlib import Path

import pytest

from modules.app.events import Event
from modules.core.job import Job
from modules.core.request import Request
from modules.core.result import Progress
from modules.web.live import job_events, message
from tests.web.running import fake_engine, make_app


@pytest.fixture
def app(tmp_path: Path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    built.start()
    yield built
    built.close()


def test_a_slow_reader_gets_few_events_of_many_steps_and_never_misses_the_end(app) -> None:
    job = app.submit(Request(prompt="a", steps=150, width=64, height=64, batch_count=4))

    async def collect() -> list[str]:
        texts = []
        async for text in job_events(app, job.id):
            texts.append(text)
            await asyncio.sleep(0.02)
        return texts

    texts = asyncio.run(collect())
    assert len(texts) < 60 and "event: ended" in texts[-1]
    assert len(json.loads(texts[-1].split("data: ")[1])["images"]) == 4


def test_only_one_listener_at_a_time_is_left_behind_by_a_closed_stream(app) -> None:
    app.engine.hold.clear()
    job = app.submit(Request(prompt="a", steps=5, width=64, height=64))

    async def leave() -> None:
        stream = job_events(app, job.id)
        await anext(stream)
        assert app.queue.hub.watched(job.id)
        await stream.aclose()

    asyncio.run(leave())
    assert not app.queue.hub.watched(job.id)


def test_a_preview_has_an_address_that_changes_with_it() -> None:
    job = Job("j", "", "running", Request(), progress=Progress(preview=7))
    view = json.loads(message(Event("preview", "j", job)).split("data: ")[1])
    assert view["preview_url"].endswith("jobs/j/preview?n=7")
    assert message(Event("queue")) == ""

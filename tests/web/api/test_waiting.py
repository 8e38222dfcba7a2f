import asyncio
import time

from fastapi import Request as Asked

from modules.core.errors import EngineDied
from modules.core.request import Request
from modules.web.api.waiting import ended

SMALL = Request(prompt="a", steps=2, width=64, height=64)


def caller(gone: asyncio.Event) -> Asked:
    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}
    return Asked({"type": "http", "headers": []}, receive)


def test_a_queued_job_goes_with_its_caller_and_a_running_one_stays(app) -> None:
    app.engine.hold.clear()
    running, waiting = app.submit(SMALL, blocking=True), app.submit(SMALL, blocking=True)
    while app.job(running.id).state != "running":
        time.sleep(0.01)

    async def leave() -> tuple[str, str]:
        gone = asyncio.Event()
        tasks = [asyncio.create_task(ended(app, job.id, caller(gone))) for job in (running, waiting)]
        await asyncio.sleep(0.05)
        gone.set()
        cancelled = await asyncio.wait_for(tasks[1], 10)
        assert app.job(running.id).state == "running"
        app.engine.hold.set()
        return (await asyncio.wait_for(tasks[0], 10)).state, cancelled.state

    assert asyncio.run(leave()) == ("finished", "cancelled")


def test_a_job_that_has_ended_already_is_returned_at_once(app) -> None:
    job = app.wait(app.submit(SMALL).id, 10)

    async def ask():
        return await asyncio.wait_for(ended(app, job.id, caller(asyncio.Event())), 5)

    assert asyncio.run(ask()) == job


def test_callers_hear_that_the_server_ends(app) -> None:
    app.engine.hold.clear()
    job = app.submit(SMALL)

    async def ask() -> str:
        task = asyncio.create_task(ended(app, job.id, caller(asyncio.Event())))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(app.queue.hub.close)
        try:
            await asyncio.wait_for(task, 5)
        except EngineDied as error:
            return error.message
        return ""

    assert "shutting down" in asyncio.run(ask())

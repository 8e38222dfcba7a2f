import time

from modules.core.request import Request

SMALL = Request(prompt="a", steps=300, width=64, height=64)


def ask(client, **body):
    return client.post("/internal/progress", json=body).json()


def test_ping_answers(client) -> None:
    assert client.get("/internal/ping").json() == {}


def test_a_task_waits_runs_with_fresh_previews_and_ends(client, app) -> None:
    app.engine.seconds_per_step = 0.01
    app.look()
    first, second = (app.submit(SMALL, job_id=name) for name in ("task(a)", "task(b)"))
    assert client.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["task(b)"]}
    waiting = ask(client, id_task=second.id)
    assert waiting["queued"] and not waiting["active"] and waiting["textinfo"] == "In queue: 1/1"
    deadline = time.monotonic() + 10
    while not (shown := ask(client, id_task=first.id, id_live_preview=-1))["live_preview"]:
        assert time.monotonic() < deadline
    assert shown["active"] and 0 < shown["progress"] <= 1 and shown["eta"] is not None
    assert shown["live_preview"].startswith("data:image/jpeg;base64,") and shown["id_live_preview"] > 0
    assert ask(client, id_task=first.id, id_live_preview=-1, live_preview=False)["live_preview"] is None
    client.post("/sdapi/v1/interrupt")
    app.cancel(second.id)
    app.wait(first.id, 10)
    ended = ask(client, id_task=first.id)
    assert ended["completed"] and not ended["active"]


def test_a_preview_that_was_seen_is_not_sent_again(client, app) -> None:
    app.engine.seconds_per_step = 0.01
    app.look()
    job = app.submit(SMALL)
    deadline = time.monotonic() + 10
    while app.preview(job.id) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    app.engine.hold.clear()
    time.sleep(0.1)
    number = app.preview(job.id)[0]
    assert ask(client, id_task=job.id, id_live_preview=number)["live_preview"] is None
    assert ask(client, id_task=job.id, id_live_preview=number - 1)["live_preview"]
    app.cancel(job.id)
    app.engine.hold.set()


def test_an_unknown_task_is_none_of_all(client) -> None:
    for task in (None, "", "nothing"):
        answer = ask(client, id_task=task)
        assert not (answer["active"] or answer["queued"] or answer["completed"])

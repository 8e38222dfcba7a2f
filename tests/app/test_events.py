import threading

from modules.app.events import Event, Hub, present
from modules.core.job import FINISHED, QUEUED, RUNNING, Job
from modules.core.request import Request


def job(state=RUNNING, job_id="a"):
    return Job(job_id, "", state, Request())


def test_a_subscription_hears_of_its_job_and_of_nothing_else():
    hub = Hub()
    with hub.subscribe("a") as one, hub.subscribe() as everything:
        hub.publish(Event("started", "a", job()))
        hub.publish(Event("started", "b", job(job_id="b")))
        assert one.get(0).job_id == "a" and one.get(0) is None
        assert [everything.get(0).job_id for _ in range(2)] == ["a", "b"]


def test_a_slow_listener_misses_progress_but_no_change_of_state_and_its_mailbox_is_bounded():
    hub = Hub()
    with hub.subscribe("a") as slow:
        hub.publish(Event("started", "a", job()))
        for _ in range(10_000):
            hub.publish(Event("progress", "a", job()))
        last = job(FINISHED)
        hub.publish(Event("ended", "a", last))
        kinds = [slow.get(0) for _ in range(3)]
        assert [event.kind for event in kinds] == ["started", "progress", "ended"]
        assert kinds[-1].job is last and slow.get(0) is None


def test_a_newer_snapshot_takes_the_place_of_the_older():
    hub = Hub()
    with hub.subscribe() as listener:
        first, second = job(), job()
        hub.publish(Event("image", "a", first))
        hub.publish(Event("image", "a", second))
        assert listener.get(0).job is second and listener.get(0) is None


def test_waiting_ends_with_an_event_from_another_thread_and_with_closing():
    hub = Hub()
    listener = hub.subscribe("a")
    threading.Timer(0.02, hub.publish, args=(Event("started", "a", job()),)).start()
    assert listener.get(5).kind == "started"
    threading.Timer(0.02, listener.close).start()
    assert listener.get(5) is None and listener.closed
    listener.put(Event("ended", "a"))
    assert listener.get(0) is None


def test_nobody_is_watched_after_closing():
    hub = Hub()
    with hub.subscribe("a"):
        assert hub.watched("a") and not hub.watched("b")
        with hub.subscribe():
            assert hub.watched("b")
    assert not hub.watched("a")
    remaining = hub.subscribe()
    hub.close()
    assert remaining.closed and not hub.watched("a")


def test_a_newcomer_is_told_the_present_state():
    assert [present(job(state)).kind for state in (QUEUED, RUNNING, FINISHED)] == ["queued", "started", "ended"]

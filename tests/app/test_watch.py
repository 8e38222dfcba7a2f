import io
from types import SimpleNamespace

import pytest
from PIL import Image

from modules.app.messages import Advanced, Interrupt, Look, Previewed, Run, Skip, StopAfter
from modules.app.watch import JobWatch
from modules.core.errors import Interrupted, Skipped
from modules.core.request import Request


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class NoSaver:
    def __init__(self):
        self.pictures = []

    def put(self, picture):
        self.pictures.append(picture)


@pytest.fixture
def clock():
    return Clock()


def watched(clock, reports, watching=True, **options):
    return JobWatch(Run("j", Request(batch_count=2), (), watching), NoSaver(), reports.append, clock, **options)


def test_progress_comes_at_most_ten_times_a_second(clock):
    reports = []
    watch = watched(clock, reports)
    watch.batch(0, 1)
    reports.clear()
    for step in range(1000):
        clock.now += 0.01
        watch.step(step / 50, 20)
    assert 90 <= len(reports) <= 101 and all(isinstance(report, Advanced) for report in reports)


def test_nothing_is_told_while_nobody_looks_and_the_state_at_once_when_somebody_does(clock):
    reports = []
    watch = watched(clock, reports, watching=False)
    watch.phase("Loading")
    watch.batch(0, 1)
    watch.step(10, 20)
    assert reports == [] and not watch.wants_preview()
    watch.tell(Look(True))
    assert reports[0].progress.step == 10 and watch.wants_preview()
    watch.tell(Look(False))
    assert len(reports) == 1


def test_a_preview_is_a_small_jpeg_four_times_a_second(clock):
    reports = []
    watch = watched(clock, reports)
    assert watch.wants_preview()
    watch.preview(Image.new("RGBA", (2048, 1024)))
    assert not watch.wants_preview()
    clock.now += 0.25
    assert watch.wants_preview()
    (preview,) = reports
    assert isinstance(preview, Previewed) and preview.number == 1
    with Image.open(io.BytesIO(preview.jpeg)) as image:
        assert image.format == "JPEG" and image.size == (512, 256)
    assert not watched(clock, [], previews=False).wants_preview()


def test_interrupting_stops_the_next_call_of_this_job_alone(clock):
    watch = watched(clock, [])
    watch.tell(Interrupt("another"))
    watch.check()
    watch.tell(Interrupt("j"))
    for _ in range(2):
        with pytest.raises(Interrupted):
            watch.check()
    assert watch.interrupted


def test_skipping_ends_one_batch_in_its_middle_and_no_other(clock):
    watch = watched(clock, [])
    watch.tell(Skip("j"))
    watch.check()
    watch.batch(0, 1)
    watch.check()
    watch.tell(Skip("j"))
    with pytest.raises(Skipped):
        watch.check()
    watch.check()
    watch.picture(SimpleNamespace(stage="before-highres-fix"))
    watch.tell(Skip("j"))
    with pytest.raises(Skipped):
        watch.check()
    watch.picture(SimpleNamespace(stage=""))
    watch.tell(Skip("j"))
    watch.check()


def test_stopping_waits_for_the_batch(clock):
    watch = watched(clock, [])
    assert not watch.stopping()
    watch.tell(StopAfter("j"))
    watch.check()
    assert not watch.stopping()
    watch.batch(0, 1)
    assert watch.stopping()

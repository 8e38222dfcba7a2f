import pytest

from modules.app.progress import Meter


def test_the_fraction_is_over_all_pictures():
    meter = Meter(pictures=4)
    meter.batch(0, 2)
    meter.step(5, 10, now=1.0)
    assert meter.progress(1.0).fraction == pytest.approx(0.25)
    meter.batch(2, 2)
    meter.step(2.5, 10, now=2.0)
    progress = meter.progress(2.0)
    assert progress.fraction == pytest.approx(0.5 + 0.25 * 0.5)
    assert (progress.picture, progress.pictures, progress.step, progress.steps) == (2, 4, 2, 10)


def test_the_time_left_follows_from_the_pace_after_the_first_call():
    meter = Meter(pictures=1)
    meter.batch(0, 1)
    meter.step(1, 11, now=100.0)
    assert meter.progress(100.0).eta is None
    meter.step(6, 11, now=105.0)
    assert meter.progress(105.0).eta == pytest.approx(5.0)
    assert meter.progress(106.0).eta == pytest.approx(4.0)


def test_a_job_that_goes_on_after_a_restart_begins_where_it_was():
    meter = Meter(pictures=4, done=2)
    assert meter.progress(0.0).fraction == 0.5
    meter.batch(2, 1)
    meter.step(0, 10, now=10.0)
    meter.step(5, 10, now=20.0)
    assert meter.progress(20.0).eta == pytest.approx((1.0 - 0.625) / (0.125 / 10.0))


def test_the_fraction_never_falls_and_ends_at_one():
    meter = Meter(pictures=3)
    seen = []
    for first, size in ((0, 2), (2, 1)):
        meter.batch(first, size)
        for step in range(0, 21):
            meter.step(step / 2, 10, now=float(step))
            seen.append(meter.progress(float(step)).fraction)
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_phase_lasts_until_the_next_step_and_previews_are_counted():
    meter = Meter(1)
    meter.phase("Loading")
    assert meter.progress(0.0).phase == "Loading" and meter.progress(0.0).eta is None
    meter.step(1, 2, now=0.0)
    assert meter.progress(0.0).phase == ""
    assert [meter.preview(), meter.preview()] == [1, 2] and meter.progress(0.0).preview == 2

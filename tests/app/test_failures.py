import pytest

from modules.app.failures import death, failure_of
from modules.core.errors import InvalidModel


def test_errors_for_users_keep_what_they_say():
    failure = failure_of(InvalidModel("Broken.", "Take another."), "log")
    assert (failure.error, failure.message, failure.hint, failure.status) == (
        "InvalidModel", "Broken.", "Take another.", 422)


class OutOfMemoryError(RuntimeError):
    """Called like torch's."""


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")])
def test_exhausted_memory_is_told_with_numbers(error):
    failure = failure_of(error)
    assert failure.error == "OutOfMemory" and failure.status == 507 and "GiB" in failure.message


def test_the_unexpected_is_named_and_points_to_the_log():
    failure = failure_of(KeyError("x"), "/data/engine.log")
    assert failure.error == "KeyError" and failure.status == 500 and "/data/engine.log" in failure.hint
    assert len(failure_of(ValueError("y" * 10_000)).message) < 600


@pytest.mark.parametrize(("code", "words"), [
    (-9, "SIGKILL"), (-9, "memory"), (-11, "SIGSEGV"), (-11, "driver"), (3, "exit code 3"), (-63, "signal"),
    (None, "None"),
])
def test_the_end_of_a_process_is_explained(code, words):
    error = death(code)
    assert words in error.message and error.status == 503 and "queue goes on" in error.hint

import threading

import pytest

from modules.app import forms
from modules.app.forms import FormStore
from modules.core.errors import InvalidRequest


@pytest.fixture
def store(tmp_path):
    store = FormStore(tmp_path / "forms.sqlite3")
    yield store
    store.close()


def test_a_form_is_kept_by_owner_and_tab(tmp_path):
    store = FormStore(tmp_path / "forms.sqlite3")
    assert store.load("me", "txt2img") == {}
    store.save("me", "txt2img", {"prompt": "猫", "steps": 20, "p.on": True, "none": None})
    store.remember_job("me", "txt2img", "j1")
    store.close()
    store = FormStore(tmp_path / "forms.sqlite3")
    assert store.load("me", "txt2img") == {"prompt": "猫", "steps": 20, "p.on": True, "none": None}
    assert store.last_job("me", "txt2img") == "j1"
    assert store.load("you", "txt2img") == {} and store.load("me", "img2img") == {} and store.last_job("you", "x") == ""
    store.close()


def test_saving_replaces_and_merging_changes_what_is_given(store):
    store.save("me", "t", {"a": 1, "b": 2})
    assert store.merge("me", "t", {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4} == store.load("me", "t")
    store.save("me", "t", {"z": 1})
    assert store.load("me", "t") == {"z": 1}


def test_values_and_the_last_job_do_not_overwrite_each_other(store):
    store.remember_job("me", "t", "j")
    store.save("me", "t", {"a": 1})
    store.remember_job("me", "t", "k")
    assert store.load("me", "t") == {"a": 1} and store.last_job("me", "t") == "k"


@pytest.mark.parametrize("values", [{"a": "x" * 2**20}, {"a": "é" * 600_000}, {"a": object()}])
def test_what_is_too_large_or_no_json_is_refused_and_the_old_stays(store, values):
    store.save("me", "t", {"a": 1})
    for change in (store.save, store.merge):
        with pytest.raises(InvalidRequest):
            change("me", "t", values)
    assert store.load("me", "t") == {"a": 1}


def test_a_lone_surrogate_does_no_harm(store):
    store.save("me", "t", {"a": "\ud83d"})
    assert store.load("me", "t") == {"a": "\ud83d"}


def test_the_number_of_forms_is_bounded(store, monkeypatch):
    monkeypatch.setattr(forms, "MAX_FORMS", 3)
    for number in range(6):
        store.save(str(number), "t", {"n": number})
    assert [bool(store.load(str(number), "t")) for number in range(6)] == [False] * 3 + [True] * 3


def test_merging_from_many_threads_loses_nothing(store):
    threads = [threading.Thread(target=store.merge, args=("me", "t", {str(n): n})) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load("me", "t") == {str(n): n for n in range(16)}

import json
import logging

import pytest

from modules.app.settings import SettingsStore, override_warnings, read_config
from modules.core.errors import DiskFull, Forbidden, InvalidRequest, NotFound
from modules.core.settings import Settings


def listed(choices, value):
    known = {"checkpoints": ["a.safetensors [123]"], "vaes": ["Automatic", "None"], "samplers": ["Euler a"]}[choices]
    for item in known:
        if value.lower() in item.lower():
            return item
    raise NotFound(f"no {value}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.json"


def test_without_a_file_there_are_defaults_and_none_is_written(path):
    assert SettingsStore(path).get() == Settings() and not path.exists()


def test_changes_are_kept_with_unknown_keys_of_another_program(path):
    path.write_text(json.dumps({"CLIP_stop_at_last_layers": 2, "samples_format": "jpg", "quicksettings_list": ["x"]}))
    store = SettingsStore(path)
    assert store.get().CLIP_stop_at_last_layers == 2 and store.get().samples_format == "jpg"
    store.update({"eta_ancestral": 0.5})
    again = SettingsStore(path)
    assert again.get() == store.get() and again.get().eta_ancestral == 0.5
    assert json.loads(path.read_text())["quicksettings_list"] == ["x"]
    assert [item.name for item in path.parent.iterdir()] == ["config.json"]


def test_an_unusable_value_in_the_file_takes_its_default_and_is_reported(path, caplog):
    path.write_text(json.dumps({"jpeg_quality": 1000, "samples_format": 5, "rho": 2}))
    with caplog.at_level(logging.WARNING):
        settings = SettingsStore(path).get()
    assert (settings.jpeg_quality, settings.samples_format, settings.rho) == (80, "png", 2.0)
    assert "jpeg_quality" in caplog.text and "samples_format" in caplog.text


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b"", b"[" * 100_000])
def test_a_damaged_file_is_moved_aside(path, content, caplog):
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert SettingsStore(path).get() == Settings()
    (aside,) = path.parent.iterdir()
    assert "damaged" in aside.name and aside.read_bytes() == content and aside.name in caplog.text


def test_a_bad_value_changes_nothing(path):
    store = SettingsStore(path, listed)
    for values in ({"nonsense": 1}, {"jpeg_quality": 0}, {"rho": 1.0, "samples_format": "bmp"}):
        with pytest.raises(InvalidRequest):
            store.update(values)
    with pytest.raises(NotFound):
        store.update({"sd_model_checkpoint": "missing"})
    assert store.get() == Settings() and not path.exists()


def test_listed_choices_take_their_proper_spelling(path):
    store = SettingsStore(path, listed)
    store.update({"sd_model_checkpoint": "A.SAFE", "hide_samplers": ["euler A"], "sd_vae": "none"})
    settings = store.get()
    assert (settings.sd_model_checkpoint, settings.hide_samplers, settings.sd_vae) == (
        "a.safetensors [123]", ("Euler a",), "None")
    assert store.update({"sd_model_checkpoint": ""}).sd_model_checkpoint == ""


def test_the_api_leaves_restricted_settings_alone_and_frozen_ones_never_change(path):
    store = SettingsStore(path)
    with pytest.raises(Forbidden, match="samples_filename_pattern"):
        store.update({"samples_filename_pattern": "[prompt]"}, by_api=True)
    assert store.update({"samples_filename_pattern": "", "rho": 1}, by_api=True).rho == 1.0
    assert store.update({"samples_filename_pattern": "[seed]"}).samples_filename_pattern == "[seed]"
    with pytest.raises(Forbidden, match="frozen"):
        SettingsStore(path, frozen=True).update({"rho": 2})


def test_overrides_for_one_request_touch_no_global_state(path):
    store = SettingsStore(path, listed)
    overrides = {"CLIP_stop_at_last_layers": 2, "jpeg_quality": 5, "nonsense": 1, "sd_model_checkpoint": "a.safe"}
    settings = store.for_request(overrides)
    assert (settings.CLIP_stop_at_last_layers, settings.jpeg_quality) == (2, 80)
    assert settings.sd_model_checkpoint == "a.safetensors [123]" and store.get() == Settings()
    assert [("nonsense" in text, "jpeg_quality" in text) for text in override_warnings(overrides)] == [
        (True, False), (False, True)]
    with pytest.raises(InvalidRequest):
        store.for_request({"CLIP_stop_at_last_layers": 99})


def test_listeners_hear_of_each_change(path):
    store, heard = SettingsStore(path), []
    store.listen(heard.append)
    store.update({"rho": 1.0})
    assert [settings.rho for settings in heard] == [1.0]


def test_a_file_that_cannot_be_written_keeps_the_old_settings(tmp_path):
    (tmp_path / "file").write_text("")
    store = SettingsStore(tmp_path / "config.json")
    store.path = tmp_path / "file" / "config.json"
    with pytest.raises(DiskFull):
        store.update({"rho": 1.0})
    assert store.get() == Settings()


def test_a_byte_order_mark_does_no_harm(path):
    path.write_text('\ufeff{"rho": 3}', "utf-8")
    assert read_config(path) == {"rho": 3}

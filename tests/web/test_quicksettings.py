from pathlib import Path

import pytest

from modules.web.quicksettings import keep_checkpoint, lists, spelled
from tests.web.running import fake_engine, make_app


@pytest.mark.parametrize(("chosen", "shown"), [
    ("a.safetensors", "a.safetensors [0123456789]"), ("a.safetensors [0123456789]", "a.safetensors [0123456789]"),
    ("b.safetensors", "b.safetensors"), ("gone.ckpt", "gone.ckpt"), ("", ""),
])
def test_a_checkpoint_is_recognised_before_and_after_its_hash_is_known(chosen: str, shown: str) -> None:
    assert spelled(chosen, ["a.safetensors [0123456789]", "b.safetensors"]) == shown


def test_the_pickers_list_what_is_on_disk_and_show_what_is_chosen(tmp_path: Path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    try:
        app.settings.update({"sd_vae": "None"})
        shown = lists(app)
    finally:
        app.close()
    assert shown["sd_model_checkpoint"]["value"] == "stand-in.safetensors"
    assert shown["sd_vae"]["value"] == "None" and shown["sd_vae"]["choices"][:2] == ["Automatic", "None"]


def test_a_new_file_does_not_displace_the_checkpoint_in_use(tmp_path: Path) -> None:
    app = make_app(tmp_path, fake_engine(tmp_path))
    try:
        keep_checkpoint(app)
        (app.folders.checkpoints[0] / "another.safetensors").write_bytes(b"x")
        app.refresh()
        shown = lists(app)["sd_model_checkpoint"]
    finally:
        app.close()
    assert shown["choices"][0] == "another.safetensors" and shown["value"] == "stand-in.safetensors"

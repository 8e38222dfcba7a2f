import dataclasses
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from modules.core.errors import Forbidden, InvalidRequest
from modules.core.extras import Extras
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.inputs import Inputs
from modules.web.form import restored
from modules.web.tabs import extras
from tests.web.running import fake_engine, make_app


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path, fake_engine(tmp_path))
    yield built
    built.close()


def brought(app, name="cat.png", infotext="a cat", size=(20, 10)):
    return {"image": Inputs(app.folders.inputs).add(Image.new("RGB", size, "red")).id, "name": name,
            "infotext": infotext}


def submitted(app, **given):
    values = {**restored(extras.form(app), {}), "upscaler_1": "Lanczos", **given}
    return extras.submit(extras.form(app), values, app, "ann").request


def test_every_field_is_laid_out_once_under_the_names_of_what_it_fills(app):
    with gr.Blocks():
        controls = extras.build(app)
    assert set(controls) == {field.name for field in controls.form} and "faces" in controls.places
    names = {field.name for field in dataclasses.fields(Extras)} - {"sources", "plugins"}
    for field in extras.FIELDS:
        if field.name in names:
            assert field.default == getattr(Extras(), field.name), field.name
    assert names < set(controls)


def test_a_single_picture(app):
    task = submitted(app, source=brought(app), upscaling_resize=2, upscaler_2="bicubic")
    assert (task.kind, task.pictures, task.title, task.summary) == ("extras", 1, "Extras", "Lanczos, 1 picture")
    assert task.values["sources"] == [brought(app)] and task.values["upscaler_2"] == "Bicubic" and task.save_images


def test_files_of_a_batch(app):
    batch = [brought(app, f"{side}.png", size=(side, 9)) | {"mask": ""} for side in (8, 9)]
    task = submitted(app, mode="batch", batch=batch, source=brought(app))
    assert [source["name"] for source in task.values["sources"]] == ["8.png", "9.png"]


def test_a_folder_without_its_broken_file(app, tmp_path):
    place = tmp_path / "holiday"
    place.mkdir()
    for i in range(3):
        Image.new("RGB", (9, 9 + i)).save(place / f"{i}.png")
    (place / "broken.png").write_bytes(b"no picture")
    values = {**restored(extras.form(app), {}), "mode": "directory", "batch_input_dir": str(place),
              "upscaler_1": "Lanczos"}
    job = extras.submit(extras.form(app), values, app, "ann")
    assert [source["name"] for source in job.request.values["sources"]] == ["0.png", "1.png", "2.png"]
    assert len(job.warnings) == 1 and job.warnings[0].startswith("broken.png was skipped")


def test_results_of_a_folder_go_to_a_folder_and_need_not_be_shown(app, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    directory = {"mode": "directory", "batch_input_dir": str(tmp_path), "batch_output_dir": " trip/day 1 ",
                 "show_extras_results": False}
    task = submitted(app, **directory)
    assert (task.folder, task.shown) == ("trip/day 1", False)
    task = submitted(app, **{**directory, "mode": "single", "source": brought(app)})
    assert (task.folder, task.shown) == ("", True)
    for outside in ("/etc", "../x", "a/../../b", "C:\\x"):
        with pytest.raises(InvalidRequest, match="not below the folder"):
            submitted(app, **{**directory, "batch_output_dir": outside})


@pytest.mark.parametrize("given, words", [
    ({}, "no picture"), ({"mode": "batch"}, "no picture"), ({"mode": "directory"}, "Input directory is empty"),
    ({"mode": "directory", "batch_input_dir": "/no/such/place"}, "cannot be read"),
    ({"upscaler_1": "None"}, "No upscaler is chosen"), ({"upscaling_resize": 1000}, "Resize"),
])
def test_what_is_missing_is_said(app, given, words):
    with pytest.raises(InvalidRequest, match=words):
        submitted(app, **given)


def put_face_files(app, *names):
    place = app.folders.models_dir / "GFPGAN"
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).write_bytes(b"x")


def test_faces_are_restored_where_the_files_are(app):
    names = {field.name for field in extras.form(app)}
    assert not set(extras.RESTORERS) & names and "upscale_first" in names
    assert "GFPGANv1.4.pth" in extras.missing_files(app) and "<p>CodeFormer needs" in extras.missing_files(app)
    with pytest.raises(InvalidRequest, match="or restore faces"):
        submitted(app, source=brought(app), upscaler_1="None", gfpgan_visibility=1.0)
    put_face_files(app, "GFPGANv1.4.pth", "detection_Resnet50_Final.pth")
    assert "gfpgan_visibility" in {field.name for field in extras.form(app)}
    assert "GFPGAN needs" not in extras.missing_files(app)
    task = submitted(app, source=brought(app), upscaler_1="None", gfpgan_visibility=0.5, codeformer_visibility=0.5)
    assert (task.values["gfpgan_visibility"], task.values["codeformer_visibility"]) == (0.5, 0.0)
    assert task.summary == "GFPGAN, 1 picture" and task.values["upscale_first"]


def test_folders_are_not_offered_where_others_reach_the_program(app):
    shared = dataclasses.replace(app, flags=dataclasses.replace(app.flags, listen=True))
    fields = {field.name: field for field in extras.form(shared)}
    assert not fields.keys() & set(extras.OF_DIRECTORY) and fields["mode"].choices == ("single", "batch")
    with pytest.raises((Forbidden, InvalidRequest)):
        submitted(shared, mode="directory", batch_input_dir="/")
    with gr.Blocks():
        assert "batch_input_dir" not in extras.build(shared)


def with_plugin(app, tmp_path):
    """Return ``app`` with the bundled plugin of this tab."""
    folder = Path(__file__).resolve().parents[3] / "extensions"
    found = [one for one in discover((folder,), tmp_path, {}, frozenset()) if one.id == "post_processing"]
    return dataclasses.replace(app, host=Host(tuple(found)))


def test_a_plugin_has_its_panel_and_may_act_without_an_upscaler(app, tmp_path):
    built = with_plugin(app, tmp_path)
    with gr.Blocks():
        assert "post_processing/flip" in extras.build(built)
    task = submitted(built, source=brought(app), upscaler_1="None", **{"post_processing/flip": "Both"})
    assert task.values["plugins"]["post_processing"]["flip"] == "Both"
    with pytest.raises(InvalidRequest, match="No upscaler is chosen"):
        submitted(built, source=brought(app), upscaler_1="None")
    with pytest.raises(InvalidRequest, match="Rotate"):
        submitted(built, source=brought(app), **{"post_processing/rotate": "45"})

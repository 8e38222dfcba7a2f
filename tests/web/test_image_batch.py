import dataclasses
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import Forbidden, InvalidRequest
from modules.core.request import Request
from modules.library.inputs import Inputs
from modules.library.outputs import Outputs, Target
from modules.library.patterns import Facts
from modules.web.form import restored
from modules.web.image_batch import Found, Source, brought, requests, sources
from modules.web.tabs import img2img
from tests.web.running import fake_engine, make_app

INFOTEXT = "a fox\nNegative prompt: fog\nSteps: 9, Sampler: Euler a, Schedule type: Karras, CFG scale: 3, Seed: 5"
BASE = Request(kind="img2img", prompt="ink", steps=4, seed=1)


@pytest.fixture
def app(tmp_path):
    built = make_app(tmp_path / "app", fake_engine(tmp_path))
    yield built
    built.close()


@pytest.fixture
def folder(tmp_path):
    carried = PngInfo()
    carried.add_text("parameters", INFOTEXT)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in" / "a.png", pnginfo=carried)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.png").write_bytes(b"broken")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def test_a_folder_is_taken_but_for_what_is_broken(app, folder) -> None:
    found = sources({"batch_input_dir": f" {folder} "}, app)
    assert [source.name for source in found.sources] == ["a.png", "b.jpg"]
    assert found.sources[0].infotext == INFOTEXT and found.sources[1].infotext == ""
    (problem,) = found.problems
    assert problem.startswith("c.png was skipped: The picture cannot be read")


def test_masks_belong_to_pictures_by_name_or_are_one_for_all(app, folder, tmp_path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, shade in (("b.png", 255), ("z.png", 9)):
        Image.new("L", (8, 8), shade).save(masks / name)
    values = {"batch_input_dir": str(folder), "batch_mask_dir": str(masks)}
    found = sources(values, app)
    assert [source.name for source in found.sources] == ["b.jpg"]
    assert "a.png was skipped: it has no mask." in found.problems
    with Inputs(app.folders.inputs).open(found.sources[0].mask) as mask:
        assert mask.getpixel((0, 0)) == 255
    (masks / "z.png").unlink()
    assert {source.mask for source in sources(values, app).sources} == {found.sources[0].mask}


@pytest.mark.parametrize("values, said", [
    ({}, "no picture in the batch"), ({"batch_input_dir": "/nowhere/at/all"}, "cannot be read"),
])
def test_a_batch_of_nothing_is_refused(app, values, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        sources(values, app)


@pytest.mark.parametrize("changes", [{"share": True}, {"listen": True}])
def test_folders_are_only_for_whoever_sits_at_the_machine(app, folder, changes) -> None:
    exposed = dataclasses.replace(app, flags=replace(app.flags, **changes))
    with pytest.raises(Forbidden, match="Folders"):
        sources({"batch_input_dir": str(folder)}, exposed)
    shown = {field.name for field in img2img.form(app)} - {field.name for field in img2img.form(exposed)}
    assert shown == {"batch_input_dir", "batch_mask_dir"}


def test_an_infotext_sets_only_what_was_chosen() -> None:
    found = Found((Source("a", "1" * 32, INFOTEXT, "2" * 32), Source("b", "3" * 32)))
    plain, second = requests(BASE, found, ())
    assert plain == replace(BASE, init_images=("1" * 32,), mask="2" * 32)
    assert second == replace(BASE, init_images=("3" * 32,))
    taken, second = requests(BASE, found, ("Prompt", "Seed", "Sampler"))
    assert (taken.prompt, taken.negative_prompt, taken.seed, taken.sampler, taken.schedule, taken.steps) == (
        "ink a fox", "", 5, "Euler a", "Karras", 4)
    assert second.prompt == "ink"


def test_a_batch_is_one_job_with_a_part_for_each_picture(app, folder) -> None:
    inputs = Inputs(app.folders.inputs)
    batch = [dataclasses.asdict(brought(name, (folder / name).read_bytes(), inputs)) for name in ("a.png", "b.jpg")]
    app.start()
    values = {**restored(img2img.form(app), {}), "mode": "batch", "batch": batch, "steps": 1,
              "batch_properties": ["Negative prompt"]}
    job = app.wait(img2img.submit(img2img.form(app), values, app, "").id, 20)
    assert (job.state, len(job.images)) == ("finished", 2)
    parts = [command.request for command in app.engine.commands if hasattr(command, "request")]
    assert [part.init_images for part in parts] == [(one["image"],) for one in batch]
    assert [part.negative_prompt for part in parts] == ["fog", ""]


def test_an_output_directory_is_below_the_results_with_files_named_as_their_pictures(app) -> None:
    found = Found((Source("a[x].png", "1"), Source("b.jpg", "2")))
    made = requests(BASE, found, (), " trip/day [1] ")
    facts, outputs = Facts(seed=1, now=datetime.now(UTC)), Outputs(app.folders)
    paths = [outputs.save(Image.new("RGB", (8, 8)), "", Target(facts, "img2img"), one.settings)
             for one in (*made, made[0])]
    below = app.folders.outputs / "img2img-images" / "trip" / "day _1_"
    assert paths == [below / f"{name}.png" for name in ("a_x_-00000", "b-00000", "a_x_-00001")]
    assert requests(BASE, found, (), "")[0].settings == BASE.settings


@pytest.mark.parametrize("text", ["/tmp", "../elsewhere", "a/../../b", "C:\\pictures", "\\\\host\\share", "a\\..\\.."])
def test_an_output_directory_elsewhere_is_refused(text) -> None:
    with pytest.raises(InvalidRequest, match="Output directory"):
        requests(BASE, Found((Source("a.png", "1"),)), (), text)


def test_one_bad_part_leaves_nothing_queued(app) -> None:
    with pytest.raises(InvalidRequest, match="width"):
        app.submit_batch([Request(), Request(width=1)])
    with pytest.raises(InvalidRequest, match="nothing to make"):
        app.submit_batch([])
    assert app.jobs() == []

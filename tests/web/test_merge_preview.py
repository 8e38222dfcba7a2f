"""What the preview's buttons ask for."""

import pytest

from modules.app.messages import Run
from modules.core.errors import InvalidRequest, NotFound
from modules.core.merge import Recipe
from modules.core.request import Request
from modules.web.merge_preview import ORIGIN, asked
from tests.fixtures.fake_engine import write_stand_in_checkpoint
from tests.web.running import fake_engine, make_app

FIELDS = {"prompt": "", "seed": "7", "ratios": "0-1 (+0.5)"}


@pytest.fixture
def app(tmp_path):
    made = make_app(tmp_path, fake_engine(tmp_path))
    for name in "ab":
        write_stand_in_checkpoint(made.folders.checkpoints[0], f"{name}.safetensors")
    made.start()
    yield made
    made.close()


def test_it_is_the_form_of_txt2img_with_the_merge_in_place_of_the_model(app):
    app.forms.save("ann", "txt2img", {"prompt": "a fox", "steps": 3, "width": 64, "height": 128, "batch_count": 4,
                                      "enable_hr": True})
    request = asked(app, "ann", Recipe("a", "b", alpha=0.25, name="mine"), FIELDS, grid=False)
    assert (request.prompt, request.steps, request.width, request.height, request.seed) == ("a fox", 3, 64, 128, 7)
    assert request.pictures == 1 and not request.enable_hr and not request.save_images and not request.grid.wanted
    job = app.wait(app.submit(request, origin=ORIGIN).id, 30)
    assert job.request.merge.model_a == job.request.model == "a.safetensors"
    assert job.request.merge.name == "0.75(a) + 0.25(b)"
    assert asked(app, "ann", Recipe("a", "b"), FIELDS | {"prompt": "a hen"}, grid=False).prompt == "a hen"


def test_the_grid_has_a_cell_for_each_ratio(app):
    request = asked(app, "", Recipe("a", "b"), FIELDS, grid=True)
    job = app.wait(app.submit(request, origin=ORIGIN).id, 60)
    assert job.state == "finished"
    asked_of = [command.request for command in app.engine.commands if isinstance(command, Run)]
    parts = [one for one in asked_of if isinstance(one, Request)]
    assert [part.merge.alpha for part in parts] == [0.0, 0.5, 1.0] and {part.seed for part in parts} == {7}
    assert [part.merge.name for part in parts] == ["1(a) + 0(b)", "0.5(a) + 0.5(b)", "0(a) + 1(b)"]


def test_a_vae_to_bake_in_is_the_one_that_is_used(app):
    app.folders.vae[0].mkdir(parents=True)
    write_stand_in_checkpoint(app.folders.vae[0], "sharp.safetensors")
    request = asked(app, "", Recipe("a", "b", vae="sharp"), FIELDS, grid=False)
    assert app.submit(request, origin=ORIGIN).request.vae == "sharp.safetensors"


@pytest.mark.parametrize("recipe, fields, error", [
    (Recipe("a", ""), {}, InvalidRequest), (Recipe("a", "none"), {}, NotFound),
    (Recipe("a", "b"), {"ratios": "0-1 (x)"}, InvalidRequest), (Recipe("a", "b"), {"seed": "x"}, InvalidRequest),
    (Recipe("a", "b", block_alpha="GRAD_V"), {}, InvalidRequest),
    (Recipe("a", "b"), {"ratios": "0, 9"}, InvalidRequest),
])
def test_what_cannot_be_tried_out_is_refused(app, recipe, fields, error):
    with pytest.raises(error):
        app.submit(asked(app, "", recipe, FIELDS | fields, grid=True), origin=ORIGIN)
    assert app.jobs() == []

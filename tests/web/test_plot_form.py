import pytest

from modules.core.axes import AXES, axes_in
from modules.core.errors import InvalidRequest
from modules.core.grid import Grid
from modules.core.request import Request
from modules.library.infotext import format as infotext
from modules.web import plot_form, plots
from modules.web.form import restored
from modules.web.paste import paste
from modules.web.tabs import img2img, txt2img
from modules.web.views import row_view
from tests.fixtures.fake_engine import FakeEngine, make_app

FORM = plot_form.fields("txt2img")
KNOWN = axes_in("txt2img", AXES)
VALUES = {"plot_enable": True, "x_type": "Steps", "x_values": "1-3", "y_type": "Sampler", "y_values": "ignored",
          "y_choices": ["Euler", "Euler a"], "margin_size": 8, "include_sub_grids": True}


@pytest.fixture
def app(tmp_path):
    app = make_app(tmp_path, FakeEngine(tmp_path / "outputs"))
    yield app
    app.close()


def test_the_panel_has_every_field_of_a_grid_and_its_defaults():
    assert plot_form.grid_of(FORM, restored(FORM, {}) | {"plot_enable": True}, KNOWN) == Grid(
        "Nothing", "", "Nothing", "", "Nothing", "")
    assert len({field.elem_id for field in FORM}) == len(FORM)
    assert "script_txt2img_xyz_plot_x_type" in {field.elem_id for field in FORM}


def test_values_are_chosen_where_there_are_choices_and_written_elsewhere():
    grid = plot_form.grid_of(FORM, VALUES, KNOWN)
    assert grid == Grid("Steps", "1-3", "Sampler", "Euler, Euler a", "Nothing", "", include_sub_grids=True,
                        margin_size=8)
    texts = plot_form.grid_of(FORM, VALUES | {"csv_mode": True, "y_values": "LMS"}, KNOWN)
    assert texts.y_values == "LMS"


def test_a_closed_panel_asks_for_nothing():
    assert plot_form.grid_of(FORM, VALUES | {"plot_enable": False}, KNOWN) == Grid()


@pytest.mark.parametrize(("request_", "expected"), [
    (Request(steps=9), "Choose what varies."),
    (Request(steps=9, grid=Grid("CFG Scale", "5, 7")), "Will make 2 pictures for a grid of 2 x 1, 18 steps in all."),
    (Request(batch_size=2, batch_count=3, grid=Grid("Steps", "1-3", "CFG Scale", "5", "Seed", "1, 2")),
     "Will make 36 pictures for 2 grids of 3 x 1, 36 steps in all."),
    (Request(steps=4, grid=Grid("Steps", "7")), "Will make 1 picture for a grid of 1 x 1, 7 steps in all."),
])
def test_how_much_work_it_is(request_, expected):
    assert plot_form.summary(request_, KNOWN) == expected


def test_what_is_wrong_is_said_before_anything_is_made():
    with pytest.raises(InvalidRequest, match="Steps: 'x'"):
        plot_form.summary(Request(grid=Grid("Steps", "x")), KNOWN)


def test_a_pasted_grid_fills_the_panel_and_a_picture_leaves_it(app):
    entries = {"Steps": 3, "Sampler": "Euler", "Seed": 5, "Size": "64x64", "Script": "X/Y/Z plot", "X Type": "Steps",
               "X Values": "1-3", "Y Type": "Sampler", "Y Values": "Euler, Euler a", "Z Type": "Token merging ratio",
               "Z Values": "0.5"}
    form = txt2img.form(app)
    pasted = paste(form, infotext("a cat", "", entries), app)
    assert pasted.values["plot_enable"] and pasted.values["z_type"] == "Nothing"
    assert (pasted.values["x_type"], pasted.values["x_values"], pasted.values["x_choices"]) == ("Steps", "1-3", ())
    assert (pasted.values["y_type"], pasted.values["y_choices"]) == ("Sampler", ("Euler", "Euler a"))
    assert any("Token merging" in problem for problem in pasted.problems)
    assert txt2img.request(form, pasted.values, app).grid == Grid("Steps", "1-3", "Sampler", "Euler, Euler a",
                                                                  "Nothing", "")
    plain = paste(form, infotext("a cat", "", {"Steps": 3, "Sampler": "Euler", "Seed": 5, "Size": "64x64"}), app)
    assert "plot_enable" not in plain.values


def test_axes_of_the_form_are_those_of_its_tab(app):
    types = {tab: next(field.choices for field in form(app) if field.name == "x_type")
             for tab, form in (("txt2img", txt2img.form), ("img2img", img2img.form))}
    assert types["txt2img"][0] == "Nothing" and "Hires steps" in types["txt2img"]
    assert "Hires steps" not in types["img2img"] and "Image CFG Scale" in types["img2img"]


def test_the_queue_names_the_axes(app):
    job = app.submit(Request(grid=Grid("Steps", "1, 2", "Sampler", "Euler, LMS")))
    assert row_view(job)["summary"].endswith("X/Y/Z plot: Steps, Sampler")


def test_texts_become_choices_and_back():
    assert plots._converted(True, ["", ["a, b", "c"], "1-3", []]) == ['"a, b", c', ["a, b", "c"], "1-3", []]
    assert plots._converted(False, ["a, b", ["old"], "", ["kept"]]) == ["a, b", ["a", "b"], "", ["kept"]]


def test_all_values_are_filled_in_where_there_is_a_list(app):
    text, chosen = plots._filled("RNG source", ("", []), KNOWN, app)
    assert (text, chosen) == ("CPU, NV, GPU", ["CPU", "NV", "GPU"])
    assert plots._filled("Steps", ("1", []), KNOWN, app) == ["1", []]

"""The X/Y/Z plot over both APIs."""

import base64
import io
import json

import pytest
from PIL import Image

from modules.web.api.plots import labels
from tests.web.api.test_img2img import png

SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5}


def arguments(x=("Nothing", "", []), y=("Nothing", "", []), z=("Nothing", "", []), **options):
    values = {"draw_legend": True, "include_lone_images": False, "include_sub_grids": False, "no_fixed_seeds": False,
              "vary_seeds_x": False, "vary_seeds_y": False, "vary_seeds_z": False, "margin_size": 0, "csv_mode": False}
    return [*x, *y, *z, *(values | options).values()]


def plotted(client, *given, tab="txt2img", **more):
    script = {"script_name": "X/Y/Z plot", "script_args": list(given)}
    return client.post(f"/sdapi/v1/{tab}", json=SMALL | more | script)


def sizes(answer):
    return [Image.open(io.BytesIO(base64.b64decode(image))).size for image in answer.json()["images"]]


def test_a1111s_arguments_make_a_grid(client, app):
    # 4 is Steps, 6 CFG Scale and 9 Sampler in A1111's list of txt2img.
    answer = plotted(client, *arguments((4, "1-2", []), (9, "", ["Euler", "Euler a"]), (6, "5, 7", [])))
    assert answer.status_code == 200
    request = app.jobs(limit=1)[0].request
    assert (request.grid.x_type, request.grid.y_type, request.grid.z_type) == ("Steps", "Sampler", "CFG Scale")
    assert (request.grid.x_values, request.grid.y_values) == ("1-2", "Euler, Euler a")
    (size,) = sizes(answer)
    assert size[0] > 4 * 64 and size[1] > 2 * 64
    info = json.loads(answer.json()["info"])
    assert "Script: X/Y/Z plot, X Type: Steps, X Values: 1-2, Y Type: Sampler" in info["infotexts"][0]
    assert info["index_of_first_image"] == 1


def test_cells_and_sub_grids_come_where_they_are_wanted(client):
    wanted = {"include_lone_images": True, "include_sub_grids": True, "draw_legend": False, "margin_size": 2}
    answer = plotted(client, *arguments((4, "1-2", []), z=("CFG Scale", "5, 7", []), **wanted))
    assert sizes(answer) == [(4 * 64 + 6, 64), (2 * 64 + 2, 64), (2 * 64 + 2, 64), *[(64, 64)] * 4]
    info = json.loads(answer.json()["info"])
    assert info["all_seeds"] == [5] * 4 and info["index_of_first_image"] == 3


def test_a_place_means_the_list_of_its_tab(client, app):
    text, image = labels("txt2img", app), labels("img2img", app)
    assert text[:11] == ("Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "Hires steps", "CFG Scale",
                         "Prompt S/R", "Prompt order", "Sampler", "Hires sampler")
    assert image[:9] == ("Nothing", "Seed", "Var. seed", "Var. strength", "Steps", "CFG Scale", "Image CFG Scale",
                         "Prompt S/R", "Prompt order")
    at = text.index("UniPC Order")
    assert text[at + 1:at + 5] == ("Face restore", "Token merging ratio", "Token merging ratio high-res",
                                   "Always discard next-to-last sigma")
    begun = {"init_images": [png()]}
    assert plotted(client, *arguments((6, "1, 2", [])), tab="img2img", **begun).status_code == 200
    grid = app.jobs(limit=1)[0].request.grid
    assert (grid.x_type, grid.x_values) == ("Image CFG Scale", "1, 2")
    assert plotted(client, *arguments(("[Picture Frames] Frame colour", "", ["black", "white"]))).status_code == 200


@pytest.mark.parametrize(("given", "words"), [
    (arguments((400, "1", [])), "x_type"), (arguments((True, "1", [])), "x_type"),
    (arguments(("Stepps", "1", [])), "Steps"),
    (arguments(("Token merging ratio", "0.5", [])), "not available"), (arguments((4, "x", [])), "'x'"),
    (arguments((4, "1", [])) + [1], "18 values"), (arguments((4, "1", []), margin_size="wide"), "margin_size"),
    (arguments((9, "", ["Eulr"])), "Euler"), (arguments((4, "", [])), "no values"),
])
def test_bad_arguments_are_named(client, given, words):
    answer = plotted(client, *given)
    assert answer.status_code == 422 and words in json.dumps(answer.json())
    assert plotted(client, *arguments((4, "1", []))).status_code == 200


def test_texts_stand_in_for_lists_and_few_arguments_suffice(client, app):
    assert plotted(client, *arguments((9, "Euler, LMS", ["Euler a"]), csv_mode=True)).status_code == 200
    assert app.jobs(limit=1)[0].request.grid.x_values == "Euler, LMS"
    assert plotted(client, "Sampler", "Euler, LMS").status_code == 200
    assert app.jobs(limit=1)[0].request.grid.x_values == "Euler, LMS"


def test_a_failing_cell_is_a_warning_where_there_is_a_grid(client):
    answer = plotted(client, *arguments(("Prompt S/R", "cat, broken", [])))
    assert answer.status_code == 200 and len(answer.json()["images"]) == 1
    assert "1 of 2 cells is missing: failed." in json.loads(answer.json()["info"])["warnings"]
    assert plotted(client, *arguments(("Prompt S/R", "cat, dog", [])), prompt="broken cat").status_code == 507


def test_the_script_is_listed_with_its_arguments(client):
    scripts = client.get("/sdapi/v1/scripts").json()
    assert "x/y/z plot" in scripts["txt2img"] and "x/y/z plot" in scripts["img2img"]
    text, _ = (one for one in client.get("/sdapi/v1/script-info").json() if one["name"] == "x/y/z plot")
    assert [one["label"] for one in text["args"]] == [
        "x_type", "x_values", "x_values_dropdown", "y_type", "y_values", "y_values_dropdown", "z_type", "z_values",
        "z_values_dropdown", "draw_legend", "include_lone_images", "include_sub_grids", "no_fixed_seeds",
        "vary_seeds_x", "vary_seeds_y", "vary_seeds_z", "margin_size", "csv_mode"]
    assert text["args"][0]["choices"][4] == "Steps" and not text["is_alwayson"]


def test_our_own_api_takes_a_grid_and_lists_axes(client, app):
    grid = {"x_type": "Steps", "x_values": "1, 2", "include_lone_images": True}
    answer = client.post("/darkroom/v1/jobs", json=SMALL | {"grid": grid})
    assert answer.status_code == 202
    job = app.wait(answer.json()["id"], 10)
    view = client.get(f"/darkroom/v1/jobs/{job.id}").json()
    assert view["shown"] == [2, 0, 1] and view["request"]["grid"]["x_type"] == "Steps"
    assert [one["kind"] for one in view["images"]] == ["picture", "picture", "grid"]
    for bad, words in (({"x_typ": "Steps"}, "x_typ"), ({"x_type": "Stepps"}, "Steps"), ({"margin_size": -1}, "margin")):
        answer = client.post("/darkroom/v1/jobs", json=SMALL | {"grid": bad})
        assert answer.status_code == 422 and words in json.dumps(answer.json())
    axes = {one["label"]: one for one in client.get("/darkroom/v1/axes?kind=img2img").json()}
    assert "Image CFG Scale" in axes and "Hires steps" not in axes
    assert axes["Checkpoint name"]["choices"] == ["stand-in.safetensors"] and axes["Checkpoint name"]["cost"] == 1.0
    assert "Euler a" in axes["Sampler"]["choices"] and axes["Steps"]["choices"] == []

from types import SimpleNamespace

import pytest

from modules.core.errors import InvalidRequest
from modules.core.merge import METHODS, Recipe, check_recipe
from modules.web.page import blocks
from modules.web.tabs.merge import FIELDS, form, recipe, values_of
from tests.fixtures.fake_engine import write_stand_in_checkpoint
from tests.web.running import fake_engine, make_app


@pytest.fixture
def app(tmp_path):
    made = make_app(tmp_path, fake_engine(tmp_path), model=False)
    for name in "ab":
        write_stand_in_checkpoint(made.folders.checkpoints[0], f"{name}.safetensors")
    yield made
    made.close()


def test_the_form_is_the_recipe_and_its_ids_are_those_of_a1111():
    defaults = {field.name: field.default for field in FIELDS}
    assert recipe(defaults) == Recipe() and set(defaults) == set(Recipe.__dataclass_fields__)
    ids = {field.elem_id.removeprefix("modelmerger_") for field in FIELDS}
    assert {"primary_model_name", "secondary_model_name", "tertiary_model_name", "custom_name", "interp_amount",
            "interp_method", "checkpoint_format", "save_as_half", "config_method", "bake_in_vae", "discard_weights",
            "save_metadata", "metadata_json"} <= ids
    with pytest.raises(InvalidRequest, match="Interpolation Method"):
        recipe(defaults | {"method": "guess"})


def test_models_on_disk_are_listed_and_a_recipe_comes_back(app):
    assert next(field for field in form(app) if field.name == "model_b").choices == ("a.safetensors", "b.safetensors")
    values = values_of(Recipe("a", "deadbeef00", method="slerp", name="old"), app)
    assert values["model_a"] == "a.safetensors" and values["model_b"] == "deadbeef00" and values["name"] == ""


def test_the_page_queues_what_the_form_says_and_keeps_it(app):
    app.start()
    page = blocks(app)
    ids = {item["props"].get("elem_id"): item["id"] for item in page.config["components"]}

    def event(block, name):
        return next(item.fn for item in page.fns.values() if (ids[block], name) in item.targets and item.fn)

    def control(name):
        return page.blocks[ids[f"modelmerger_{name}"]]

    asked_by = SimpleNamespace(request=SimpleNamespace(scope={"darkroom_user": "ann"}))
    data = {control(field.elem_id.removeprefix("modelmerger_")): field.default for field in FIELDS}
    data |= {control("primary_model_name"): "a.safetensors", control("secondary_model_name"): "b.safetensors"}
    assert '"id"' in event("modelmerger_merge", "click")(data, asked_by)
    assert app.jobs()[0].request.values["model_b"] == "b.safetensors"
    assert "Model B is not chosen" in event("modelmerger_merge", "click")(
        data | {control("secondary_model_name"): ""}, asked_by)
    event("modelmerger_interp_method", "input")(data | {control("interp_amount"): 0.75}, asked_by)
    shown = event("tab_modelmerger", "select")(asked_by)
    assert shown[control("interp_amount")]["value"] == 0.75 and not shown[control("beta")]["visible"]
    shown = event("modelmerger_interp_method", "change")("dare")
    assert shown[control("tertiary_model_name")]["visible"] and shown[control("seed")]["visible"]
    assert "no recipe" in str(event("modelmerger_read_recipe", "click")(data, asked_by))
    assert "{}" in event("modelmerger_read_metadata", "click")(data).values()


def test_every_method_can_be_asked_for():
    for method in METHODS:
        check_recipe(Recipe("a", "b", "c", method=method))

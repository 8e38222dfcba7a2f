import json

import pytest

from modules.core.errors import InvalidRequest
from modules.core.merge import METHODS, Recipe, check_name, check_recipe, usual_name
from modules.core.merge_blocks import (
    PRESETS,
    block_of,
    blocks,
    component_of,
    parse_rules,
    parse_weights,
    preset,
    ratios,
)
from modules.core.merge_metadata import Source, metadata, read_recipe

UNET = "model.diffusion_model."


@pytest.mark.parametrize("name, component, block", [
    (f"{UNET}input_blocks.4.1.proj_in.weight", "unet", "IN04"), (f"{UNET}middle_block.0.x", "unet", "M00"),
    (f"{UNET}output_blocks.11.0.x", "unet", "OUT11"), (f"{UNET}time_embed.0.weight", "unet", "IN00"),
    (f"{UNET}out.2.weight", "unet", "OUT11"), (f"{UNET}label_emb.0.0.weight", "unet", "BASE"),
    ("cond_stage_model.transformer.x", "text_encoder", "BASE"), ("first_stage_model.x", "vae", "BASE"),
    ("conditioner.embedders.0.transformer.x", "text_encoder", "BASE"),
    ("conditioner.embedders.1.model.x", "text_encoder_2", "BASE"), ("betas", "", "BASE"),
])
def test_a_tensor_is_in_a_component_and_a_block(name, component, block):
    assert component_of(name) == component and block_of(name, 12) == block


def test_block_weights_are_of_the_counts_that_people_share():
    assert len(blocks(12)) == 26 and len(blocks(9)) == 20
    for count, first in ((26, 0.9), (25, 0.3)):
        text = ",".join(["0.9"] + ["0.1"] * (count - 1))
        found = ratios((0.3, 0.0), (text, ""), "", 12)
        assert found.alpha("first_stage_model.x") == first
        assert found.alpha(f"{UNET}out.0.bias") == 0.1
    with pytest.raises(InvalidRequest, match="takes 20, or 19"):
        ratios((0.3, 0.0), (",".join(["1"] * 26), ""), "", 9)


def test_presets_are_of_either_family():
    for name in PRESETS:
        assert len(preset(name, 12)) == 26 and len(preset(name, 9)) == 20
        assert all(0.0 <= value <= 1.0 for value in preset(name, 12))
    assert preset("GRAD_V", 12)[1:4] == (1.0, 0.916667, 0.833333)
    assert sum(preset("WRAP08", 12)) == 8 and sum(preset("OUT07", 12)) == 7 and preset("OUT12_5", 12)[13] == 0.5
    assert parse_weights("grad_a") == preset("GRAD_A", 12) and parse_weights(" ") is None


def test_rules_are_those_of_supermerger():
    found = ratios((0.5, 0.25), ("", ""), "IN00-IN03:attn1,attn2:0.9 # mine\nvae::0; OUT:: 1\nOUT05:norm:0.2", 12)
    assert found.alpha(f"{UNET}input_blocks.2.1.attn2.x") == 0.9
    assert found.alpha(f"{UNET}input_blocks.2.1.ff.x") == 0.5 and found.alpha("first_stage_model.x") == 0.0
    assert found.alpha(f"{UNET}output_blocks.5.0.norm.x") == 0.2 and found.alpha(f"{UNET}output_blocks.5.0.x") == 1.0
    assert found.beta("betas") == 0.25
    for text in ("IN00:0.5", "XX::1", "IN05-IN02::1", "::a", "vae::9"):
        with pytest.raises(InvalidRequest, match="Rules"):
            parse_rules(text)


@pytest.mark.parametrize("change, words", [
    ({"method": "guess"}, "method"), ({"model_b": ""}, "Model B"), ({"alpha": float("nan")}, "alpha"),
    ({"alpha": 9.0}, "alpha"), ({"block_alpha": "much"}, "neither a list"),
    ({"name": "../up"}, "file's name"), ({"name": "a\\b"}, "file's name"), ({"name": ".hidden"}, "file's name"),
    ({"name": "\ud800x"}, "half a character"), ({"name": "x" * 200}, "longer"),
    ({"dtype": "int4"}, "dtype"), ({"name": "mine.vae"}, "listed as a VAE"),
])
def test_a_bad_recipe_is_refused_in_words(change, words):
    with pytest.raises(InvalidRequest, match=words):
        check_recipe(Recipe(**{"model_a": "a", "model_b": "b", **change}))


def test_names_are_those_of_a1111():
    assert usual_name(Recipe(alpha=0.3), ["a", "b"]) == "0.7(a) + 0.3(b)"
    assert usual_name(Recipe(method="add_difference", alpha=1.0), ["a", "b", "c"]) == "a + 1(b - c)"
    assert usual_name(Recipe(method="no_interpolation", dtype="float16"), ["a"]) == "a-float16"
    assert check_name("mine.safetensors") == "mine"
    for method in METHODS:
        check_name(usual_name(Recipe(method=method), ["x" * 90, "y" * 90, "z" * 90]))


def test_a_recipe_of_a1111_is_read():
    told = {"type": "webui", "primary_model_hash": "aa", "secondary_model_hash": "bb", "tertiary_model_hash": None,
            "interp_method": "Weighted sum", "multiplier": 0.4, "save_as_half": True, "custom_name": "",
            "config_source": 0, "bake_in_vae": "None", "discard_weights": "", "is_inpainting": False}
    found = read_recipe({"sd_merge_recipe": json.dumps(told)})
    assert found == Recipe("aa", "bb", "", alpha=0.4, dtype="float16")
    for text in ("", "[]", "{", '{"type": "sdmerge"}'):
        with pytest.raises(InvalidRequest, match="no recipe"):
            read_recipe({"sd_merge_recipe": text})


def test_lineage_is_kept_and_metadata_can_be_left_out():
    first = Source("ab", "h1", metadata(Recipe(), [Source("a", "ha", {"x": "1"}), Source("b", "hb", {})], ""))
    found = metadata(Recipe(), [first, Source("c", "hc", {"x": "2"})], "inpaint")
    assert set(json.loads(found["sd_merge_models"])) == {"ha", "hb", "h1", "hc"}
    assert found["x"] == "1" and json.loads(found["sd_merge_recipe"])["is_inpainting"]
    assert metadata(Recipe(save_metadata=False), [first], "") == {}
    assert "sd_merge_recipe" not in metadata(Recipe(add_recipe=False, copy_metadata=False), [first], "")

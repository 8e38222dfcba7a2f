"""OpenCLIP's text towers against transformers' own class, given the tensors that diffusers' converter makes of them."""

import pytest
import torch
from diffusers.loaders import single_file_utils as reference
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from modules.core.errors import InvalidModel
from modules.families.components import build_clip, open_tensors
from modules.families.open_clip import open_clip_config, open_clip_prefix, open_clip_source
from modules.runtime.device import Placement
from tests.families.conftest import relative
from tests.fixtures.tiny_sdxl import open_clip_shapes, tensors_of

PREFIX = "conditioner.embedders.1.model."
PREFIXES = ("cond_stage_model.model.", PREFIX)
CONFIG = {"vocab_size": 600, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3,
          "num_attention_heads": 2, "hidden_act": "gelu", "projection_dim": 96, "eos_token_id": 599,
          "bos_token_id": 598, "pad_token_id": 0}


def shapes_of(tensors, prefix=""):
    return {name.removeprefix(prefix): tuple(value.shape) for name, value in tensors.items()}


@pytest.fixture(scope="module")
def tower():
    shapes = open_clip_shapes(128, 3, projection=96, vocabulary=600)
    return {PREFIX + name: value for name, value in tensors_of(shapes, seed=3).items()}


@pytest.fixture(scope="module")
def expected(tower):
    model = CLIPTextModelWithProjection(CLIPTextConfig(**CONFIG)).eval()
    # The converter cuts fused tensors at the size of the projection, which in the published towers is their width.
    square = {**tower, f"{PREFIX}text_projection": torch.zeros(128, 128)}
    converted = reference.convert_open_clip_checkpoint(model, square, prefix=PREFIX)
    converted["text_projection.weight"] = tower[f"{PREFIX}text_projection"].T.contiguous()
    model.load_state_dict(converted)
    return model


def transformers_layout(model, variety):
    """Return the tensors of ``model`` as folders or merged files have them."""
    own = model.state_dict()
    change = {"folder": lambda name: name, "flat": lambda name: name.removeprefix("text_model."),
              "merged": lambda name: PREFIX + "transformer." * name.startswith("text_model.") + name}[variety]
    return {change(name): value.contiguous() for name, value in own.items()}


def tokens():
    ids = torch.randint(3, 598, (2, 77), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 598
    ids[0, 20], ids[1, 5] = 599, 599
    ids[0, 21:], ids[1, 6:] = 0, 0
    return ids


@pytest.mark.parametrize("layout", ["original", "folder", "flat", "merged"])
def test_every_layout_computes_what_transformers_does(tmp_path, tower, expected, layout):
    stored = tower if layout == "original" else transformers_layout(expected, layout)
    prefix = open_clip_prefix(stored, (*PREFIXES, ""))
    save_file(stored, tmp_path / "tower.safetensors")
    config = open_clip_config(shapes_of(stored, prefix))
    source = open_clip_source(open_tensors(str(tmp_path / "tower.safetensors")), prefix)
    model = build_clip(config, source, Placement(), projected=True)
    with torch.no_grad():
        theirs = expected(tokens(), output_hidden_states=True)
        ours = model(input_ids=tokens(), output_hidden_states=True)
        pooled = model.text_projection(ours.pooler_output)
    assert relative(ours.last_hidden_state, theirs.last_hidden_state) < 1e-5
    assert relative(ours.hidden_states[-2], theirs.hidden_states[-2]) < 1e-5
    assert relative(pooled, theirs.text_embeds) < 1e-5


def test_configurations_are_those_of_the_published_towers():
    """ViT-H (Stable Diffusion 2) and ViT-bigG (SDXL); figures of their model cards."""
    for width, layers, heads in ((1024, 24, 16), (1280, 32, 20)):
        config = open_clip_config(dict(open_clip_shapes(width, layers)))
        assert config["num_attention_heads"] == heads and config["intermediate_size"] == 4 * width
        assert config["num_hidden_layers"] == layers and config["projection_dim"] == width
        assert (config["eos_token_id"], config["max_position_embeddings"]) == (49407, 77)


def test_a_tower_has_one_prefix_and_no_other(tower):
    assert open_clip_prefix(tower, PREFIXES) == PREFIX
    assert open_clip_prefix({"cond_stage_model.transformer.text_model.x": 0}, PREFIXES) is None


def test_parts_are_views_of_the_file(tower):
    source = open_clip_source(tower, PREFIX)
    fused = tower[f"{PREFIX}transformer.resblocks.1.attn.in_proj_weight"]
    part = source.weights[source.name("encoder.layers.1.self_attn.v_proj.weight")]
    assert part.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(part, fused[256:])
    assert set(source.weights) == set(tower) and len(source.weights) == len(tower)


@pytest.mark.parametrize(("damage", "message"), [
    ("missing", r"lacks 3 tensors: .*resblocks\.2\.attn\.in_proj_weight\.k"),
    ("short", r"resblocks\.2\.attn\.in_proj_weight\.q 100x128 instead of 128x128"),
])
def test_damage_is_named_as_the_file_names_it(tower, damage, message):
    name = f"{PREFIX}transformer.resblocks.2.attn.in_proj_weight"
    damaged = {key: value for key, value in tower.items() if key != name}
    if damage == "short":
        damaged[name] = torch.zeros(300, 128)
    with pytest.raises(InvalidModel, match=message):
        build_clip(open_clip_config(shapes_of(tower, PREFIX)), open_clip_source(damaged, PREFIX), Placement())

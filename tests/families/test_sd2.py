"""Stable Diffusion 2 against diffusers' pipeline, whose folder diffusers' own converters made of the same tensors."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionDepth2ImgPipeline, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from modules.core.errors import InvalidModel, InvalidRequest
from modules.core.settings import Settings, with_values
from modules.families import detect, sd2
from modules.families.base import ImageCondition, ModelInput
from modules.library.headers import Header, TensorInfo, read_header
from modules.runtime.device import Placement
from tests.families.conftest import load, relative
from tests.fixtures.tiny_models import unet_shapes, vae_shapes
from tests.fixtures.tiny_sd2 import TEXT, UNET, VAE, tiny_sd2, write_tiny_sd2
from tests.fixtures.tiny_sdxl import open_clip_shapes

SUFFIX = {"safetensors": ".safetensors", "diffusers": ""}
LAYOUTS = pytest.mark.parametrize("layout", SUFFIX)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd2")
    made = {layout: write_tiny_sd2(folder / f"base{suffix}", layout) for layout, suffix in SUFFIX.items()}
    return made | {(takes, layout): write_tiny_sd2(folder / f"{takes}{suffix}", layout, takes)
                   for takes in ("inpaint", "depth") for layout, suffix in SUFFIX.items()}


@pytest.fixture(scope="module")
def reference(paths):
    return StableDiffusionPipeline.from_pretrained(paths["diffusers"], safety_checker=None, local_files_only=True)


@pytest.fixture(scope="module")
def models(paths):
    return {key: load(path) for key, path in paths.items()}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(x, context, timestep=500.0, **more):
    return ModelInput(x, 1.0, timestep, 0, context, ("cond",) * len(x), (0,) * len(x), **more)


def contexts(family, model, *prompts, **settings):
    return torch.stack([item.context for item in family.encode(model, prompts, with_values(Settings(), settings))])


@LAYOUTS
class TestAgainstDiffusers:
    def test_conditioning(self, models, reference, layout):
        family, model = models[layout]
        assert (family.id, model.variant.name, model.variant.prediction) == ("sd2", "base", "epsilon")
        with torch.no_grad():
            expected = torch.cat(reference.encode_prompt("a photo of a cat, on a mat", "cpu", 1, True, ""))
        ours = contexts(family, model, "a photo of a cat, on a mat", "")
        assert ours.shape == (2, 77, 64) and relative(ours, expected) < 1e-4
        assert torch.equal(contexts(family, model, "a cat"), contexts(family, model, "a cat",
                                                                      CLIP_stop_at_last_layers=3))

    def test_denoiser(self, models, reference, layout):
        family, model = models[layout]
        context = random(2, 77, 64, seed=1)
        for timestep in (999.0, 3.0):
            with torch.no_grad():
                expected = reference.unet(random(2, 4, 8, 8), timestep, context).sample
            assert relative(family.call(model, inputs(random(2, 4, 8, 8), context, timestep)), expected) < 1e-4

    def test_decode(self, models, reference, layout):
        family, model = models[layout]
        with torch.no_grad():
            expected = reference.vae.decode(random(1, 4, 8, 8) / 0.18215).sample
        assert relative(family.decode(model, random(1, 4, 8, 8)), (expected / 2 + 0.5).clamp(0, 1)) < 1e-4


@LAYOUTS
@pytest.mark.parametrize(("takes", "channels"), [("inpaint", 5), ("depth", 1)])
def test_variants_take_more_than_a_latent(paths, models, layout, takes, channels):
    family, model = models[takes, layout]
    variant = model.variant
    assert (variant.takes, variant.name, variant.prediction, variant.default_size) == (takes, takes, "epsilon", 512)
    concat = family.concat(model, ImageCondition(48, 64))
    assert concat.shape == (1, channels, 8, 6)
    x, context = random(2, 4, 8, 6), random(2, 77, 64, seed=1)
    ours = family.call(model, inputs(x, context, concat=concat))
    unet = UNet2DConditionModel.from_pretrained(paths[takes, "diffusers"], subfolder="unet", local_files_only=True)
    with torch.no_grad():
        expected = unet(torch.cat([x, concat.expand(2, -1, -1, -1)], dim=1), 500.0, context).sample
    assert relative(ours, expected) < 1e-4


def test_depth_is_that_of_diffusers_pipeline(models):
    family, model = models["depth", "safetensors"]
    depth = random(2, 1, 20, 30).abs() * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    pixels = torch.rand(2, 3, 64, 48)
    expected = StableDiffusionDepth2ImgPipeline.prepare_depth_map(
        SimpleNamespace(vae_scale_factor=8), pixels, depth[:, 0], 2, False, torch.float32, torch.device("cpu"))
    ours = family.concat(model, ImageCondition(48, 64, pixels, depth=depth))
    assert relative(ours, expected) < 1e-4
    with pytest.raises(InvalidRequest, match="needs the depth"):
        family.concat(model, ImageCondition(48, 64, pixels))


@LAYOUTS
def test_v_prediction_is_stated_or_shows(tmp_path, layout):
    """A folder says it; a file alone does not, so the denoiser is asked, once, on loading."""
    path = write_tiny_sd2(tmp_path / f"v{SUFFIX[layout]}", layout, prediction="v_prediction")
    family, model = load(path)
    assert (model.variant.prediction, model.variant.default_size) == ("v_prediction", 768)
    assert family.space(model).prediction == "v_prediction"
    if layout == "safetensors":
        assert detect(read_header(path))[1].prediction == "epsilon"
        (tmp_path / "v.yaml").write_text("model:\n  target: x\n  params:\n    parameterization: eps\n")
        assert load(path)[1].variant.prediction == "epsilon"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_probe_is_that_of_a1111(tmp_path, prediction, dtype):
    """One call at t = 999, x and context 0.5: v where the mean of output - x is below -1; also where weights are cast
    at each call."""
    path = tmp_path / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in tiny_sd2(prediction=prediction).items()}, path)
    _, model = load(path, placement=Placement(cast_above=0))
    x, context = torch.full((1, 4, 8, 8), 0.5), torch.full((1, 2, 64), 0.5)
    with torch.no_grad():
        difference = (model.modules["unet"](x, 999, context).sample - x).mean()
    assert (difference < -1) == (prediction == "v_prediction") == sd2.predicts_v(model.modules["unet"], torch.float32)
    assert model.variant.prediction == prediction


def test_variants_that_take_more_are_not_probed(tmp_path):
    path = write_tiny_sd2(tmp_path / "depth.safetensors", takes="depth", prediction="v_prediction")
    assert load(path)[1].variant.prediction == "epsilon"


def test_the_last_layer_of_the_text_encoder_is_not_used(tmp_path, models):
    """Files without it, as conversions from folders make them at ViT-H's 24 layers, give the same prompts."""
    family, model = models["safetensors"]
    assert model.modules["text_encoder"].config.num_hidden_layers == 2
    shapes = {name: tuple(value.shape) for name, value in tiny_sd2().items() if name.startswith(TEXT)}
    bare = {name.removeprefix(TEXT): shape for name, shape in shapes.items()}
    layer = {name: shape for name, shape in bare.items() if "resblocks.0." in name}
    for layers, kept in ((24, 23), (23, 23), (3, 2)):
        deep = {name: shape for name, shape in bare.items() if "resblocks" not in name}
        deep |= {name.replace(".0.", f".{index}."): shape for index in range(layers) for name, shape in layer.items()}
        assert sd2.penultimate(deep)["num_hidden_layers"] == kept
    changed = tiny_sd2()
    for name in changed:
        if "resblocks.2." in name:
            changed[name] = changed[name] * 7
    save_file(changed, tmp_path / "changed.safetensors")
    other = load(tmp_path / "changed.safetensors")[1]
    assert torch.equal(contexts(family, model, "a cat"), contexts(family, other, "a cat"))


def test_a_file_pads_with_zero(models):
    for layout in SUFFIX:
        assert models[layout][1].tokenizers["text_encoder"].pad_id == 0


def test_full_size_file_is_detected_from_its_header():
    shapes = {
        **{UNET + name: shape for name, shape in unet_shapes((320, 640, 1280, 1280), 1024, 2, linear=True)},
        **{TEXT + name: shape for name, shape in open_clip_shapes(1024, 24)},
        **{VAE + name: shape for name, shape in vae_shapes((128, 256, 512, 512), 2)},
    }
    tensors = {name: TensorInfo("F16", shape) for name, shape in shapes.items()}
    family, variant = detect(Header("", "safetensors", tensors))
    assert (family.id, variant.name, variant.default_size) == ("sd2", "base", 512)
    text = variant.components["text_encoder"]
    assert (text["num_hidden_layers"], text["num_attention_heads"], text["hidden_act"]) == (23, 16, "gelu")
    v = detect(Header("", "safetensors", tensors, {"modelspec.prediction_type": "v"}))[1]
    assert (v.prediction, v.default_size) == ("v_prediction", 768)


@pytest.mark.parametrize(("label", "seems"), [
    ({"label_emb.weight": (1000, 128)}, "x4 upscaler"),
    ({"label_emb.0.0.weight": (128, 64), "label_emb.0.2.weight": (128, 128)}, "unCLIP"),
])
def test_siblings_with_labels_are_named(label, seems):
    shapes = {name: tuple(value.shape) for name, value in tiny_sd2().items()}
    shapes |= {UNET + name: shape for name, shape in label.items()}
    with pytest.raises(InvalidModel, match=seems):
        detect(Header("", "safetensors", {name: TensorInfo("F16", shape) for name, shape in shapes.items()}))


def test_a_model_without_its_text_encoder_says_so(tmp_path):
    save_file({name: value for name, value in tiny_sd2().items() if not name.startswith(TEXT)}, tmp_path / "m")
    with pytest.raises(InvalidModel, match="no text encoder"):
        load(tmp_path / "m")

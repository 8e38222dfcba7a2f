"""SDXL against diffusers' pipelines and models, whose tensors came through diffusers' own converters."""

import dataclasses
import functools

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from modules.core.errors import InvalidModel
from modules.core.settings import Settings, with_values
from modules.families import detect, ldm
from modules.families.base import ImageCondition, ModelInput
from modules.families.sdxl import LATENT, StableDiffusionXL
from modules.library.headers import Header, TensorInfo, read_header
from modules.runtime.device import Placement
from modules.runtime.patches import Embedding, apply, undo
from tests.families.conftest import load, relative
from tests.fixtures import tiny_sdxl
from tests.fixtures.tiny_sdxl import BASE, INPAINT, REFINER, sdxl_shapes, write_sdxl_folder, write_tiny_sdxl

PROMPT, NEGATIVE = "a photo of a cat, on a mat", "blurry"
SIZES = {"base": BASE, "inpaint": INPAINT, "refiner": REFINER}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    files = {(name, "file"): write_tiny_sdxl(folder / f"{name}.safetensors", sizes) for name, sizes in SIZES.items()}
    return files | {(name, "folder"): write_sdxl_folder(folder / name, SIZES[name]) for name in ("base", "refiner")}


@pytest.fixture(scope="module")
def loaded(paths):
    return functools.cache(lambda name, layout="file": load(paths[name, layout]))


@pytest.fixture(scope="module")
def base(loaded):
    return loaded("base")


@pytest.fixture(scope="module")
def pipelines(paths):
    return {
        "base": StableDiffusionXLPipeline.from_pretrained(paths["base", "folder"], local_files_only=True),
        "refiner": StableDiffusionXLImg2ImgPipeline.from_pretrained(paths["refiner", "folder"], local_files_only=True),
    }


def latents(rows=2, channels=4, side=8, seed=0):
    return torch.randn(rows, channels, side, side, generator=torch.Generator().manual_seed(seed))


def encoded(pair, *prompts, negative=False, **settings):
    family, model = pair
    found = family.encode(model, prompts, with_values(Settings(), settings), negative)
    return torch.stack([item.context for item in found]), torch.stack([item.pooled for item in found])


def inputs(x, context, pooled, numbers, **more):
    return ModelInput(x, 1.0, 500.0, 0, context, ("cond",) * len(x), (0,) * len(x), pooled=pooled,
                      added={"micro": torch.tensor([numbers] * len(x))}, **more)


@pytest.mark.parametrize("layout", ["file", "folder"])
@pytest.mark.parametrize("name", ["base", "refiner"])
class TestAgainstDiffusers:
    def test_conditioning(self, loaded, pipelines, name, layout):
        with torch.no_grad():
            context, negative, pooled, negative_pooled = pipelines[name].encode_prompt(
                PROMPT, device="cpu", do_classifier_free_guidance=True, negative_prompt=NEGATIVE)
        ours = encoded(loaded(name, layout), PROMPT, NEGATIVE)
        assert relative(ours[0], torch.cat([context, negative])) < 1e-4
        assert relative(ours[1], torch.cat([pooled, negative_pooled])) < 1e-4

    def test_denoiser(self, loaded, pipelines, name, layout):
        family, model = loaded(name, layout)
        context, pooled = encoded((family, model), PROMPT, NEGATIVE)
        numbers = family.micro_conditioning(model, "cond", 832, 1216, Settings())
        added = pipelines[name]._get_add_time_ids
        sizes = (1216, 832), (0, 0), (1216, 832)
        with torch.no_grad():
            if name == "base":
                ids = added(*sizes, torch.float32, text_encoder_projection_dim=128)
            else:
                ids = added(*sizes[:2], sizes[2], 6.0, 2.5, *sizes, torch.float32, text_encoder_projection_dim=128)[0]
            assert ids.tolist() == [list(numbers)]
            expected = pipelines[name].unet(latents(), 500.0, context, added_cond_kwargs={
                "text_embeds": pooled, "time_ids": ids.repeat(2, 1)}).sample
        assert relative(family.call(model, inputs(latents(), context, pooled, numbers)), expected) < 1e-4

    def test_decode_and_encode(self, loaded, pipelines, name, layout):
        family, model = loaded(name, layout)
        vae = pipelines[name].vae
        assert model.modules["vae"].config.scaling_factor == 0.13025
        with torch.no_grad():
            expected = vae.decode(latents(1) / 0.13025).sample
            pixels = family.decode(model, latents(1))
            mean = vae.encode(pixels * 2 - 1).latent_dist.mean * 0.13025
        assert relative(pixels, (expected / 2 + 0.5).clamp(0, 1)) < 1e-4
        assert relative(family.encode_image(model, pixels), mean) < 1e-4


def test_what_each_file_is(paths):
    kinds = {("base", "file"): ("base", "", "base"), ("inpaint", "file"): ("inpaint", "inpaint", "base"),
             ("refiner", "file"): ("refiner", "", "refiner"), ("base", "folder"): ("base", "", "base"),
             ("refiner", "folder"): ("refiner", "", "refiner")}
    for place, kind in kinds.items():
        family, variant = detect(read_header(paths[place]))
        assert (family.id, variant.prediction, variant.default_size) == ("sdxl", "epsilon", 1024)
        assert variant.latent == LATENT
        assert (variant.name, variant.takes, variant.role) == kind


@pytest.mark.parametrize("sizes", [tiny_sdxl.FULL, tiny_sdxl.FULL_REFINER])
def test_full_size_headers_map_one_to_one(sizes):
    """Shapes are those of diffusers' and transformers' classes; the numbers of parameters are the published ones."""
    shapes = sdxl_shapes(sizes)
    header = Header("x.safetensors", "safetensors", {name: TensorInfo("F16", shape) for name, shape in shapes.items()})
    family, variant = detect(header)
    assert family.id == "sdxl" and variant.default_size == 1024
    config = variant.components["unet"]
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config).state_dict()
        big_g = CLIPTextModelWithProjection(CLIPTextConfig(**variant.components["text_encoder_2"])).state_dict()
    modules = ldm.unet_modules(config)
    names = {name: ldm.UNET_PREFIX + ldm.rename(name, modules) for name in unet}
    assert {name: shapes[place] for name, place in names.items()} == {name: tuple(v.shape) for name, v in unet.items()}
    assert set(names.values()) == {name for name in shapes if name.startswith(ldm.UNET_PREFIX)}
    if sizes is tiny_sdxl.FULL:
        assert sum(value.numel() for value in unet.values()) == 2_567_463_684
    assert sum(value.numel() for value in big_g.values()) == 694_659_840
    stored = [name for name in shapes if ".model." in name and "logit_scale" not in name and "embedders" in name]
    assert sum(torch.Size(shapes[name]).numel() for name in stored) == 694_659_840


class TestText:
    def test_an_empty_negative_prompt_is_zero_and_an_empty_prompt_is_not(self, base):
        context, pooled = encoded(base, "", "x", negative=True)
        assert not context[0].any() and not pooled[0].any() and context[1].any() and pooled[1].any()
        context, pooled = encoded(base, "")
        assert context.any() and pooled.any() and context.shape == (1, 77, 192)

    def test_clip_skip_is_ignored_unless_it_is_asked_for(self, base, pipelines):
        plain, _ = encoded(base, PROMPT)
        assert torch.equal(encoded(base, PROMPT, CLIP_stop_at_last_layers=3)[0], plain)
        assert torch.equal(encoded(base, PROMPT, CLIP_stop_at_last_layers=2, sdxl_clip_l_skip=True)[0], plain)
        pipeline = pipelines["base"]
        tokens = pipeline.tokenizer([PROMPT], padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            states = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states
        for skip, state in ((1, states[-1]), (3, states[-3]), (12, states[1])):
            ours, _ = encoded(base, PROMPT, CLIP_stop_at_last_layers=skip, sdxl_clip_l_skip=True)
            assert relative(ours[..., :64], state) < 1e-4
            assert torch.equal(ours[..., 64:], plain[..., 64:])

    def test_emphasis_is_applied_to_each_encoder_and_not_to_the_pooled_text(self, base):
        plain, pooled = encoded(base, "a cat")
        ours, same = encoded(base, "a (cat:1.5)")
        assert torch.equal(pooled, same)
        weight = torch.ones(77, 1)
        weight[2] = 1.5
        for part in (slice(0, 64), slice(64, 192)):
            times = plain[..., part] * weight
            torch.testing.assert_close(ours[..., part], times * plain[..., part].mean() / times.mean())

    def test_long_prompts_are_chunks_whose_first_is_pooled(self, base):
        context, pooled = encoded(base, "cat " * 80)
        first, second = encoded(base, "cat " * 75, "cat " * 5)
        assert context.shape == (1, 154, 192)
        torch.testing.assert_close(context[0], first.flatten(0, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pooled[0], second[0], rtol=1e-4, atol=1e-5)

    def test_learned_words_are_read_by_both_encoders(self, loaded):
        """The end token is not the largest id any more, which the folder's configuration would have it be."""
        pair = _, model = loaded("base", "folder")
        assert model.modules["text_encoder_2"].config.eos_token_id == 2
        expected = encoded(pair, "a black cat sat")
        ids = model.tokenizers["text_encoder"].encode("black cat")
        patches = [Embedding(name, "my-cat", "file", 1.0,
                             model.modules[name].get_parameter("embeddings.token_embedding.weight")[ids].clone())
                   for name in ("text_encoder", "text_encoder_2")]
        apply(model, patches)
        ours = encoded(pair, "a my-cat sat")
        undo(model)
        assert torch.equal(ours[0], expected[0]) and torch.equal(ours[1], expected[1])

    def test_a_word_of_more_vectors_in_one_encoder_makes_chunks_for_both(self, base):
        _, model = base
        apply(model, [Embedding("text_encoder_2", "long", "file", 1.0, torch.randn(80, 128))])
        context, _ = encoded(base, "long")
        undo(model)
        assert context.shape == (1, 154, 192)
        empty, _ = encoded(base, "")
        torch.testing.assert_close(context[0, 77:, :64], empty[0, :, :64])


def test_the_refiner_is_told_a_score_and_the_base_the_size_again(base, loaded):
    refiner = loaded("refiner")
    settings = with_values(Settings(), {"sdxl_crop_top": 8, "sdxl_crop_left": 16})
    told = {role: refiner[0].micro_conditioning(refiner[1], role, 640, 512, settings)
            for role in ("cond", "uncond", "image_uncond", "perturbed")}
    high, low = (512, 640, 8, 16, 6.0), (512, 640, 8, 16, 2.5)
    assert told == {"cond": high, "uncond": low, "image_uncond": low, "perturbed": high}
    assert base[0].micro_conditioning(base[1], "uncond", 640, 512, settings) == (512, 640, 8, 16, 512, 640)
    other = with_values(settings, {"sdxl_refiner_high_aesthetic_score": 7, "sdxl_refiner_low_aesthetic_score": 1})
    scores = [refiner[0].micro_conditioning(refiner[1], role, 640, 512, other)[-1] for role in ("cond", "uncond")]
    assert scores == [7.0, 1.0]


def test_inpainting_takes_mask_and_masked_latent(loaded):
    family, model = loaded("inpaint")
    concat = family.concat(model, ImageCondition(64, 64))
    assert concat.shape == (1, 5, 8, 8) and bool((concat[:, 0] == 1).all())
    grey = family.encode_image(model, torch.full((1, 3, 64, 64), 0.5))
    torch.testing.assert_close(concat[:, 1:], grey)
    context, pooled = encoded((family, model), PROMPT)
    numbers = family.micro_conditioning(model, "cond", 64, 64, Settings())
    output = family.call(model, inputs(latents(1), context, pooled, numbers, concat=concat))
    whole = family.call(model, inputs(torch.cat([latents(1), concat], 1), context, pooled, numbers))
    assert output.shape == (1, 4, 8, 8) and torch.equal(output, whole)


def test_markers_and_schedulers_choose_prediction_and_noise_levels(tmp_path, paths, base):
    family, model = base
    space = family.space(model)
    assert space.published == "sdxl" and space.sigma_max == pytest.approx(14.6146, abs=1e-3)
    marked = {**load_file(paths["base", "file"]), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(marked, tmp_path / "v.safetensors")
    variant = detect(read_header(tmp_path / "v.safetensors"))[1]
    assert variant.prediction == "v_prediction"
    other = family.space(family.load(variant, str(tmp_path / "v.safetensors"), None, Placement()))
    assert other.prediction == "v_prediction" and other.sigma_max > 1000 and other.published == "sdxl"


def test_the_autoencoder_is_never_in_float16(paths):
    placement = Placement(vae=torch.float16, wide=torch.bfloat16)
    family, model = load(paths["base", "file"], placement=placement)
    assert model.modules["vae"].dtype == torch.bfloat16
    pixels = family.decode(model, latents(1))
    assert pixels.dtype == torch.float32 and pixels.isfinite().all()


def test_an_external_vae_is_scaled_as_the_family_scales(tmp_path, paths, base):
    own = {name: value for name, value in load_file(paths["base", "file"]).items() if "first_stage" in name}
    save_file(own, tmp_path / "vae.safetensors")
    family, model = load(paths["base", "file"], tmp_path / "vae.safetensors")
    assert torch.equal(family.decode(model, latents(1)), base[0].decode(base[1], latents(1)))


@pytest.mark.parametrize(("left_out", "message"), [
    ("conditioner.embedders.1.", "no text encoder"), ("conditioner.embedders.0.", "no text encoder"),
    ("first_stage_model.", "no VAE"), ("model.diffusion_model.label_emb.0.2.bias", "lacks 1 tensors: .*label_emb"),
])
def test_incomplete_files_are_reported(tmp_path, paths, left_out, message):
    tensors = {name: value for name, value in load_file(paths["base", "file"]).items() if left_out not in name}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModel, match=message):
        load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("change", [{"addition_time_embed_dim": None}, {"down_block_types": 3}])
def test_damaged_configurations_are_reported(paths, change):
    header = read_header(paths["base", "folder"])
    unet = header.components["unet"]
    damaged = dataclasses.replace(unet, config={**unet.config, **change})
    with pytest.raises(InvalidModel, match="damaged"):
        StableDiffusionXL().detect(dataclasses.replace(header, components={**header.components, "unet": damaged}))


def test_models_of_edm_are_refused():
    shapes = {**sdxl_shapes(BASE), "edm_mean": (4,), "edm_std": (4,)}
    header = Header("x.safetensors", "safetensors", {name: TensorInfo("F16", shape) for name, shape in shapes.items()})
    with pytest.raises(InvalidModel, match="EDM"):
        detect(header)


def test_unclip_of_stable_diffusion_2_is_not_taken_for_sdxl():
    unet = {"addition_embed_type": "text_time", "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)}
    assert not StableDiffusionXL().fits(unet)

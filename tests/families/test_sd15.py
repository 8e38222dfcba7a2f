import dataclasses
import json
import os
import pickle

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from modules.core.errors import InvalidModel
from modules.core.settings import Settings, with_values
from modules.families import detect
from modules.families.base import ModelInput
from modules.families.sd15 import LATENT
from modules.library.headers import read_header
from modules.runtime.device import Placement
from modules.runtime.patches import AttentionHook, Embedding, apply, undo
from tests.families.conftest import load, relative
from tests.fixtures import tiny_models
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1

CLIP = "cond_stage_model.transformer.text_model."
FIRST = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def reference(tiny_paths):
    return StableDiffusionPipeline.from_pretrained(tiny_paths["diffusers"], safety_checker=None, local_files_only=True)


def latents(rows=2, side=8, seed=0):
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed))


def inputs(x, context, timestep=500.0, **more):
    return ModelInput(x, 1.0, timestep, 0, context, ("cond",) * len(x), (0,) * len(x), **more)


def contexts(family, model, *prompts, **settings):
    found = family.encode(model, prompts, with_values(Settings(), settings))
    return torch.stack([item.context for item in found])


@pytest.mark.parametrize("layout", ["safetensors", "ckpt", "diffusers"])
class TestAgainstDiffusers:
    def test_conditioning(self, tiny_paths, reference, layout):
        family, model = load(tiny_paths[layout])
        with torch.no_grad():
            expected, negative = reference.encode_prompt("a photo of a cat, on a mat", "cpu", 1, True, "blurry")
        ours = contexts(family, model, "a photo of a cat, on a mat", "blurry")
        assert relative(ours, torch.cat([expected, negative])) < 1e-4

    def test_clip_skip(self, tiny_paths, reference, layout):
        """The pipeline's own clip_skip fails with this release of transformers; its text encoder does not."""
        family, model = load(tiny_paths[layout])
        tokens = reference.tokenizer(["a cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            states = reference.text_encoder(tokens, output_hidden_states=True).hidden_states
            expected = reference.text_encoder.final_layer_norm(states[-2])
        assert relative(contexts(family, model, "a cat", CLIP_stop_at_last_layers=2), expected) < 1e-4
        # More than there are layers takes the first.
        assert torch.equal(contexts(family, model, "a cat", CLIP_stop_at_last_layers=12),
                           contexts(family, model, "a cat", CLIP_stop_at_last_layers=2))

    def test_denoiser(self, tiny_paths, reference, layout):
        family, model = load(tiny_paths[layout])
        context = contexts(family, model, "a cat", "")
        for timestep in (999.0, 500.0, 3.0):
            with torch.no_grad():
                expected = reference.unet(latents(), timestep, context).sample
            assert relative(family.call(model, inputs(latents(), context, timestep)), expected) < 1e-4

    def test_decode_and_encode(self, tiny_paths, reference, layout):
        family, model = load(tiny_paths[layout])
        with torch.no_grad():
            expected = reference.vae.decode(latents(1) / reference.vae.config.scaling_factor).sample
            pixels = family.decode(model, latents(1))
            mean = reference.vae.encode(pixels * 2 - 1).latent_dist.mean * reference.vae.config.scaling_factor
        assert pixels.shape == (1, 3, 64, 64) and pixels.dtype == torch.float32
        assert relative(pixels, (expected / 2 + 0.5).clamp(0, 1)) < 1e-4
        assert relative(family.encode_image(model, pixels), mean) < 1e-4


def test_noise_levels_are_those_of_the_scheduler(tiny, reference):
    family, model = tiny
    expected = reference.scheduler.alphas_cumprod.double()
    ours = torch.tensor(family.space(model).alphas_cumprod, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)


def test_encode_image_samples_with_a_generator(tiny):
    family, model = tiny
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    drawn = [family.encode_image(model, pixels, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_long_prompts_are_chunks_on_the_token_axis(tiny):
    family, model = tiny
    long, first, second = contexts(family, model, "cat " * 80), *contexts(family, model, "cat " * 75, "cat " * 5)
    assert long.shape == (1, 154, 32)
    torch.testing.assert_close(long[0], torch.cat([first, second]), rtol=1e-5, atol=1e-5)


def test_emphasis_changes_the_conditioning_as_its_mode_says(tiny):
    family, model = tiny
    plain = contexts(family, model, "a cat")
    modes = {mode: contexts(family, model, "a (cat:1.5)", emphasis=mode) for mode in ("Original", "No norm", "Ignore")}
    assert torch.equal(modes["Ignore"], plain)
    expected = plain.clone()
    expected[:, 2] *= 1.5
    torch.testing.assert_close(modes["No norm"], expected)
    torch.testing.assert_close(modes["Original"], expected * plain.mean() / expected.mean())


def test_a_file_counts_with_clips_vocabulary_in_chunks_of_75(tmp_path, tiny):
    family, _ = tiny
    vocabulary = family.vocabulary(read_header(write_tiny_sd1(tmp_path / "tiny.safetensors")))
    assert vocabulary.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert (vocabulary.comma_id, vocabulary.chunk_size) == (267, 75)


def test_concat_goes_in_beside_the_latent(tmp_path, tiny):
    family, model = tiny
    context = contexts(family, model, "a", "b")
    whole = family.call(model, inputs(latents(), context))
    split = family.call(model, inputs(latents()[:, :3], context, concat=latents()[:, 3:]))
    assert torch.equal(whole, split)


def test_residuals_reach_the_network(tiny, reference):
    family, model = tiny
    context = contexts(family, model, "a", "b")
    down = tuple(torch.full(shape, 0.1) for shape in (
        (2, 32, 8, 8), (2, 32, 8, 8), (2, 32, 4, 4), (2, 64, 4, 4), (2, 64, 2, 2), (2, 64, 2, 2), (2, 64, 1, 1),
        (2, 64, 1, 1),
    ))
    mid = torch.full((2, 64, 1, 1), 0.2)
    with torch.no_grad():
        expected = reference.unet(
            latents(), 500.0, context, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
    ours = family.call(model, inputs(latents(), context, residuals={"down": down, "mid": mid}))
    assert relative(ours, expected) < 1e-4


def test_hooks_of_the_call_and_of_patches_reach_attention(tiny):
    family, model = tiny
    context = contexts(family, model, "a", "b")
    seen = []

    def hook(scale):
        def see(layer, proceed):
            seen.append((scale, layer.name, layer.inputs.timestep))
            return proceed(layer)
        return see

    plain = family.call(model, inputs(latents(), context))
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2"
    apply(model, [AttentionHook("attn2", "test", 0.5, hook)])
    hooked = family.call(model, inputs(latents(), context, attention={layer: (hook(2.0),)}))
    undo(model)
    assert torch.equal(plain, hooked)
    assert len([entry for entry in seen if entry[0] == 0.5]) == 10
    assert [entry for entry in seen if entry[0] == 2.0] == [(2.0, layer, 500.0)]


def test_learned_words_are_encoded_by_their_vectors(tiny):
    family, model = tiny
    table = model.modules["text_encoder"].get_parameter("embeddings.token_embedding.weight")
    vectors = table[model.tokenizers["text_encoder"].encode("black cat")].clone()
    expected = contexts(family, model, "a black cat sat", "a cat")
    apply(model, [Embedding("text_encoder", "my-cat", "file", 1.0, vectors)])
    assert torch.equal(contexts(family, model, "a my-cat sat", "a cat"), expected)
    undo(model)
    assert model.modules["text_encoder"].get_parameter("embeddings.token_embedding.weight") is table


def renamed(tensors, change):
    return {change(name): value for name, value in tensors.items()}


def varied(variety):
    """Return the tiny model's tensors as some real file would have them."""
    tensors = tiny_sd1()
    ids = tensors[f"{CLIP}embeddings.position_ids"]
    changes = {
        "no text_model": lambda: renamed(tensors, lambda name: name.replace("transformer.text_model.", "transformer.")),
        "no position_ids": lambda: {name: value for name, value in tensors.items() if "position_ids" not in name},
        "fp16 position_ids": lambda: {**tensors, f"{CLIP}embeddings.position_ids": ids.half()},
        "ema and schedule": lambda: {
            **tensors, "model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5),
            "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(32, 4, 3, 3), "betas": torch.zeros(1000),
            "logit_scale": torch.tensor(4.6), "something.else": torch.full((3,), float("nan")),
        },
        "fp64": lambda: {name: value.double() if value.is_floating_point() else value
                         for name, value in tensors.items()},
        "bare denoiser prefix": lambda: renamed(tensors, lambda name: name.removeprefix("model.diffusion_model.")),
    }
    return {name: value.contiguous() for name, value in changes[variety]().items()}


@pytest.mark.parametrize("variety", [
    "no text_model", "no position_ids", "fp16 position_ids", "ema and schedule", "fp64", "bare denoiser prefix",
])
def test_varieties_of_real_files_give_the_same_model(tmp_path, tiny, variety):
    family, model = tiny
    save_file(varied(variety), tmp_path / "model.safetensors")
    _, other = load(tmp_path / "model.safetensors")
    for name, module in model.modules.items():
        ours, theirs = module.state_dict(), other.modules[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(contexts(family, model, "a cat"), contexts(family, other, "a cat"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("cast_above", [0, 2**30])
def test_narrow_files_compute_in_full_precision(tmp_path, dtype, cast_above):
    """Held narrow and cast at each call, or converted on loading: the numbers are the same."""
    family, model = load(write_tiny_sd1(tmp_path / "m.safetensors", dtype=dtype),
                         placement=Placement(cast_above=cast_above))
    held = model.modules["unet"].conv_in.weight
    assert held.dtype == (dtype if cast_above == 0 else torch.float32)
    wide = {name: value.float() for name, value in load_file(tmp_path / "m.safetensors").items()}
    save_file(wide, tmp_path / "wide.safetensors")
    _, exact = load(tmp_path / "wide.safetensors")
    context = contexts(family, model, "a cat", "")
    output = family.call(model, inputs(latents(), context))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, family.call(exact, inputs(latents(), context)), rtol=1e-4, atol=1e-5)
    assert model.modules["unet"].conv_in.weight is held


def test_any_width_and_depth(tmp_path):
    tensors = {}
    generator = torch.Generator().manual_seed(0)
    parts = (("model.diffusion_model.", tiny_models.unet_shapes((32, 96), 64, 2)),
             (CLIP, tiny_models.clip_shapes(64, 3, positions=40)),
             ("first_stage_model.", tiny_models.vae_shapes((32, 64, 32), 2)))
    for prefix, shapes in parts:
        tensors |= {prefix + name: tiny_models.draw(name, shape, generator) for name, shape in shapes}
    save_file(tensors, tmp_path / "odd.safetensors")
    family, model = load(tmp_path / "odd.safetensors")
    assert model.variant.latent.factor == 4 and model.variant.latent.rgb and model.variant.default_size == 512
    context = contexts(family, model, "cat " * 39)
    output = family.call(model, inputs(latents(1), contexts(family, model, "a cat")))
    assert output.shape == (1, 4, 8, 8) and output.isfinite().all()
    assert family.decode(model, latents(1)).shape == (1, 3, 32, 32)
    assert context.shape == (1, 80, 64)


def folder(tmp_path, change):
    path = write_tiny_sd1(tmp_path / "folder", "diffusers")
    change(path)
    return path


def edited(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_folder_with_its_own_tokenizer_positions_and_schedule(tmp_path):
    """A small model of 2,048 tokens and 32 positions, v prediction ending in pure noise, needs no special case."""
    def change(path):
        pieces = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz,",
                  *(letter + "</w>" for letter in "abcdefghijklmnopqrstuvwxyz,"), "ca", "cat</w>"]
        (path / "tokenizer/vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
        (path / "tokenizer/merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
        edited(path / "tokenizer/tokenizer_config.json", model_max_length=32)
        edited(path / "text_encoder/config.json", vocab_size=2048, max_position_embeddings=32, bos_token_id=0,
               eos_token_id=1, num_attention_heads=4)
        weights = load_file(path / "text_encoder/model.safetensors")
        for name, rows in (("token", 2048), ("position", 32)):
            key = f"text_model.embeddings.{name}_embedding.weight"
            weights[key] = weights[key][:rows].clone()
        save_file(weights, path / "text_encoder/model.safetensors")
        edited(path / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
        edited(path / "unet/config.json", sample_size=16)

    family, model = load(folder(tmp_path, change))
    assert model.variant.prediction == "v_prediction" and model.variant.default_size == 128
    assert model.modules["text_encoder"].config.num_attention_heads == 4
    assert contexts(family, model, "a cat").shape == (1, 32, 32)
    assert contexts(family, model, "a cat " * 20).shape == (1, 64, 32)
    space = family.space(model)
    assert space.prediction == "v_prediction" and space.sigma_max > 1000


@pytest.mark.parametrize("layout", ["sharded", "bin", "fp16", "old names"])
def test_folders_as_they_are_saved(tmp_path, tiny, layout):
    def change(path):
        file = path / "unet/diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        if layout == "sharded":
            names = sorted(weights)
            shards = {"diffusion_pytorch_model-00001-of-00002.safetensors": names[::2],
                      "diffusion_pytorch_model-00002-of-00002.safetensors": names[1::2]}
            for shard, own in shards.items():
                save_file({name: weights[name] for name in own}, path / "unet" / shard)
            weight_map = {name: shard for shard, own in shards.items() for name in own}
            index = path / "unet/diffusion_pytorch_model.safetensors.index.json"
            index.write_text(json.dumps({"weight_map": weight_map}))
            file.unlink()
        elif layout == "bin":
            torch.save(weights, path / "unet/diffusion_pytorch_model.bin")
            file.unlink()
        elif layout == "fp16":
            file.rename(path / "unet/diffusion_pytorch_model.fp16.safetensors")
        else:
            vae = load_file(path / "vae/diffusion_pytorch_model.safetensors")
            for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                vae = renamed(vae, lambda name, new=new, old=old: name.replace(f".0.{new}.", f".0.{old}."))
            save_file(vae, path / "vae/diffusion_pytorch_model.safetensors")
    _, other = load(folder(tmp_path, change))
    for name, module in tiny[1].modules.items():
        ours, theirs = module.state_dict(), other.modules[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_external_vae(tmp_path, tiny_paths, tiny, prefix, layout):
    family, _ = tiny
    other = write_tiny_sd1(tmp_path / "other", "diffusers", seed=9)
    if layout == "original":
        own = {name: value for name, value in tiny_sd1(seed=9).items() if name.startswith("first_stage_model.")}
        vae = {name.replace("first_stage_model.", prefix): value for name, value in own.items()}
    else:
        vae = renamed(load_file(other / "vae/diffusion_pytorch_model.safetensors"), lambda name: prefix + name)
    save_file({**vae, "loss.logvar": torch.zeros(1)}, tmp_path / "vae.safetensors")
    _, model = load(tiny_paths["safetensors"], tmp_path / "vae.safetensors")
    _, expected = load(other)
    assert torch.equal(family.decode(model, latents(1)), family.decode(expected, latents(1)))


def test_markers_choose_the_prediction(tmp_path):
    save_file({**tiny_sd1(), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, tmp_path / "v.safetensors")
    family, model = load(tmp_path / "v.safetensors")
    assert family.space(model).prediction == "v_prediction" and family.space(model).sigma_max > 1000


def damaged(case, tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = tiny_sd1(vae=case != "no vae", text_encoder=case != "no text encoder")
    out = "model.diffusion_model.out.2.weight"
    if case == "missing tensor":
        del tensors["model.diffusion_model.middle_block.0.in_layers.2.weight"]
    elif case == "missing clip tensor":
        del tensors[f"{CLIP}encoder.layers.1.mlp.fc2.bias"]
    elif case == "wrong shape":
        tensors["model.diffusion_model.middle_block.0.in_layers.2.weight"] = torch.zeros(64, 32, 3, 3)
    elif case in ("nan", "infinity"):
        tensors[out][0, 0, 0, 0] = float("nan" if case == "nan" else "inf")
    elif case == "unknown kind":
        tensors[FIRST] = torch.zeros(32, 7, 3, 3)
    elif case == "shorter middle":
        del tensors[out]
    save_file(tensors, path)
    if case == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    return path


@pytest.mark.parametrize(("case", "message"), [
    ("no vae", "no VAE"), ("no text encoder", "no text encoder"),
    ("missing tensor", "lacks 1 tensors: model.diffusion_model.middle_block.0.in_layers.2.weight"),
    ("missing clip tensor", "mlp.fc2.bias"), ("wrong shape", "64x32x3x3 instead of 64x64x3x3"),
    ("nan", "out.2.weight holds NaN"), ("infinity", "out.2.weight holds NaN or infinity"),
    ("truncated", "bytes"), ("unknown kind", "takes 7 channels"),
])
def test_damaged_files_are_reported(tmp_path, case, message):
    with pytest.raises(InvalidModel, match=message):
        load(damaged(case, tmp_path))


def test_a_checkpoint_without_vae_takes_an_external_one(tmp_path, tiny):
    family, model = tiny
    own = {name: value for name, value in tiny_sd1().items() if "first_stage" in name}
    save_file(own, tmp_path / "vae.safetensors")
    write_tiny_sd1(tmp_path / "bare.safetensors", vae=False)
    _, other = load(tmp_path / "bare.safetensors", tmp_path / "vae.safetensors")
    assert torch.equal(family.decode(model, latents(1)), family.decode(other, latents(1)))


def test_an_external_vae_that_is_none_is_reported(tmp_path, tiny_paths):
    save_file({"x": torch.zeros(1)}, tmp_path / "vae.safetensors")
    with pytest.raises(InvalidModel, match="holds no autoencoder"):
        load(tiny_paths["safetensors"], tmp_path / "vae.safetensors")


@pytest.mark.parametrize(("widths", "latent", "message"), [
    ((32, 32, 32, 32), 16, "latents of 16 channels, not 4"), ((32, 32, 32), 4, "has 4 pixels"),
])
def test_a_vae_of_another_family_is_refused(tmp_path, tiny_paths, widths, latent, message):
    shapes = tiny_models.vae_shapes(widths, 1, latent)
    save_file({name: torch.zeros(shape) for name, shape in shapes}, tmp_path / "vae.safetensors")
    with pytest.raises(InvalidModel, match=message):
        load(tiny_paths["safetensors"], tmp_path / "vae.safetensors")


class Malicious:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_not_run(tmp_path, tiny_paths):
    bad = Malicious()
    bad.folder = str(tmp_path / "hacked")
    torch.save({"state_dict": tiny_sd1(), "extra": bad}, tmp_path / "bad.ckpt", pickle_module=pickle)
    family, variant = detect(read_header(tiny_paths["ckpt"]))
    with pytest.raises(InvalidModel, match="mkdir"):
        load(tmp_path / "bad.ckpt")
    with pytest.raises(InvalidModel, match="mkdir"):
        # The tensors' reader refuses it by itself as well.
        from modules.runtime.weights import open_weights
        open_weights(tmp_path / "bad.ckpt")
    assert not (tmp_path / "hacked").exists()
    assert variant.name == "base" and family.id == "sd15"


@pytest.mark.parametrize(("file", "values"), [
    ("unet/config.json", {"layers_per_block": "two"}), ("unet/config.json", {"sample_size": "x"}),
    ("vae/config.json", {"block_out_channels": 7}), ("text_encoder/config.json", {"num_attention_heads": 5}),
    ("scheduler/scheduler_config.json", {"beta_schedule": "none"}),
    ("unet/config.json", {"block_out_channels": [64, 64]}),
    ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
])
def test_damaged_configurations_are_reported(tmp_path, file, values):
    with pytest.raises(InvalidModel):
        load(folder(tmp_path, lambda path: edited(path / file, **values)))


def test_latent_format_is_that_of_the_family(tiny):
    _, model = tiny
    assert model.variant.latent == LATENT and model.variant.default_size == 512
    assert dataclasses.astuple(model.variant.latent)[:2] == (4, 8)

"""Hires fix and the refiner: passes and segments of whole requests on tiny models."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from modules.core.errors import Interrupted, InvalidRequest, NotFound
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.families import detect
from modules.families.clip_tokenizer import clip_tokenizer
from modules.families.sd15 import StableDiffusion1
from modules.imaging.resize import LATENT_UPSCALERS, RESAMPLERS
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.headers import read_header
from modules.library.inputs import Inputs
from modules.plugin import Context, Plugin
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.sampling.noise import picture_noise
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
HIRES = dataclasses.replace(REQUEST, model="base", enable_hr=True, hr_scale=1.5, denoising_strength=0.5, steps=4,
                            schedule="Uniform")


def hires(**values: Any) -> Request:
    return dataclasses.replace(HIRES, **values)


def refined(**values: Any) -> Request:
    return dataclasses.replace(REQUEST, model="base", **{"refiner": "other", "refiner_switch_at": 0.5, **values})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("installation")
    models = root / "models/Stable-diffusion"
    write_tiny_sd1(models / "base.safetensors", seed=0)
    write_tiny_sd1(models / "other.safetensors", seed=1)
    shutil.copy(models / "base.safetensors", models / "copy.safetensors")
    return Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))


@pytest.fixture(scope="module")
def engine(installation: Library) -> Engine:
    return Engine(installation, Models(10**9), Placement())


@dataclasses.dataclass
class Calls:
    """The denoiser's calls: whose weights, at which size and level, in what order."""

    seen: list[tuple[str, tuple[int, int], float]] = dataclasses.field(default_factory=list)

    @property
    def models(self) -> list[str]:
        return [model for model, _, _ in self.seen]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, engine: Engine, installation: Library) -> Calls:
    """Names each model by its checkpoint, whose path it was loaded from."""
    found, names = Calls(), {}
    load, call = StableDiffusion1.load, StableDiffusion1.call

    def loading(self: Any, variant: Any, path: str, *rest: Any) -> Any:
        model = load(self, variant, path, *rest)
        names[id(model)] = Path(path).stem
        return model

    def calling(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        height, width = inputs.x.shape[-2:]
        found.seen.append((names[id(model)], (width * 8, height * 8), inputs.sigma))
        return call(self, model, inputs)

    engine.unload()
    monkeypatch.setattr(StableDiffusion1, "load", loading)
    monkeypatch.setattr(StableDiffusion1, "call", calling)
    return found


class Estimates(Plugin):
    """Keeps the last denoised estimate, which for a schedule that ends at sigma 0 is the result."""

    id = "estimates"

    def __init__(self) -> None:
        super().__init__(Context(None, None, {}))  # type: ignore[arg-type]
        self.last: Any = None

    def on_step(self, state: Any, params: Any) -> None:
        self.last = state.x0


def latents(engine: Engine, request: Request) -> torch.Tensor:
    plugin = Estimates()
    engine.generate(request, (Active(plugin, Plugin.Params()),), Recorder())
    return plugin.last


def pixels(engine: Engine, request: Request) -> list[np.ndarray]:
    watch = Recorder()
    engine.generate(request, (), watch)
    return [np.asarray(picture.image, dtype=np.int16) for picture in watch.pictures]


@dataclasses.dataclass(frozen=True)
class Theirs:
    """diffusers' pipelines on the same tensors, with its own attention."""

    base: Any
    image: Any

    def first_pass(self, request: Request) -> torch.Tensor:
        return self._run(self.base, request, num_inference_steps=request.steps, height=request.height,
                         width=request.width, latents=picture_noise((4, 8, 8), [request.seed]))

    def second_pass(self, request: Request, start: torch.Tensor, steps: int) -> torch.Tensor:
        """img2img, whose noise comes from a generator of the seed, at the size of ``start``."""
        return self._run(self.image, request, image=start, num_inference_steps=steps,
                         strength=request.denoising_strength, generator=torch.Generator().manual_seed(request.seed))

    def _run(self, pipeline: Any, request: Request, **values: Any) -> torch.Tensor:
        found: torch.Tensor = pipeline(
            request.prompt, negative_prompt=request.negative_prompt, guidance_scale=request.guidance_scale,
            output_type="latent", **values,
        ).images
        return found


@pytest.fixture(scope="module")
def theirs(installation: Library) -> Theirs:
    path = installation.find_checkpoint("base").path
    family, variant = detect(read_header(path))
    model: Any = family.load(variant, path, None, Placement())
    words = clip_tokenizer()
    tokenizer = transformers.CLIPTokenizer(vocab=dict(words.vocabulary), merges=list(words.ranks), model_max_length=77)
    model.modules["unet"].set_attn_processor(AttnProcessor2_0())
    model.modules["unet"].register_to_config(sample_size=64)  # or the second pipeline refuses it
    parts = {
        "vae": model.modules["vae"], "text_encoder": model.modules["text_encoder"], "tokenizer": tokenizer,
        "unet": model.modules["unet"], "safety_checker": None, "feature_extractor": None,
        "scheduler": diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace"),
        "requires_safety_checker": False,
    }
    pipelines = diffusers.StableDiffusionPipeline(**parts), diffusers.StableDiffusionImg2ImgPipeline(**parts)
    for pipeline in pipelines:
        pipeline.set_progress_bar_config(disable=True)
    return Theirs(*pipelines)


def close(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.linalg.norm(ours - other) <= 1e-4 * torch.linalg.norm(other))


# With 4 and 10 steps every timestep is a whole number, so that no sigma is interpolated: 5 of 10 at strength 0.5.
@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "Latent (nearest-exact)"])
def test_a_latent_hires_pass_is_that_of_diffusers_img2img(engine: Engine, theirs: Theirs, upscaler: str) -> None:
    request = hires(hr_upscaler=upscaler, hr_second_pass_steps=5)
    mode, antialias = LATENT_UPSCALERS[upscaler]
    larger = torch.nn.functional.interpolate(theirs.first_pass(request), (12, 12), mode=mode, antialias=antialias)
    assert close(latents(engine, request), theirs.second_pass(request, larger, 10))


def test_a_hires_pass_through_pixels_is_that_of_diffusers_img2img(engine: Engine, theirs: Theirs) -> None:
    request = hires(hr_upscaler="Lanczos", hr_second_pass_steps=5, hr_resize_x=88, hr_resize_y=120)
    vae, scale = theirs.base.vae, theirs.base.vae.config.scaling_factor
    with torch.no_grad():
        small = (vae.decode(theirs.first_pass(request) / scale).sample[0] / 2 + 0.5).clamp(0, 1)
        picture = Image.fromarray((small * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        large = torch.from_numpy(np.asarray(picture.resize((120, 120), Image.Resampling.LANCZOS)) / np.float32(255))
        encoded = vae.encode(large.permute(2, 0, 1).unsqueeze(0) * 2 - 1).latent_dist.mean * scale
    # 15 columns of which 11 are kept, two from each side.
    assert close(latents(engine, request), theirs.second_pass(request, encoded[..., 2:13], 10))


def test_every_latent_upscaler_gives_another_picture_of_the_size(engine: Engine) -> None:
    made = [pixels(engine, hires(steps=1, hr_upscaler=name))[0] for name in LATENT_UPSCALERS]
    assert {picture.shape for picture in made} == {(96, 96, 3)}
    # 1.5 times is a scale at which both ways to take the nearest cell differ. Antialiasing widens the filter only where
    # pictures shrink: enlarged linearly, it changes nothing but the rounding.
    others = [picture for name, picture in zip(LATENT_UPSCALERS, made, strict=True) if name != "Latent (antialiased)"]
    assert all(np.abs(one - other).max() > 0 for index, one in enumerate(others) for other in others[:index])
    assert len(others) == len(LATENT_UPSCALERS) - 1


def test_upscalers_of_pixels_differ_and_none_resizes_plainly(engine: Engine) -> None:
    made = {name: pixels(engine, hires(steps=1, hr_upscaler=name))[0] for name in RESAMPLERS}
    assert np.array_equal(made["None"], made["Lanczos"])
    assert np.abs(made["Nearest"] - made["Lanczos"]).max() > 0 < np.abs(made["Bicubic"] - made["Lanczos"]).max()


def test_an_upscaler_is_asked_for_the_size_and_may_give_another(installation: Library) -> None:
    asked = []

    class Double:
        name = "Double"

        def upscale(self, image: Image.Image, width: int, height: int) -> Image.Image:
            asked.append((image.size, width, height))
            return image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST)

    own = Engine(installation, Models(10**9), Placement(), {"Double": Double()})
    assert pixels(own, hires(steps=1, hr_upscaler="Double"))[0].shape == (96, 96, 3)
    assert asked == [((64, 64), 96, 96)]
    with pytest.raises(InvalidRequest, match="no upscaler 'Lanczos'.*Double"):
        own.generate(hires(hr_upscaler="Lanczos"), (), Recorder())


@pytest.mark.parametrize(("sampler", "steps", "each"), [("Euler", 4, 4), ("Heun", 4, 7), ("DPM++ 2M", 3, 3)])
def test_both_passes_and_the_refiner_make_just_the_calls_of_their_samplers(
    engine: Engine, calls: Calls, sampler: str, steps: int, each: int
) -> None:
    settings = Settings(hires_fix_refiner_pass="both passes")
    watch = Recorder()
    request = hires(steps=steps, sampler=sampler, hr_sampler="DPM++ 2M", hr_second_pass_steps=5, refiner="other",
                    denoising_strength=0.9, guidance_scale=1.0, settings=settings)
    engine.generate(request, (), watch)
    assert [size for _, size, _ in calls.seen] == [(64, 64)] * each + [(96, 96)] * 5
    assert len(watch.steps) == each + 5 and watch.steps == sorted(watch.steps) and watch.steps[-1] == 1.0
    assert watch.steps[each - 1] == pytest.approx(steps / (steps + 5))
    assert watch.pictures[0].image.size == (96, 96)


def test_the_passes_may_differ_in_everything(engine: Engine, calls: Calls) -> None:
    plain = pixels(engine, hires(guidance_scale=1.5, steps=2))[0]
    for other in (
        {"hr_second_pass_steps": 3}, {"hr_sampler": "Euler a"}, {"hr_schedule": "Karras"}, {"hr_checkpoint": "other"},
        {"hr_prompt": "a bird"}, {"hr_negative_prompt": "a bird"}, {"hr_guidance_scale": 2.0},
        {"denoising_strength": 0.8}, {"hr_scale": 1.25},
    ):
        calls.seen.clear()
        changed = pixels(engine, hires(guidance_scale=1.5, steps=2, **other))[0]
        assert changed.shape != plain.shape or np.abs(changed - plain).max() > 0, other
        expected = ["base"] * 2 + ["other" if "hr_checkpoint" in other else "base"] * (len(calls.seen) - 2)
        assert calls.models == expected


def test_a_denoising_strength_of_0_keeps_the_picture_but_for_one_step(engine: Engine, calls: Calls) -> None:
    pixels(engine, hires(denoising_strength=0.0, guidance_scale=1.0))
    assert [size for _, size, _ in calls.seen] == [(64, 64)] * 4 + [(96, 96)]


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM", "UniPC", "DPM adaptive"])
def test_a_picture_of_two_passes_is_the_same_alone_and_in_a_batch(engine: Engine, sampler: str) -> None:
    # A scale of 1 halves the rows, and the many calls of the adaptive sampler are short.
    request = hires(sampler=sampler, steps=2, batch_size=2, guidance_scale=1.0, settings=Settings(randn_source="NV"))
    batch = pixels(engine, request)
    alone = pixels(engine, dataclasses.replace(request, batch_size=1, seed=request.seed + 1))[0]
    assert np.abs(batch[1] - alone).max() <= 1 and np.abs(batch[0] - batch[1]).max() > 8


def test_prompt_editing_from_1_to_2_is_the_hires_pass(engine: Engine) -> None:
    said: list[tuple[int, float]] = []

    class Contexts(Estimates):
        def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
            def run(inputs: Any) -> Any:
                said.append((inputs.x.shape[-1], round(inputs.context[0].double().sum().item(), 6)))
                return call(inputs)
            return run

    def contexts(prompt: str, **values: Any) -> list[tuple[int, float]]:
        said.clear()
        request = hires(prompt=prompt, guidance_scale=1.0, **values)
        engine.generate(request, (Active(Contexts(), Plugin.Params()),), Recorder())
        return list(said)

    cat, dog = contexts("cat"), contexts("dog")
    # Of two stages the first ends with, and includes, the second call of the second pass.
    assert contexts("[cat:dog:1.25]") == cat[:6] + dog[6:]
    assert contexts("[cat:dog:0.25]") == cat[:2] + dog[2:]
    assert contexts("cat", hr_prompt="dog") == cat[:4] + dog[4:]


@pytest.mark.parametrize(("where", "first", "second"), [
    ("first pass", "bbrr", "bbbb"), ("second pass", "bbbb", "bbrr"), ("both passes", "bbrr", "bbrr"),
])
def test_the_setting_says_which_pass_is_refined(
    engine: Engine, calls: Calls, where: str, first: str, second: str
) -> None:
    settings = Settings(hires_fix_refiner_pass=where, refiner_switch_by_sample_steps=True)
    pixels(engine, hires(refiner="other", refiner_switch_at=0.5, guidance_scale=1.0, settings=settings))
    assert calls.models == [{"b": "base", "r": "other"}[letter] for letter in first + second]


@pytest.mark.parametrize(("switch_at", "refiner_calls"), [(0.0, 10), (0.001, 9), (0.34, 6), (0.8, 2), (1.0, 0)])
def test_the_refiner_begins_at_its_share_of_the_timesteps(
    engine: Engine, calls: Calls, switch_at: float, refiner_calls: int
) -> None:
    """Ten steps lie at the timesteps 999, 888, ... 0, whose shares are 0, 0.111, ... 0.999."""
    pixels(engine, refined(steps=10, schedule="Uniform", refiner_switch_at=switch_at, guidance_scale=1.0))
    assert calls.models == ["base"] * (10 - refiner_calls) + ["other"] * refiner_calls


@pytest.mark.parametrize("sampler", ["DPM++ 3M SDE", "UniPC", "Restart", "LCM"])
def test_what_a_multistep_sampler_remembers_is_kept_when_the_refiner_takes_over(
    engine: Engine, sampler: str
) -> None:
    request = refined(refiner="", sampler=sampler, steps=4, guidance_scale=1.0)
    plain = latents(engine, request)
    assert torch.equal(latents(engine, dataclasses.replace(request, refiner="copy")), plain)
    assert not torch.equal(latents(engine, dataclasses.replace(request, refiner="other")), plain)


def test_prompt_editing_goes_on_counting_in_the_refiner(engine: Engine, calls: Calls) -> None:
    request = refined(steps=6, prompt="[cat:dog:0.8]", refiner="copy", guidance_scale=1.0)
    assert torch.equal(latents(engine, request), latents(engine, dataclasses.replace(request, refiner="")))
    assert set(calls.models) == {"base", "copy"}


def test_going_to_the_refiner_and_back_leaves_the_base_as_it_was(installation: Library) -> None:
    """Memory for one model, so that each leaves when the other comes."""
    models = Models(1)
    small = Engine(installation, models, Placement())
    request = refined(batch_count=2, seed=REQUEST.seed, subseed_strength=0.5, subseed=3, steps=2)
    first, second = pixels(small, request)
    assert len(models.keys()) == 1
    assert np.array_equal(second, pixels(small, dataclasses.replace(request, batch_count=1, subseed=4))[0])
    assert np.abs(first - second).max() > 0


def test_a_refiner_that_is_the_model_itself_changes_nothing(engine: Engine) -> None:
    assert np.array_equal(pixels(engine, refined(refiner="base"))[0], pixels(engine, refined(refiner=""))[0])


def test_the_picture_before_hires_fix_is_handed_over_where_the_settings_ask_for_it(engine: Engine) -> None:
    for upscaler in ("Latent", "Lanczos"):
        watch = Recorder()
        settings = Settings(save_images_before_highres_fix=True)
        engine.generate(hires(hr_upscaler=upscaler, batch_size=2, settings=settings), (), watch)
        first = pixels(engine, hires(enable_hr=False, batch_size=2))
        assert [(picture.stage, picture.image.size) for picture in watch.pictures] == [
            ("before-highres-fix", (64, 64))] * 2 + [("", (96, 96))] * 2
        assert all(np.array_equal(np.asarray(made.image), plain)
                   for made, plain in zip(watch.pictures, first, strict=False))
        assert "Denoising strength" in watch.pictures[2].parameters
        assert not any(key.startswith(("Hires", "Denoising")) for key in watch.pictures[0].parameters)


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
def test_a_picture_takes_the_place_of_the_first_pass(
    engine: Engine, installation: Library, calls: Calls, upscaler: str
) -> None:
    inputs, watch = Inputs(installation.folders.inputs), Recorder()
    settings = Settings(save_images_before_highres_fix=True)
    prompt = "a [cat:dog:1.5]"
    engine.generate(hires(hr_upscaler=upscaler, prompt=prompt, settings=settings), (), watch)
    first, last = watch.pictures
    calls.seen.clear()
    again = hires(hr_upscaler=upscaler, prompt=prompt, firstpass_image=inputs.add(first.image).id)
    (made,) = pixels(engine, again)
    assert {size for _, size, _ in calls.seen} == {(96, 96)}
    # Through pixels it is what was there anyway; through the latent it was decoded and encoded once more.
    assert np.array_equal(made, np.asarray(last.image)) if upscaler == "Lanczos" else made.shape == (96, 96, 3)
    pair = pixels(engine, dataclasses.replace(again, batch_size=2))
    assert len(pair) == 2 and np.abs(pair[0].astype(int) - made).max() <= 1 < np.abs(pair[1].astype(int) - made).max()
    with pytest.raises(NotFound):
        pixels(engine, dataclasses.replace(again, firstpass_image="0" * 32))


def test_interrupted_in_the_second_pass_it_hands_over_what_there_is(engine: Engine) -> None:
    for at, size in ((4, (64, 64)), (5, (96, 96))):
        watch = Recorder(interrupt_at=at)
        with pytest.raises(Interrupted):
            engine.generate(hires(hr_upscaler="Latent"), (), watch)
        assert [(picture.complete, picture.image.size) for picture in watch.pictures] == [(False, size)]


def test_the_infotext_names_every_checkpoint_and_where_their_hashes_come_from(engine: Engine) -> None:
    watch = Recorder()
    engine.generate(hires(hr_checkpoint="copy", refiner="other"), (), watch)
    (picture,) = watch.pictures
    assert Path(picture.model.checkpoint).stem == picture.parameters["Model"] == "base"
    named = {key: (picture.parameters[key], Path(path).stem) for key, path in picture.others.items()}
    assert named == {"Hires checkpoint": ("copy", "copy"), "Refiner": ("other", "other")}


def test_tiling_is_for_the_request_that_asks_for_it(engine: Engine) -> None:
    plain, tiled = hires(steps=1, hr_upscaler="Lanczos"), hires(steps=1, hr_upscaler="Lanczos", tiling=True)
    before = pixels(engine, plain)[0]
    assert np.abs(pixels(engine, tiled)[0] - before).max() > 0
    assert np.array_equal(pixels(engine, plain)[0], before)


def test_settings_that_overflow_are_refused_and_the_next_request_works(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: Any) -> Any:
        raise OverflowError(34, "Numerical result out of range")

    monkeypatch.setattr("modules.engine.sampling.prepare", overflow)
    with pytest.raises(InvalidRequest, match=r"Euler cannot compute what the settings ask of it: [^(]*defaults"):
        pixels(engine, hires())
    monkeypatch.undo()
    assert len(pixels(engine, hires(steps=1))) == 1


def test_memory_that_does_not_suffice_for_encoding_is_tried_in_tiles(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, tried = StableDiffusion1.encode_image, []

    def scarce(self: Any, model: Any, pixels: Any, generator: Any = None, tiled: bool = False) -> torch.Tensor:
        tried.append(tiled)
        if not tiled:
            raise MemoryError
        return encode(self, model, pixels, generator, tiled)

    monkeypatch.setattr(StableDiffusion1, "encode_image", scarce)
    assert pixels(engine, hires(steps=1, hr_upscaler="Lanczos"))[0].shape == (96, 96, 3)
    assert tried == [False, True]

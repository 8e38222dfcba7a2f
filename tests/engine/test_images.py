"""Image to image, inpainting and outpainting: whole requests on tiny models, against diffusers' pipelines."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import diffusers
import numpy as np
import pytest
import scipy.ndimage
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor2_0
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from modules.core.errors import InvalidRequest, NotFound
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine import pictures
from modules.engine.engine import Engine
from modules.families import detect
from modules.families.clip_tokenizer import clip_tokenizer
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
from tests.fixtures.tiny_sd2 import write_tiny_sd2

SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EXACT = Settings(img2img_fix_steps=True)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("installation")
    for name, takes in (("plain", ""), ("inpaint", "inpaint"), ("edit", "edit")):
        write_tiny_sd1(root / f"models/Stable-diffusion/{name}.safetensors", takes=takes)
    write_tiny_sd2(root / "models/Stable-diffusion/depth.safetensors", takes="depth")
    return Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))


@pytest.fixture(scope="module")
def engine(library: Library) -> Engine:
    return Engine(library, Models(10**9), Placement())


@pytest.fixture(scope="module")
def put(library: Library) -> Any:
    inputs = Inputs(library.folders.inputs)

    def store(image: Image.Image) -> str:
        file = io.BytesIO()
        image.save(file, "PNG")
        return inputs.put(file.getvalue()).id
    return store


def image_request(put: Any, image: Image.Image, mask: Image.Image | None = None, **values: Any) -> Request:
    return dataclasses.replace(REQUEST, **{
        "kind": "img2img", "model": "plain", "init_images": (put(image),), "mask": put(mask) if mask else "",
        "schedule": "Uniform", "denoising_strength": 0.5, "mask_blur_x": 0, "mask_blur_y": 0, **values})


class Seen(Plugin):
    """Keeps what the sampler asks and the last estimate."""

    id = "seen"

    def __init__(self) -> None:
        super().__init__(Context(None, None, {}))  # type: ignore[arg-type]
        self.asked: list[tuple[torch.Tensor, float]] = []
        self.last: Any = None

    def wrap_denoise(self, denoise: Any, plan: Any, params: Any) -> Any:
        def seeing(x: torch.Tensor, sigma: float) -> Any:
            self.asked.append((x, sigma))
            return denoise(x, sigma)
        return seeing

    def on_step(self, state: Any, params: Any) -> None:
        self.last = state.x0


def seen(engine: Engine, request: Request) -> Seen:
    plugin = Seen()
    engine.generate(request, (Active(plugin, Plugin.Params()),), Recorder())
    return plugin


def made(engine: Engine, request: Request) -> list[np.ndarray]:
    watch = Recorder()
    engine.generate(request, (), watch)
    return [np.asarray(picture.image) for picture in watch.pictures]


@dataclasses.dataclass(frozen=True)
class Theirs:
    """diffusers' parts of one checkpoint, with its own attention."""

    parts: dict[str, Any]

    @classmethod
    def of(cls, library: Library, name: str) -> Theirs:
        path = library.find_checkpoint(name).path
        family, variant = detect(read_header(path))
        model: Any = family.load(variant, path, None, Placement())
        words = clip_tokenizer()
        model.modules["unet"].set_attn_processor(AttnProcessor2_0())
        model.modules["unet"].register_to_config(sample_size=64)
        return cls({
            "vae": model.modules["vae"], "text_encoder": model.modules["text_encoder"],
            "tokenizer": transformers.CLIPTokenizer(
                vocab=dict(words.vocabulary), merges=list(words.ranks), model_max_length=77),
            "unet": model.modules["unet"], "safety_checker": None, "feature_extractor": None,
            "scheduler": diffusers.EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="linspace"),
            "requires_safety_checker": False})

    def encoded(self, image: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.asarray(image) / np.float32(127.5) - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            mean: torch.Tensor = self.parts["vae"].encode(pixels).latent_dist.mean
        return mean * self.parts["vae"].config.scaling_factor

    def run(self, kind: Any, request: Request, start: torch.Tensor, **values: Any) -> torch.Tensor:
        pipeline = kind(**self.parts)
        pipeline.set_progress_bar_config(disable=True)
        found: torch.Tensor = pipeline(
            request.prompt, negative_prompt=request.negative_prompt, guidance_scale=request.guidance_scale,
            image=start, num_inference_steps=10, strength=0.5, output_type="latent",
            generator=torch.Generator().manual_seed(request.seed), **values).images
        return found


@pytest.fixture(scope="module")
def plain(library: Library) -> Theirs:
    return Theirs.of(library, "plain")


def close(ours: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.linalg.norm(ours - other) <= 1e-4 * torch.linalg.norm(other))


# With ten steps every timestep is a whole number; 5 of 10 is strength 0.5 in both.
def test_img2img_is_that_of_diffusers(engine: Engine, put: Any, plain: Theirs) -> None:
    request = image_request(put, noise(64, 64), steps=5, settings=EXACT)
    theirs = plain.run(diffusers.StableDiffusionImg2ImgPipeline, request, plain.encoded(noise(64, 64)))
    assert close(seen(engine, request).last, theirs)


@pytest.mark.parametrize("model", ["plain", "inpaint"])
def test_inpainting_is_that_of_diffusers(engine: Engine, put: Any, library: Library, model: str) -> None:
    other, image, box = Theirs.of(library, model), noise(64, 64), (16, 24, 48, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:64, 16:48] = 1
    hidden = image.copy()
    hidden.paste((127, 127, 127), box)
    # 127.5 cannot be written in 8 bits.
    with torch.no_grad():
        pixels = (torch.from_numpy(np.asarray(image) / np.float32(127.5) - 1).permute(2, 0, 1)[None]) * (1 - mask)
        masked = other.parts["vae"].encode(pixels).latent_dist.mean * other.parts["vae"].config.scaling_factor
    start, small = other.encoded(image), mask[..., ::8, ::8]
    first = picture_noise((4, 8, 8), [REQUEST.seed])

    def keep(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """What the pipeline does for four channels, and A1111 for nine as well."""
        kept = start + first * pipe.scheduler.sigmas[pipe.scheduler.step_index]
        return {"latents": values["latents"] * small + kept * (1 - small)}

    request = image_request(put, image, rectangle((64, 64), box), model=model, steps=5, settings=EXACT)
    theirs = other.run(diffusers.StableDiffusionInpaintPipeline, request, start, mask_image=mask,
                       masked_image_latents=masked, height=64, width=64, callback_on_step_end=keep)
    assert close(seen(engine, request).last, theirs)


def test_strength_0_is_one_step_and_others_one_more_than_their_share(engine: Engine, put: Any) -> None:
    for strength, steps in ((0.0, 1), (0.5, 11), (0.75, 16), (1.0, 20)):
        request = image_request(put, noise(64, 64), steps=20, denoising_strength=strength)
        assert len(seen(engine, request).asked) == steps


# Those of A1111's that run in timesteps (DDIM, PLMS, UniPC) begin one timestep lower there, and here.
@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M", "DPM++ SDE", "Heun", "LMS", "DPM++ 3M SDE"])
def test_strength_1_on_a_zero_latent_is_txt2img(
    engine: Engine, put: Any, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr(pictures, "encode", lambda *_: torch.zeros(1, 4, 8, 8))
    request = image_request(put, noise(64, 64), denoising_strength=1.0, sampler=sampler)
    fresh = dataclasses.replace(request, kind="txt2img", init_images=())
    assert (made(engine, request)[0] == made(engine, fresh)[0]).all()


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_noise_is_that_of_the_seed_multiplied_with_extra_noise(
    engine: Engine, put: Any, plain: Theirs, sampler: str
) -> None:
    base = image_request(put, noise(64, 64), sampler=sampler, steps=10, seed=3)
    more = dataclasses.replace(base, initial_noise_multiplier=1.5, settings=Settings(img2img_extra_noise=0.25))
    (usual, sigma), (louder, _) = (seen(engine, one).asked[0] for one in (base, more))
    latents, drawn = plain.encoded(noise(64, 64)), picture_noise((4, 8, 8), [3])
    if sampler == "Euler":
        assert close(usual, latents + drawn * sigma)
        assert close(louder, latents + 1.5 * drawn * (sigma + 0.25))
    else:  # noised to timestep 501 and begun one timestep below, both variance preserving
        table = diffusers.DDIMScheduler(**SCHEDULE).alphas_cumprod.double()
        signal, scale = table[501].sqrt(), (1 + sigma**2) ** 0.5
        assert close(usual, scale * (latents * signal + drawn * (1 - table[501]).sqrt()))
        assert close(louder - 1.5 * usual, scale * signal * (1.5 * 0.25 * drawn - 0.5 * latents))


@pytest.mark.parametrize(("fill", "noisy"), [(2, 1.0), (3, 0.0)])
def test_masked_content_is_noise_or_nothing(
    engine: Engine, put: Any, fill: int, noisy: float
) -> None:
    request = image_request(put, noise(64, 64), rectangle((64, 64), (0, 0, 32, 64)), inpainting_fill=fill)
    x, sigma = seen(engine, request).asked[0]
    drawn = picture_noise((4, 8, 8), [request.seed])
    assert close(x[..., :4], (drawn * (sigma + noisy))[..., :4])
    assert not close(x[..., 4:], (drawn * (sigma + noisy))[..., 4:])


@pytest.mark.parametrize("values", [
    {}, {"sampler": "DDIM"}, {"sampler": "DPM++ 2M SDE"}, {"inpainting_fill": 2}, {"inpainting_fill": 0},
    {"inpaint_full_res": True, "inpaint_full_res_padding": 4}, {"mask_round": False}, {"model": "inpaint"},
    {"initial_noise_multiplier": 1.4}, {"inpainting_mask_invert": True},
])
def test_outside_of_the_mask_nothing_changes(engine: Engine, put: Any, values: dict[str, Any]) -> None:
    size = (128, 96) if values.get("inpaint_full_res") else (64, 64)
    image, box = noise(*size), (24, 16, 48, 40)
    request = image_request(put, image, rectangle(size, box), mask_blur_x=2, mask_blur_y=1, **values)
    result = made(engine, request)[0]
    changed = (result != np.asarray(image)).any(-1)
    assert result.shape == (*size[::-1], 3)
    inside = np.zeros(size[::-1], dtype=bool)
    inside[16:40, 24:48] = True
    reach = np.zeros_like(inside)
    reach[13:43, 19:53] = True  # 2.5 deviations, rounded
    if request.inpainting_mask_invert:
        inside, reach = ~inside, ~np.pad(np.ones((18, 14), dtype=bool), ((19, 27), (29, 21)))
    assert not changed[~reach].any()
    assert changed[inside].mean() > 0.5


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.booleans(), min_size=48, max_size=48).filter(any),
    blur=st.tuples(st.integers(0, 6), st.integers(0, 6)), invert=st.booleans(),
    values=st.fixed_dictionaries({
        "inpaint_full_res_padding": st.integers(0, 40), "inpaint_full_res": st.booleans(),
        "inpainting_fill": st.integers(0, 3), "sampler": st.sampled_from(("Euler a", "DDIM"))}),
)
def test_outside_of_any_mask_nothing_changes(
    engine: Engine, put: Any, cells: list[bool], blur: tuple[int, int], invert: bool, values: dict[str, Any]
) -> None:
    """Masks of 8 by 6 squares, blurred: what they leave black by the blur's reach stays, bit for bit."""
    image, painted = noise(128, 96), np.kron(np.reshape(cells, (6, 8)), np.ones((16, 16), dtype=bool))
    repainted = ~painted if invert else painted
    assume(repainted.any())
    request = image_request(
        put, image, Image.fromarray(painted.astype(np.uint8) * 255), steps=2, width=128, height=96,
        inpainting_mask_invert=invert, mask_blur_x=blur[0], mask_blur_y=blur[1], **values)
    changed = (made(engine, request)[0] != np.asarray(image)).any(-1)
    across, down = (int(2.5 * one + 0.5) for one in blur)
    reach = scipy.ndimage.maximum_filter(repainted, size=(2 * down + 1, 2 * across + 1))
    assert not changed[~reach].any() and changed[repainted].any()


class Told(Seen):
    """Keeps what the denoiser is told beside the noisy latent."""

    def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
        def telling(given: Any) -> Any:
            self.concat = given.concat
            return call(given)
        return telling


def test_only_masked_costs_what_its_pixels_cost(engine: Engine, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = image_request(put, noise(512, 384), rectangle((512, 384), (100, 100, 110, 110)), inpaint_full_res=True)
    encoded, decoded = [], []
    encode, decode = pictures.encode, pictures.decode
    monkeypatch.setattr(pictures, "encode", lambda *given: encoded.append(given[2].size) or encode(*given))
    monkeypatch.setattr(pictures, "decode", lambda *given: decoded.append(given[2].shape[-2:]) or decode(*given))
    assert {tuple(x.shape[-2:]) for x, _ in seen(engine, request).asked} == {(8, 8)}
    assert (encoded, decoded) == ([(64, 64)], [(8, 8)])


@pytest.mark.parametrize(("values", "expected"), [
    ({}, 0.0), ({"mask_round": False}, 0.4), ({"inpaint_mode": "differential"}, 0.4)])
def test_an_inpainting_model_is_told_shades_of_the_mask_unless_they_are_rounded(
    engine: Engine, put: Any, values: dict[str, Any], expected: float
) -> None:
    plugin = Told()
    request = image_request(put, noise(64, 64), Image.new("L", (64, 64), 102), model="inpaint", steps=2, **values)
    engine.generate(request, (Active(plugin, Plugin.Params()),), Recorder())
    assert torch.allclose(plugin.concat[:, 0], torch.tensor(expected))


def test_a_mask_for_the_latent_decides_what_is_sampled(engine: Engine, put: Any, plain: Theirs) -> None:
    image, right = noise(64, 64), rectangle((64, 64), (32, 0, 64, 64))
    request = image_request(put, image, Image.new("L", (64, 64), 255), latent_mask=put(right), steps=10)
    last = seen(engine, request).last
    assert close(last[..., :4], plain.encoded(image)[..., :4])
    assert not close(last[..., 4:], plain.encoded(image)[..., 4:])


def test_an_empty_mask_or_a_missing_picture_is_said(engine: Engine, put: Any) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        made(engine, image_request(put, noise(64, 64), Image.new("L", (64, 64))))
    with pytest.raises(NotFound):
        made(engine, dataclasses.replace(image_request(put, noise(64, 64)), init_images=("0" * 32,)))
    request = image_request(put, Image.new("RGBA", (9, 9)), settings=Settings(img2img_background_color="nothing"))
    with pytest.raises(InvalidRequest, match="not a colour"):
        made(engine, request)


def test_each_picture_of_a_batch_begins_from_its_own(engine: Engine, put: Any) -> None:
    first, second = noise(64, 64, 1), noise(80, 64, 2)
    both = image_request(put, first, init_images=(put(first), put(second)), batch_size=2)
    pair = made(engine, both)
    alone = made(engine, image_request(put, second, seed=both.seed + 1))[0]
    assert len(pair) == 2
    assert np.abs(pair[1].astype(int) - alone).max() <= 1
    assert np.abs(pair[0].astype(int) - alone).max() > 10


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_pictures_of_other_sizes_are_brought_to_the_size(engine: Engine, put: Any, mode: int) -> None:
    for image in (noise(200, 51), noise(1, 1)):
        assert made(engine, image_request(put, image, resize_mode=mode, steps=1))[0].shape == (64, 64, 3)


@pytest.mark.parametrize(("values", "fill"), [({}, "noise"), ({"inpaint_full_res": True}, "noise"), ({}, "edge")])
def test_outpainting_grows_by_any_number_of_pixels_and_keeps_the_picture(
    engine: Engine, put: Any, values: dict[str, Any], fill: str
) -> None:
    image = noise(64, 64)
    result = made(engine, image_request(put, image, outpaint_left=5, outpaint_down=13, outpaint_fill=fill,
                                        mask_blur_x=1, mask_blur_y=1, **values))[0]
    assert result.shape == (77, 69, 3)
    assert (result[:60, 9:] == np.asarray(image)[:60, 4:]).all()
    assert result[64:].std() > 1


def test_a_picture_of_any_size_grows(engine: Engine, put: Any) -> None:
    image = noise(71, 66)
    result = made(engine, image_request(put, image, outpaint_right=57, width=71, height=66))[0]
    assert result.shape == (66, 128, 3) and (result[:, :71] == np.asarray(image)).all()


def test_differential_diffusion_is_img2img_where_all_may_change_and_keeps_what_may_not(
    engine: Engine, put: Any, plain: Theirs
) -> None:
    image = noise(64, 64)
    mask = rectangle((64, 64), (0, 0, 32, 64))
    differential = {"inpaint_mode": "differential", "steps": 10}
    assert close(seen(engine, image_request(put, image, Image.new("L", (64, 64), 255), **differential)).last,
                 seen(engine, image_request(put, image, steps=10)).last)
    half = seen(engine, image_request(put, image, mask, **differential)).last
    # The cell beside the edge shares in it.
    assert close(half[..., 5:], plain.encoded(image)[..., 5:])
    grey = seen(engine, image_request(put, image, mask.point(lambda value: value // 2), **differential)).last
    distance = [float((one - plain.encoded(image))[..., :4].norm()) for one in (grey, half)]
    assert 0 < distance[0] < distance[1]


def test_a_model_that_edits_sees_the_picture_and_its_scale(engine: Engine, put: Any) -> None:
    watch = Recorder()
    request = image_request(put, noise(64, 64), model="edit", image_cfg_scale=2.5)
    engine.generate(request, (), watch)
    assert watch.pictures[0].parameters["Image CFG scale"] == "2.5"
    other = made(engine, dataclasses.replace(request, image_cfg_scale=1.0))[0]
    assert np.abs(np.asarray(watch.pictures[0].image).astype(int) - other).max() > 3


def test_the_infotext_says_what_was_done(engine: Engine, put: Any) -> None:
    watch = Recorder()
    engine.generate(image_request(
        put, noise(64, 64), rectangle((64, 64), (8, 8, 40, 40)), inpaint_full_res=True, inpainting_fill=2,
        mask_blur_x=4, mask_blur_y=4, initial_noise_multiplier=1.2, resize_mode=1,
        settings=Settings(img2img_extra_noise=0.1, inpainting_mask_weight=0.5)), (), watch)
    expected = {
        "Denoising strength": "0.5", "Mask blur": "4", "Inpaint area": "Only masked", "Masked area padding": "32",
        "Masked content": "latent noise", "Noise multiplier": "1.2", "Extra noise": "0.1", "Size": "64x64",
        "Conditional mask weight": "0.5", "Resize mode": "Crop and resize"}
    assert expected.items() <= watch.pictures[0].parameters.items()
    engine.generate(image_request(put, noise(64, 64)), (), watch)
    assert not {"Mask blur", "Inpaint area", "Noise multiplier", "Image CFG scale"} & set(watch.pictures[1].parameters)


def test_the_infotext_names_the_pictures_unless_the_page_has(engine: Engine, put: Any) -> None:
    pair, watch = (put(noise(64, 64, 1)), put(noise(64, 64, 2))), Recorder()
    request = image_request(put, noise(64, 64), rectangle((64, 64), (8, 8, 40, 40)), init_images=pair, batch_size=2,
                            steps=1)
    engine.generate(request, (), watch)
    assert [(one.parameters["Init image"], one.parameters["Init mask"]) for one in watch.pictures] == [
        (pair[0], request.mask), (pair[1], request.mask)]
    engine.generate(dataclasses.replace(request, parameters={"Init image": "painted over"}), (), watch)
    assert watch.pictures[-1].parameters["Init image"] == "painted over"


def test_a_refiner_goes_on_with_the_picture(engine: Engine, put: Any) -> None:
    request = image_request(put, noise(64, 64), rectangle((64, 64), (8, 8, 40, 40)), steps=8)
    refined = dataclasses.replace(request, refiner="inpaint", refiner_switch_at=0.7)
    first, second = made(engine, request)[0], made(engine, refined)[0]
    assert (first[8:40, 8:40] != second[8:40, 8:40]).any()
    assert (first[48:] == second[48:]).all()


class Depths(Plugin):
    """Keeps the channels beside the latent; ``found`` is what it takes for the depth of every picture."""

    id = "depths"

    def __init__(self, found: Image.Image | None = None) -> None:
        super().__init__(Context(None, None, {}))  # type: ignore[arg-type]
        self.found = found

    def depth(self, image: Image.Image, params: Any) -> Image.Image | None:
        return self.found

    def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
        def seeing(inputs: Any) -> Any:
            self.told = inputs.concat
            return call(inputs)
        return seeing


def slope(width: int, height: int, upside_down: bool = False) -> Image.Image:
    """A plane that comes nearer to the right, or to the left."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(row[::-1] if upside_down else row, (height, width)).copy())


def told(engine: Engine, request: Request, plugin: Depths) -> np.ndarray:
    engine.generate(request, (Active(plugin, Plugin.Params()),), Recorder())
    row: np.ndarray = plugin.told[0, 0].numpy()
    return row


def test_a_depth_model_is_told_the_map_that_was_given_or_that_a_plugin_finds(engine: Engine, put: Any) -> None:
    image = noise(64, 64)
    given = image_request(put, image, model="depth", depth_map=put(slope(32, 32)))
    for request, plugin, rising in ((given, Depths(), 1), (given, Depths(slope(64, 64, True)), 1),
                                    (image_request(put, image, model="depth"), Depths(slope(64, 64, True)), -1)):
        found = told(engine, request, plugin)
        # Light is near, which is 1 (Rombach et al. 2022); far is -1.
        np.testing.assert_allclose(found[4][::rising], np.linspace(-1, 1, 8), atol=0.1)
    with pytest.raises(InvalidRequest, match="needs the depth"):
        told(engine, image_request(put, image, model="depth"), Depths())


@pytest.mark.parametrize("values", [
    {"resize_mode": 1, "height": 32}, {"inpaint_full_res": True, "inpaint_full_res_padding": 0}, {"outpaint_right": 64},
    {"resize_mode": 3},
])
def test_the_depth_follows_the_picture(engine: Engine, put: Any, values: dict[str, Any]) -> None:
    """The picture is its own depth map: whatever is done to one is done to the other."""
    image = slope(128, 128)
    mask = None if "resize_mode" in values else rectangle((128, 128), (64, 32, 128, 96))
    request = image_request(put, image.convert("RGB"), mask, **{
        "model": "depth", "depth_map": put(image), "width": 64, "height": 64, "outpaint_fill": "edge", **values})
    plugin = Depths()
    engine.generate(request, (Active(plugin, Plugin.Params()),), Recorder())
    found = plugin.told[0, 0].numpy()
    assert np.diff(found.mean(0)).min() >= -1e-3 and found[:, 0].max() < -0.7 and found[:, -1].min() > 0.7

"""The loader on a device that only counts: same pictures within any budget, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.core.errors import InvalidModel, OutOfMemory
from modules.core.plan import ModelRef
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.engine.loader import Loader
from modules.families.sd15 import StableDiffusion1
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.runtime.device import Placement
from modules.runtime.memory import Accelerator, Models
from modules.runtime.placement import ENCODING_BYTES, coding_bytes, sampling_bytes
from modules.runtime.weights import nbytes
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.fake_device import FakeDevice
from tests.fixtures.tiny_models import write_tiny_sd1

PIXELS = 64 * 64
SMALL = dataclasses.replace(REQUEST, steps=2)
PAIR = dataclasses.replace(SMALL, batch_size=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        write_tiny_sd1(root / f"models/Stable-diffusion/{name}.safetensors", seed=seed)
    return root


def library_of(root: Path) -> Library:
    return Library(folders(root, {}), HashCache(root / "hashes.sqlite3"))


def made(engine: Engine, request: Any = SMALL) -> list[bytes]:
    watch = Recorder()
    engine.generate(request, (), watch)
    return [picture.image.tobytes() for picture in watch.pictures]


@pytest.fixture(scope="module")
def expected(root: Path) -> list[bytes]:
    return made(Engine(library_of(root), Models(10**9), Placement()), PAIR)


def same(images: list[bytes], others: list[bytes]) -> bool:
    """Return whether pictures agree within rounding: kernels round by how their operands lie in memory."""
    return len(images) == len(others) and max(
        difference(*pair).abs().max() for pair in zip(images, others, strict=True)) <= 1


def path(root: Path, name: str) -> str:
    return str(root / f"models/Stable-diffusion/{name}.safetensors")


def component_sizes(root: Path) -> dict[str, int]:
    loaded = Loader(library_of(root), Models(10**9), Placement()).load(ModelRef(path(root, "a")), print)
    return {name: sum(weight.nbytes for weight in module.parameters())
            for name, module in loaded.model.modules.items()}


def test_pictures_are_the_same_within_any_budget(root: Path, expected: list[bytes]) -> None:
    sizes = component_sizes(root)
    sampling, coding = sampling_bytes(2 * 2 * PIXELS, 4)[0], coding_bytes(PIXELS, 4)[0]
    tight = max(sizes["text_encoder"] + ENCODING_BYTES, sizes["vae"] + coding) + 10**4
    assert tight < sizes["unet"] + sampling, "the denoiser does not fit beside its work"
    for size, keep in ((10**9, True), (10**9, False), (tight, True)):
        device = FakeDevice(size)
        engine = Engine(library_of(root), Models(10**9, device.accelerator(keep=keep)), Placement())
        assert same(made(engine, PAIR), expected)
        assert device.peak <= size
        first = device.copied
        assert same(made(engine, PAIR), expected)
        assert (device.copied == first) is (size == 10**9 and keep), "what fits stays"
        assert keep or device.used == 0
        engine.unload()
        assert device.used == 0


def test_work_that_does_not_fit_goes_row_by_row_and_in_tiles_then_fails_clearly(
    root: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = component_sizes(root)
    device = FakeDevice(10**9)
    # What the plan believes is far too much, so the device itself says when it is full.
    engine = Engine(library_of(root), Models(10**9, Accelerator(10**9, device.copy, lambda: 10**9)), Placement())
    assert same(made(engine, PAIR), expected)
    device.size = sizes["unet"] + 1000
    cost = {"row": 400, "decode": device.size - sizes["vae"] + 1}
    call, decode, rows, tiles = StableDiffusion1.call, StableDiffusion1.decode, [], []

    def costly_call(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        device.work(len(inputs.x) * cost["row"])
        rows.append(len(inputs.x))
        return call(self, model, inputs)

    def costly_decode(self: Any, model: Any, latents: Any, tiled: bool = False) -> torch.Tensor:
        tiles.append(tiled)
        device.work(cost["decode"] // (4 if tiled else 1))
        return decode(self, model, latents)

    monkeypatch.setattr(StableDiffusion1, "call", costly_call)
    monkeypatch.setattr(StableDiffusion1, "decode", costly_decode)
    assert same(made(engine, PAIR), expected)
    assert rows == [1] * 8 and tiles == [False, True] * 2
    cost["row"] = 1001
    with pytest.raises(OutOfMemory, match=r"sampling: 64x64, 2 at once"):
        made(engine, PAIR)
    cost["row"] = 100
    assert same(made(engine, PAIR), expected)


def difference(one: bytes, other: bytes) -> torch.Tensor:
    first, second = (torch.frombuffer(bytearray(item), dtype=torch.uint8) for item in (one, other))
    return first.float() - second.float()


def test_a_budget_too_small_for_anything_is_an_error_with_the_least_that_would_do(root: Path) -> None:
    engine = Engine(library_of(root), Models(10**9, FakeDevice(10**6).accelerator()), Placement())
    with pytest.raises(OutOfMemory, match=r"at least 0\.02 GiB"):
        made(engine)


def living() -> tuple[int, int]:
    """Return how many modules and tensors there are."""
    gc.collect()
    kinds = [type(item) for item in gc.get_objects()]
    return sum(issubclass(kind, torch.nn.Module) for kind in kinds), sum(
        issubclass(kind, torch.Tensor) for kind in kinds)


@pytest.mark.parametrize(("limit", "turns"), [(1, 6), (0, 10), pytest.param(1, 10, marks=pytest.mark.slow)])
def test_switching_back_and_forth_leaves_nothing_behind(root: Path, limit: int, turns: int) -> None:
    device = FakeDevice(10**9)
    engine = Engine(library_of(root), Models(10**9, device.accelerator()), Placement())
    settings, counts, used = Settings(sd_checkpoints_limit=limit), [], []
    for turn in range(turns):
        request = dataclasses.replace(SMALL, steps=1, width=64, height=64, model="ab"[turn % 2], settings=settings)
        assert len(made(engine, request)) == 1
        if turn in (3, turns - 1):
            counts.append(living())
            used.append(device.used)
    assert counts[0] == counts[1] and used[0] == used[1]
    before = counts[0]
    engine.unload()
    after = living()
    assert device.used == 0 and after[0] < before[0] - 300 and after[1] < before[1] - 500


def test_a_model_that_cannot_be_loaded_leaves_the_others_as_they_were(root: Path, tmp_path: Path) -> None:
    tensors = load_file(path(root, "a"))
    name = "model.diffusion_model.out.2.weight"
    save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, tmp_path / "nan.safetensors")
    save_file({"decoder.conv_in.weight": torch.zeros(32, 16, 3, 3)}, tmp_path / "vae.safetensors")
    device = FakeDevice(10**9)
    loader = Loader(library_of(root), Models(10**9, device.accelerator()), Placement())
    good = loader.load(ModelRef(path(root, "a")), print)
    loader.place(good, "unet", PIXELS)
    used = device.used
    for bad in (ModelRef(str(tmp_path / "nan.safetensors")),
                ModelRef(path(root, "b"), str(tmp_path / "vae.safetensors"))):
        with pytest.raises(InvalidModel):
            loader.load(bad, print)
        assert device.used == used
    phases: list[str] = []
    assert loader.load(ModelRef(path(root, "a")), phases.append).model is good.model and phases == []


def test_eight_bits_hold_matrices_and_convolutions_alone(root: Path) -> None:
    loader = Loader(library_of(root), Models(10**9), Placement())
    ref = ModelRef(path(root, "a"))
    plain = loader.load(ref, print)
    assert loader.load(ref, print, Settings(fp8_storage="Enable for SDXL")).model is plain.model
    narrow = loader.load(ref, print, Settings(fp8_storage="Enable")).model.modules
    kinds = {weight.ndim: weight.dtype for weight in narrow["unet"].parameters()}
    assert kinds == {1: torch.float32, 2: torch.float8_e4m3fn, 4: torch.float8_e4m3fn}
    assert {weight.dtype for weight in narrow["vae"].parameters()} == {torch.float32}
    assert nbytes(narrow["unet"]) == sum(weight.numel() * (1 if weight.ndim > 1 else 4)
                                         for weight in plain.model.modules["unet"].parameters())


def test_eight_bits_make_the_picture_of_a_checkpoint_rounded_to_them(root: Path, tmp_path: Path) -> None:
    rounded = {name: tensor.to(torch.float8_e4m3fn).to(tensor) if "diffusion_model" in name and tensor.ndim > 1
               else tensor for name, tensor in load_file(path(root, "a")).items()}
    (tmp_path / "models/Stable-diffusion").mkdir(parents=True)
    save_file(rounded, path(tmp_path, "rounded"))
    plain = made(Engine(library_of(tmp_path), Models(10**9), Placement()))
    request = dataclasses.replace(SMALL, model="a", settings=Settings(fp8_storage="Enable"))
    assert same(made(Engine(library_of(root), Models(10**9), Placement()), request), plain)

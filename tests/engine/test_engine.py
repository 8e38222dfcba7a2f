"""Whole requests on a tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modules.core.errors import Interrupted, InvalidModel, NoModel, NotFound, OutOfMemory, PluginFailed
from modules.core.request import Request
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.families.sd15 import StableDiffusion1
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import Context, Plugin, param
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.sampling.samplers import SAMPLERS
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1


def ask(**values: Any) -> Request:
    return dataclasses.replace(REQUEST, **values)


def pixels(engine: Engine, request: Request, *active: Active) -> list[np.ndarray]:
    watch = Recorder()
    engine.generate(request, active, watch)
    return [np.asarray(picture.image, dtype=np.int16) for picture in watch.pictures]


def plugin(kind: type[Plugin]) -> Active:
    return Active(kind(Context(None, None, {})), kind.Params())  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_a_picture_is_the_same_alone_in_a_batch_and_again(engine: Engine, sampler: str, source: str) -> None:
    settings = Settings(randn_source=source)
    batch = pixels(engine, ask(sampler=sampler, batch_size=3, settings=settings))
    alone = pixels(engine, ask(sampler=sampler, seed=REQUEST.seed + 1, settings=settings))[0]
    assert np.abs(batch[1] - alone).max() <= 1
    assert np.abs(batch[0] - batch[1]).max() > 8
    assert np.array_equal(pixels(engine, ask(sampler=sampler, batch_size=3, settings=settings))[2], batch[2])


def test_every_prompt_setting_changes_the_picture(engine: Engine) -> None:
    base = pixels(engine, REQUEST)[0]
    for changed in (
        ask(prompt="a bird"), ask(negative_prompt=""), ask(seed=8), ask(guidance_scale=2.0), ask(steps=5),
        ask(prompt="a (cat:1.8)"), ask(prompt="a [cat:dog:0.5]"), ask(prompt="a cat AND a bird"),
        ask(schedule="Karras"), ask(subseed_strength=0.5), ask(settings=Settings(CLIP_stop_at_last_layers=2)),
        ask(settings=Settings(randn_source="NV")), ask(seed_resize_from_w=128, seed_resize_from_h=128),
        ask(sampler="Euler a"),
    ):
        assert np.abs(pixels(engine, changed)[0] - base).max() > 0, changed


def test_sizes_need_not_be_square(engine: Engine) -> None:
    assert pixels(engine, ask(width=72, height=104))[0].shape == (104, 72, 3)


def test_the_model_is_loaded_once_and_each_text_encoded_once(
    library: Library, monkeypatch: pytest.MonkeyPatch, watch: Recorder
) -> None:
    loads, encoded = [], []
    load, encode = StableDiffusion1.load, StableDiffusion1.encode
    monkeypatch.setattr(StableDiffusion1, "load", lambda *a: loads.append(1) or load(*a))
    monkeypatch.setattr(StableDiffusion1, "encode", lambda *a: encoded.append((len(a[2]), a[4])) or encode(*a))
    own = Engine(library, Models(10**9), Placement())
    for _ in range(2):
        own.generate(ask(prompt="[a cat:a bird:2]", batch_count=2), (), watch)
    assert len(loads) == 1 and encoded == [(2, False), (1, True)]


def test_a_replaced_file_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "models/Stable-diffusion/tiny.safetensors"
    write_tiny_sd1(path, seed=0)
    own = Engine(Library(folders(tmp_path, {}), HashCache(tmp_path / "h")), Models(10**9), Placement())
    before = pixels(own, REQUEST)[0]
    write_tiny_sd1(path, seed=1)
    assert np.abs(pixels(own, REQUEST)[0] - before).max() > 1


def test_progress_rises_to_the_end_of_each_batch(engine: Engine, watch: Recorder) -> None:
    engine.generate(ask(sampler="DPM++ SDE", steps=3, batch_count=2), (), watch)
    assert watch.batches == [(0, 1), (1, 1)]
    assert len(watch.steps) == 10 and watch.steps[4] == watch.steps[9] == 1.0
    assert watch.steps[:5] == sorted(watch.steps[:5])


def test_previews_are_made_only_while_somebody_looks(engine: Engine, watch: Recorder) -> None:
    engine.generate(REQUEST, (), watch)
    assert watch.previews == []
    looking = Recorder(looking=True)
    engine.generate(ask(settings=Settings(show_progress_every_n_steps=2)), (), looking)
    assert len(looking.previews) == 2
    disabled = Recorder(looking=True)
    engine.generate(ask(settings=Settings(live_previews_enable=False)), (), disabled)
    assert disabled.previews == []


def test_interruption_takes_effect_within_one_model_call(engine: Engine) -> None:
    watch = Recorder(interrupt_at=2)
    with pytest.raises(Interrupted):
        engine.generate(ask(batch_count=3), (), watch)
    assert len(watch.steps) == 2


def test_an_interrupted_picture_is_handed_over_as_it_is_unless_nothing_was_done(engine: Engine) -> None:
    watch = Recorder(interrupt_at=2)
    with pytest.raises(Interrupted):
        engine.generate(REQUEST, (), watch)
    assert [picture.complete for picture in watch.pictures] == [False]
    watch = Recorder(interrupt_at=0)
    with pytest.raises(Interrupted):
        engine.generate(REQUEST, (), watch)
    assert watch.pictures == []


def test_skip_ends_the_batch_and_goes_on_with_the_next(engine: Engine) -> None:
    watch = Recorder(skip_at=2)
    engine.generate(ask(batch_count=3), (), watch)
    assert [(picture.index, picture.complete) for picture in watch.pictures] == [(0, False), (1, True), (2, True)]


def test_stopping_finishes_the_batch(engine: Engine) -> None:
    watch = Recorder(stop_after=1)
    result = engine.generate(ask(batch_count=3), (), watch)
    assert len(watch.pictures) == 1 and not result.complete


def test_pictures_that_exist_are_not_made_again(engine: Engine, watch: Recorder) -> None:
    engine.generate(ask(batch_count=3), (), watch, frozenset({0, 1}))
    assert [picture.index for picture in watch.pictures] == [2]
    assert np.array_equal(np.asarray(watch.pictures[0].image), pixels(engine, ask(seed=9))[0].astype(np.uint8))


def test_tags_that_nobody_understands_are_left_out_with_a_warning(engine: Engine, watch: Recorder) -> None:
    result = engine.generate(ask(prompt="a cat<lora:x:1>"), (), watch)
    assert result.warnings == ("No extension understands <lora:x:1>; it was left out.",)
    assert np.array_equal(np.asarray(watch.pictures[0].image), pixels(engine, REQUEST)[0].astype(np.uint8))


@dataclasses.dataclass(frozen=True)
class Note:
    """Parameters of a plugin."""

    text: str = param("value", "Text", infotext="Note")


def test_plugins_take_part_in_every_stage(engine: Engine, watch: Recorder) -> None:
    seen: list[str] = []

    class Everything(Plugin):
        id, tags, Params = "everything", ("note",), Note

        def around(self, request: Request, params: Any, generate: Any) -> Any:
            seen.append("around")
            return generate(request)

        def on_plan(self, plan: Any, params: Any) -> Any:
            seen.append("on_plan")
            return dataclasses.replace(plan, pictures=tuple(
                dataclasses.replace(picture, prompt="a bird <note:1>", parameters={"Extra": params.text})
                for picture in plan.pictures))

        def patches(self, plan: Any, segment: Any, tags: Any, params: Any) -> Any:
            seen.append(f"patches {[str(tag) for tag in tags]}")
            return ()

        def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
            def run(inputs: Any) -> Any:
                seen.append(f"model {inputs.call} {inputs.roles}")
                return call(inputs)
            return run

        def wrap_denoise(self, denoise: Any, plan: Any, params: Any) -> Any:
            def run(x: Any, sigma: float) -> Any:
                seen.append("denoise")
                return denoise(x, sigma)
            return run

        def on_step(self, state: Any, params: Any) -> None:
            seen.append(f"step {state.call} of {state.calls}")

        def on_image(self, picture: Any, plan: Any, params: Any) -> Any:
            seen.append("on_image")
            return dataclasses.replace(picture, image=picture.image.convert("L"))

        def on_result(self, plan: Any, params: Any) -> None:
            seen.append("on_result")

    result = engine.generate(ask(steps=1), (plugin(Everything),), watch)
    assert seen == ["around", "on_plan", "patches ['<note:1>']", "denoise", "model 0 ('cond', 'uncond')",
                    "step 1 of 1", "on_image", "on_result"]
    assert result.warnings == () and watch.pictures[0].image.mode == "L"
    assert watch.pictures[0].parameters["Extra"] == "value"
    assert "Note" not in watch.pictures[0].parameters


def test_a_failing_plugin_is_named_and_the_next_request_works(engine: Engine, watch: Recorder) -> None:
    class Bad(Plugin):
        id = name = "Bad one"

        def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
            return lambda inputs: call(inputs) + "text"

    with pytest.raises(PluginFailed, match="Bad one"):
        engine.generate(REQUEST, (plugin(Bad),), watch)
    assert len(pixels(engine, REQUEST)) == 1


def test_memory_that_does_not_suffice_for_decoding_is_tried_in_tiles_then_reported(
    engine: Engine, watch: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, tried = StableDiffusion1.decode, []

    def scarce(self: Any, model: Any, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
        tried.append(tiled)
        if not tiled:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return decode(self, model, latents, tiled)

    monkeypatch.setattr(StableDiffusion1, "decode", scarce)
    engine.generate(REQUEST, (), watch)
    assert tried == [False, True] and len(watch.pictures) == 1

    def none(*_: Any, **__: Any) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(StableDiffusion1, "decode", none)
    with pytest.raises(OutOfMemory, match=r"decoding: 64x64, 1 at once, [\d.]+ GiB free"):
        engine.generate(REQUEST, (), watch)
    monkeypatch.undo()
    assert len(pixels(engine, REQUEST)) == 1


def test_memory_that_does_not_suffice_for_sampling_is_reported_with_numbers(
    engine: Engine, watch: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(StableDiffusion1, "call", none)
    with pytest.raises(OutOfMemory, match=r"sampling: 64x64, 2 at once, [\d.]+ GiB free"):
        engine.generate(ask(batch_size=2), (), watch)
    monkeypatch.undo()
    assert len(pixels(engine, REQUEST)) == 1


def test_memory_that_does_not_suffice_for_loading_is_freed_and_tried_again(
    library: Library, watch: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, tried = StableDiffusion1.load, []

    def scarce(*arguments: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise MemoryError
        return load(*arguments)

    monkeypatch.setattr(StableDiffusion1, "load", scarce)
    Engine(library, Models(10**9), Placement()).generate(REQUEST, (), watch)
    assert len(tried) == 2 and len(watch.pictures) == 1


def test_without_a_model_or_with_an_unknown_one_the_error_says_so(
    tmp_path: Path, engine: Engine, watch: Recorder
) -> None:
    empty = Engine(Library(folders(tmp_path, {}), HashCache(tmp_path / "h")), Models(1), Placement())
    with pytest.raises(NoModel, match="models/Stable-diffusion"):
        empty.generate(REQUEST, (), watch)
    with pytest.raises(NotFound):
        engine.generate(ask(model="no such model"), (), watch)


def test_a_broken_checkpoint_is_an_error_and_the_next_request_works(tmp_path: Path, watch: Recorder) -> None:
    folder = tmp_path / "models/Stable-diffusion"
    whole = write_tiny_sd1(folder / "b.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(whole[: len(whole) // 2])
    own = Engine(Library(folders(tmp_path, {}), HashCache(tmp_path / "h")), Models(10**9), Placement())
    with pytest.raises(InvalidModel):
        own.generate(ask(model="a"), (), watch)
    assert len(pixels(own, ask(model="b"))) == 1

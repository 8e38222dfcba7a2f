"""Networks in their place: weights equal diffusers' and PEFT's of the same file, and come back to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from modules.adapters import fitting, formulas
from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.families.clip_tokenizer import clip_tokenizer
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import Asked, Context, ModelRef, NoParams, Place, Plugin, weight_places
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_tiny_sdxl

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
RANK = 2


class Weights(Plugin):
    """Counts the calls of the network and keeps what weights are at each."""

    def __init__(self, engine: Engine, names: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(Context(Path(), Path(), {}))
        self._loader, self._names = engine._bench.loader, names
        self.calls = 0
        self.seen: list[list[torch.Tensor]] = []

    def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
        def counting(inputs: Any) -> Any:
            self.calls += 1
            modules = loaded(self._loader, plan).modules
            self.seen.append([modules[part].get_parameter(name).detach().clone() for part, name in self._names])
            return call(inputs)
        return counting


def loaded(loader: Any, plan: Any) -> Any:
    return loader.load(plan.passes[0].segments[0].model, print).model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("installation")
    write_tiny_sd1(root / "models/Stable-diffusion/sd1.safetensors")
    write_tiny_sd1(root / "models/Stable-diffusion/half.safetensors", dtype=torch.float16)
    write_tiny_sdxl(root / "models/Stable-diffusion/sdxl.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(root: Path) -> Engine:
    return Engine(Library(folders(root, {}), HashCache(root / "hashes.sqlite3")), Models(10**9), Placement())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "Lora"
    folder.mkdir()
    return folder


@pytest.fixture
def host(tmp_path: Path, place: Path) -> Host:
    found = discover([EXTENSIONS], tmp_path, {"lora": (place,)}, frozenset())
    return Host(tuple(item for item in found if item.id == "lora"))


def reference(root: Path, name: str = "sd1") -> ModelRef:
    return ModelRef(str(root / f"models/Stable-diffusion/{name}.safetensors"))


def kohya(root: Path, model: str = "sd1", seed: int = 0, only: str = "lora_") -> dict[str, torch.Tensor]:
    """Return a network of sd-scripts for every linear layer of attention, feed-forward and CLIP."""
    generator = torch.Generator().manual_seed(seed)
    tensors, done = {}, set()
    for name, place in weight_places(reference(root, model)).items():
        kohyas = name.startswith(only) and not name.startswith(("lora_unet_input", "lora_unet_middle", "lora_unet_out"))
        matrix = place.weight is not None and len(place.weight) == 2 and "embedding" not in name
        inside = "transformer_blocks" in name or "self_attn" in name or "mlp" in name
        if kohyas and matrix and inside and place not in done:
            done.add(place)
            out, inner = place.weight
            tensors[f"{name}.lora_up.weight"] = torch.randn(out, RANK, generator=generator) * 0.1
            tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, inner, generator=generator) * 0.1
            tensors[f"{name}.alpha"] = torch.tensor(1.0)
    return tensors


def generated(
    engine: Engine, host: Host, prompt: str, names: Any = (), **changes: Any
) -> tuple[Any, Recorder, Weights]:
    request = dataclasses.replace(REQUEST, **{"model": "sd1", "steps": 1, "prompt": f"a cat {prompt}", **changes})
    watch, weights = Recorder(), Weights(engine, names)
    result = engine.generate(request, (*host.active(request), Active(weights, NoParams())), watch)
    return result, watch, weights


def state(engine: Engine, root: Path, name: str = "sd1") -> dict[tuple[str, str], torch.Tensor]:
    model = engine._bench.loader.load(reference(root, name), print).model
    return {(part, key): weight.detach() for part, module in model.modules.items()
            for key, weight in module.named_parameters()}


def named(root: Path, model: str = "sd1") -> dict[str, Place]:
    return dict(weight_places(reference(root, model)))


def test_weights_are_those_that_diffusers_makes_of_the_same_file(
    engine: Engine, host: Host, root: Path, place: Path
) -> None:
    save_file(kohya(root), place / "style.safetensors")
    before = {key: value.clone() for key, value in state(engine, root).items()}
    modules = engine._bench.loader.load(reference(root), print).model.modules
    words = clip_tokenizer()
    theirs = diffusers.StableDiffusionPipeline(
        vae=modules["vae"], unet=diffusers.UNet2DConditionModel.from_config(modules["unet"].config),
        text_encoder=transformers.CLIPTextModel(modules["text_encoder"].config),
        tokenizer=transformers.CLIPTokenizer(vocab=dict(words.vocabulary), merges=list(words.ranks)),
        scheduler=diffusers.EulerDiscreteScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False)
    theirs.unet.load_state_dict({key: before["unet", key] for key in theirs.unet.state_dict()})
    theirs.text_encoder.load_state_dict({key: before["text_encoder", key] for key in theirs.text_encoder.state_dict()})
    theirs.load_lora_weights(str(place / "style.safetensors"))
    theirs.fuse_lora(lora_scale=0.7)
    theirs.unload_lora_weights()
    result, _, _ = generated(engine, host, "<lora:style:0.7>")
    assert not result.warnings
    now, changed = state(engine, root), 0
    for component, module in (("unet", theirs.unet), ("text_encoder", theirs.text_encoder)):
        for key, expected in module.state_dict().items():
            delta = expected - before[component, key]
            changed += bool(delta.any())
            assert torch.allclose(now[component, key], expected, atol=1e-6), key
    assert changed > 60


@pytest.mark.parametrize("model", ["half", "sdxl"])
def test_weights_are_the_formula_in_half_precision_and_for_two_encoders(
    engine: Engine, host: Host, root: Path, place: Path, model: str
) -> None:
    tensors = kohya(root, model)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, place / "style.safetensors")
    generated(engine, host, "", model=model)
    before = {key: value.double() for key, value in state(engine, root, model).items()}
    generated(engine, host, "<lora:style:0.5:2>", model=model)
    now, seen = state(engine, root, model), set()
    for name, place_ in named(root, model).items():
        if f"{name}.alpha" in tensors:
            seen.add(place_.component)
            scale = 2.0 if place_.component == "unet" else 0.5
            up, down = (tensors[f"{name}.lora_{side}.weight"].half().double() for side in ("up", "down"))
            old = before[place_.component, f"{place_.path}.weight"]
            new = now[place_.component, f"{place_.path}.weight"]
            delta = up @ down / RANK * scale
            step = torch.finfo(new.dtype).eps * (old + delta).abs() / 2
            assert ((new.double() - old - delta).abs() <= step + 1e-3 * delta.abs().max()).all()
    assert seen == {"unet", "text_encoder"} | ({"text_encoder_2"} if model == "sdxl" else set())


def test_other_layouts_of_the_same_network_change_the_same(
    engine: Engine, host: Host, root: Path, place: Path
) -> None:
    tensors = kohya(root)
    save_file(tensors, place / "kohya.safetensors")
    peft: dict[str, torch.Tensor] = {}
    original: dict[str, torch.Tensor] = {}
    aliases = named(root)
    for name, where in aliases.items():
        if f"{name}.alpha" not in tensors:
            continue
        path = where.path if where.component == "unet" else f"text_model.{where.path}"
        up, down = tensors[f"{name}.lora_up.weight"] / RANK, tensors[f"{name}.lora_down.weight"]
        peft[f"{where.component}.{path}.lora_B.weight"], peft[f"{where.component}.{path}.lora_A.weight"] = up, down
        other = next((one for one, found in aliases.items() if found == where and one.startswith(
            ("lora_unet_input", "lora_unet_middle", "lora_unet_output"))), name)
        original[f"{other}.lora_up.weight"], original[f"{other}.lora_down.weight"] = up, down
    save_file(peft, place / "peft.safetensors")
    torch.save(original, place / "original.pt")
    made = {}
    for file in ("kohya", "peft", "original"):
        result, watch, _ = generated(engine, host, f"<lora:{file}:1>")
        assert not result.warnings
        made[file] = np.asarray(watch.pictures[0].image, dtype=np.int16)
    plain = np.asarray(generated(engine, host, "")[1].pictures[0].image, dtype=np.int16)
    assert np.abs(made["kohya"] - plain).max() > 1
    assert np.abs(made["kohya"] - made["peft"]).max() <= 1 and np.abs(made["kohya"] - made["original"]).max() <= 1


def test_numbered_files_follow_the_order_of_their_time(engine: Engine, host: Host, root: Path, place: Path) -> None:
    layers = [name for name in fitting._in_order(named(root), "unet")]
    assert layers[0].endswith("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
    assert layers[4].endswith("ff.net.0.proj") and layers[5].endswith("attn2.to_q") and "mid_block" in layers[-1]
    tensors = {}
    for number, name in enumerate(layers):
        out, inner = named(root)[name].weight
        tensors[f"unet:{number}:up"], tensors[f"unet:{number}:down"] = torch.ones(out, 1), torch.ones(1, inner)
    save_file(tensors, place / "old.safetensors", {"unet": '["CrossAttention", "Attention", "GEGLU"]'})
    generated(engine, host, "")
    before = {key: value.clone() for key, value in state(engine, root).items()}
    assert not generated(engine, host, "<lora:old:0.25>")[0].warnings
    key = ("unet", named(root)[layers[-1]].path + ".weight")
    assert torch.allclose(state(engine, root)[key], before[key] + 0.25)


def test_any_sequence_ends_where_it_began(engine: Engine, host: Host, root: Path, place: Path) -> None:
    for seed, name in enumerate("abc"):
        save_file(kohya(root, seed=seed), place / f"{name}.safetensors")
    generated(engine, host, "")
    before = {key: (value, value.clone()) for key, value in state(engine, root).items()}
    chance = random.Random(3)
    for _ in range(8):
        tags = "".join(f"<lora:{name}:{chance.choice((0.3, 1, -2))}>" for name in "abc" if chance.random() < 0.6)
        generated(engine, host, tags + chance.choice(("", "<lora:missing:1>")))
        if chance.random() < 0.3:
            generated(engine, host, "<lora:a:1>", model="half")
    generated(engine, host, "")
    for key, value in state(engine, root).items():
        assert value.data_ptr() == before[key][0].data_ptr() and torch.equal(value, before[key][1]), key


def test_what_the_next_picture_wants_too_is_kept_and_steps_cost_nothing_more(
    engine: Engine, host: Host, root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = sys.modules["extensions.lora.networks"]
    count = {"changes": 0, "reads": 0}
    make, read = formulas._low_rank, networks.read_network

    def counted(*given: Any) -> Any:
        change = make(*given)

        def computing(weight: torch.Tensor) -> torch.Tensor:
            count["changes"] += weight.device.type != "meta"
            return change(weight)
        return computing

    def reading(path: Any) -> Any:
        count["reads"] += 1
        return read(path)

    kinds = tuple((needed, counted if one is make else one) for needed, one in formulas.KINDS)
    monkeypatch.setattr(formulas, "KINDS", kinds)
    monkeypatch.setattr(networks, "read_network", reading)
    tags = ""
    for number in range(16):
        save_file(kohya(root, seed=number, only="lora_unet_down_blocks_0"), place / f"n{number}.safetensors")
        tags += f"<lora:n{number}:0.1>"
    modules = len([name for name in kohya(root, only="lora_unet_down_blocks_0") if name.endswith("alpha")])
    plain = generated(engine, host, "", steps=3)[2].calls
    _, _, weights = generated(engine, host, tags, steps=3)
    assert weights.calls == plain and count == {"changes": 16 * modules, "reads": 16}
    generated(engine, host, tags, steps=2, seed=11)
    assert count == {"changes": 16 * modules, "reads": 16}
    generated(engine, host, tags.replace("n3:0.1", "n3:0.2"))
    assert count == {"changes": 32 * modules, "reads": 16}


def test_start_and_stop_are_steps(engine: Engine, host: Host, root: Path, place: Path) -> None:
    save_file(kohya(root, only="lora_unet"), place / "late.safetensors")
    key = next(one for name, one in named(root).items() if f"{name}.alpha" in kohya(root, only="lora_unet"))
    names = ((key.component, f"{key.path}.weight"),)
    for sampler, calls in (("Euler", 1), ("Heun", 2)):
        prompt = "<lora:late:1:start=1:stop=3>"
        seen = generated(engine, host, prompt, names, steps=5, sampler=sampler)[2].seen
        same = [bool(torch.equal(one[0], seen[0][0])) for one in seen]
        # Heun's last step needs one call only.
        assert same == ([True] * calls + [False] * 2 * calls + [True] * 2 * calls)[:len(seen)]


def test_block_weights_leave_blocks_out(engine: Engine, host: Host, root: Path, place: Path) -> None:
    save_file(kohya(root), place / "a.safetensors")
    generated(engine, host, "")
    before = {key: value.clone() for key, value in state(engine, root).items()}
    generated(engine, host, "<lora:a:1:lbw=OUTALL>")
    changed = {key for key, value in state(engine, root).items() if not torch.equal(value, before[key])}
    assert changed and {name.split(".")[0] for part, name in changed if part == "unet"} == {"up_blocks"}
    assert any(part == "text_encoder" for part, _ in changed), "BASE is 1 in this preset"


def test_it_works_on_eight_bits(engine: Engine, host: Host, root: Path, place: Path) -> None:
    save_file({name: tensor * 10 for name, tensor in kohya(root, only="lora_unet").items()}, place / "a.safetensors")
    settings = Settings(fp8_storage="Enable")
    plain = generated(engine, host, "", settings=settings)[1].pictures[0].image
    changed = generated(engine, host, "<lora:a:1>", settings=settings)[1].pictures[0].image
    again = generated(engine, host, "", settings=settings)[1].pictures[0].image
    assert plain.tobytes() == again.tobytes() != changed.tobytes()


def test_names_hashes_and_the_list(engine: Engine, host: Host, root: Path, place: Path) -> None:
    (place / "sub").mkdir()
    save_file(kohya(root), place / "sub/file name.safetensors", {"ss_output_name": "trained"})
    data = (place / "sub/file name.safetensors").read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little"):]).hexdigest()[:12]
    for name in ("file name", "trained"):
        result, watch, _ = generated(engine, host, f"<lora:{name}:1>")
        assert not result.warnings
        assert watch.pictures[0].parameters["Lora hashes"] == f"{name}: {digest}"
    off = Settings(extension_settings='{"lora": {"hashes": false}}')
    assert "Lora hashes" not in generated(engine, host, "<lora:trained:1>", settings=off)[1].pictures[0].parameters
    (route, refresh) = host.found[0].plugin.routes()
    (listed,) = route.answer(Asked())
    assert (route.path, listed["name"], listed["alias"]) == ("/sdapi/v1/loras", "file name", "trained")
    assert (refresh.method, refresh.path) == ("POST", "/sdapi/v1/refresh-loras")


def test_folders_are_walked_once_for_all_batches_and_segments(
    engine: Engine, host: Host, root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(kohya(root, only="lora_unet"), place / "a.safetensors")
    networks, walks = sys.modules["extensions.lora.networks"], []
    walk = networks.model_files
    monkeypatch.setattr(networks, "model_files", lambda *given: walks.append(given) or walk(*given))
    generated(engine, host, "<lora:a:1:start=1>", steps=3, batch_count=3, batch_size=1)
    assert len(walks) == 1


def test_a_bundled_word_is_learned_with_the_network(engine: Engine, host: Host, root: Path, place: Path) -> None:
    vectors = torch.randn(2, 32)
    save_file({**kohya(root, only="lora_unet"), "bundle_emb.sparkle.string_to_param.*": vectors},
              place / "a.safetensors")
    generated(engine, host, "<lora:a:1> sparkle")
    model = engine._bench.loader.load(reference(root), print).model
    assert list(model.applied.words["text_encoder"]) == ["sparkle"]
    generated(engine, host, "<lora:a:1>")
    assert not model.applied.words


def broken(root: Path, place: Path) -> None:
    good = kohya(root)
    name = next(iter(good)).rsplit(".lora_", 1)[0]
    save_file({**good, f"{name}.lora_up.weight": good[f"{name}.lora_up.weight"] * float("nan")},
              place / "nan.safetensors")
    save_file({f"{name}.lora_up.weight": torch.zeros(32, 0), f"{name}.lora_down.weight": torch.zeros(0, 32)},
              place / "rank0.safetensors")
    save_file({"something.else": torch.zeros(2)}, place / "other.safetensors")
    save_file(kohya(root, "sdxl", only="lora_te2"), place / "foreign.safetensors")
    # As a network for SD2 is to SD1: only what looks at the text has another width.
    save_file({key: tensor[:, 1:].clone() if "attn2_to_k.lora_down" in key or "attn2_to_v.lora_down" in key else tensor
               for key, tensor in good.items()}, place / "half.safetensors")
    (place / "damaged.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    torch.save({"a": print}, place / "code.pt")
    save_file({**good, "lora_unet_nothing.alpha": torch.tensor(1.0), "stray": torch.zeros(1)},
              place / "more.safetensors")
    for folder in ("one", "two"):
        (place / folder).mkdir()
        save_file(good, place / folder / "twice.safetensors")


@pytest.mark.parametrize(("tag", "said"), [
    ("<lora:nan:1>", "NaN"), ("<lora:rank0:1>", "rank is 0"), ("<lora:half:1>", "another kind"),
    ("<lora:other:1>", "no network"),
    ("<lora:foreign:1>", "another kind"), ("<lora:damaged:1>", "damaged|truncated"), ("<lora:code:1>", "more than"),
    ("<lora:more:1>", "stray"), ("<lora:twice:1>", "Several"), ("<lora:missing:1>", "no network named"),
    ("<lora:more:1e9>", "out of range"), ("<lora:more:x>", "no number"),
])
def test_what_cannot_be_used_is_named_and_the_next_picture_is_right(
    engine: Engine, host: Host, root: Path, place: Path, tag: str, said: str
) -> None:
    broken(root, place)
    plain = generated(engine, host, "")[1].pictures[0].image.tobytes()
    result, watch, _ = generated(engine, host, tag)
    (warning,) = [one for one in result.warnings if re.search(said, one)]
    assert tag.split(":")[1] in warning
    if "more:1>" not in tag and "twice" not in tag:
        # The picture is that of the words alone, to which the space before the tag belongs.
        assert watch.pictures[0].image.tobytes() == plain
    assert generated(engine, host, "")[1].pictures[0].image.tobytes() == plain

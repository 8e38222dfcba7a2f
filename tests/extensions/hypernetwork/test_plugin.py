"""Hypernetworks against torch's own modules, built as A1111 builds them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extensions.hypernetwork.networks import load
from extensions.hypernetwork.plugin import hook
from modules.engine.engine import Engine
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import Asked, InvalidModel, Stamp
from modules.runtime.attention import AttentionLayer, attend
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from tests.engine.conftest import REQUEST, Recorder
from tests.fixtures.tiny_models import write_tiny_sd1

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
ACTIVATIONS = {"linear": torch.nn.Identity, "relu": torch.nn.ReLU, "leakyrelu": torch.nn.LeakyReLU,
               "elu": torch.nn.ELU, "swish": torch.nn.Hardswish, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid,
               "softsign": torch.nn.Softsign, "mish": torch.nn.Mish}
WIDTHS = (32, 64)
OPTIONS = [
    {},
    {"activation_func": "linear"},
    *({"activation_func": name} for name in ACTIVATIONS),
    {"activation_func": "relu", "activate_output": False},
    {"activation_func": "relu", "is_layer_norm": True},
    {"activation_func": "relu", "is_layer_norm": True, "use_dropout": True, "layer_structure": [1, 2, 2, 1]},
    {"activation_func": "elu", "use_dropout": True, "last_layer_dropout": True, "layer_structure": [1, 2, 1.5, 1]},
    {"activation_func": "elu", "dropout_structure": [0, 0.2, 0.1, 0], "layer_structure": [1, 4, 2, 1]},
]


def built(width: int, told: dict[str, Any], seed: int) -> torch.nn.Sequential:
    """Return the network of one width as torch's modules, in float64 and without dropout at work."""
    structure = told.get("layer_structure", [1, 2, 1])
    dropout = told.get("dropout_structure")
    if dropout is None:
        middle = [0.3] * (len(structure) - 3) + [0.3 if told.get("last_layer_dropout") else 0]
        dropout = [0, *middle, 0] if told.get("use_dropout") else [0] * len(structure)
    layers: list[torch.nn.Module] = []
    for place in range(len(structure) - 1):
        after = int(width * structure[place + 1])
        layers.append(torch.nn.Linear(int(width * structure[place]), after))
        is_last = place == len(structure) - 2
        name = told.get("activation_func", "linear")
        if name != "linear" and not (is_last and not told.get("activate_output", True)):
            layers.append(ACTIVATIONS[name]())
        if told.get("is_layer_norm"):
            layers.append(torch.nn.LayerNorm(after))
        if dropout[place + 1]:
            layers.append(torch.nn.Dropout(dropout[place + 1]))
    network = torch.nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return network


def write(path: Path, told: dict[str, Any], widths: tuple[int, ...] = WIDTHS, **changed: Any) -> dict[int, Any]:
    """Write a file as A1111 does and return the networks in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    networks = {width: (built(width, told, width), built(width, told, width + 1)) for width in widths}
    data = {width: tuple({f"linear.{name}": value.float() for name, value in one.state_dict().items()} for one in pair)
            for width, pair in networks.items()}
    torch.save({**data, **told, "step": 100, "name": "style", "sd_checkpoint": None, "weight_initialization": "Normal",
                **changed}, path)
    return networks


def stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(path, status.st_mtime_ns, status.st_size)


def context(width: int) -> torch.Tensor:
    return torch.randn(2, 5, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("told", OPTIONS, ids=str)
def test_every_structure_computes_what_torch_computes(tmp_path, told):
    expected = write(tmp_path / "style.pt", told)
    read = load(stamp(tmp_path / "style.pt")).networks
    for width in WIDTHS:
        for ours, theirs in zip(read[width], expected[width], strict=True):
            with torch.no_grad():
                torch.testing.assert_close(ours(context(width).float()).double(), theirs(context(width)),
                                           atol=1e-5, rtol=1e-5)


def test_the_oldest_files_name_two_layers(tmp_path):
    expected = write(tmp_path / "new.pt", {})
    data = torch.load(tmp_path / "new.pt", weights_only=True)
    old = {32: tuple({name.replace("linear.0", "linear1").replace("linear.1", "linear2"): value
                      for name, value in half.items()} for half in data[32])}
    torch.save(old, tmp_path / "old.pt")
    ours = load(stamp(tmp_path / "old.pt")).networks[32][1]
    with torch.no_grad():
        torch.testing.assert_close(ours(context(32).float()).double(), expected[32][1](context(32)),
                                   atol=1e-5, rtol=1e-5)


class Attention(torch.nn.Module):
    """As much of diffusers' attention as the processor asks for."""

    def __init__(self, context_width: int) -> None:
        super().__init__()
        self.heads = 2
        self.to_q = torch.nn.Linear(16, 16, bias=False)
        self.to_k = torch.nn.Linear(context_width, 16, bias=False)
        self.to_v = torch.nn.Linear(context_width, 16, bias=False)
        self.to_out = torch.nn.ModuleList([torch.nn.Linear(16, 16)])


@pytest.mark.parametrize("scale", [0.0, 0.7, -1.5])
def test_keys_and_values_come_from_the_changed_context(tmp_path, scale):
    torch.manual_seed(0)
    keys, values = write(tmp_path / "style.pt", {"activation_func": "relu"})[32]
    module, hidden, given = Attention(32), torch.randn(2, 3, 16), context(32).float()
    with torch.no_grad():
        out = hook(load(stamp(tmp_path / "style.pt")), scale)(
            AttentionLayer("attn2", module, hidden, given, given), attend)
        query = module.to_q(hidden).unflatten(-1, (2, 8)).transpose(1, 2).double()
        key = (given.double() + scale * keys(given.double())) @ module.to_k.weight.double().T
        value = (given.double() + scale * values(given.double())) @ module.to_v.weight.double().T
        key, value = (one.unflatten(-1, (2, 8)).transpose(1, 2) for one in (key, value))
        attended = ((query @ key.transpose(-1, -2) / 8**0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)
        expected = attended @ module.to_out[0].weight.double().T + module.to_out[0].bias.double()
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_context_of_another_width_is_left_alone(tmp_path):
    write(tmp_path / "style.pt", {})
    layer = AttentionLayer("attn2", None, torch.zeros(1, 1, 8), torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))
    assert hook(load(stamp(tmp_path / "style.pt")), 1.0)(layer, lambda given: given) is layer


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(("changed", "message"), [
    ({"activation_func": "exec"}, "activation"),
    ({"layer_structure": [1, 3, 1]}, "layer 0"),
    ({"layer_structure": [2, 1]}, "begin and end"),
    ({"layer_structure": "text"}, "structure"),
    ({"is_layer_norm": True}, "layer 1"),
    ({32: ({}, {})}, "layer 0"),
    ({32: 5}, "lacks"),
    ({"extra": Code()}, "print"),
])
def test_damaged_files_are_named(tmp_path, changed, message, capsys):
    write(tmp_path / "style.pt", {}, **{"extra": None})
    data = torch.load(tmp_path / "style.pt", weights_only=True)
    torch.save({**data, **changed}, tmp_path / "style.pt")
    with pytest.raises(InvalidModel, match=r"style\.pt") as caught:
        load(stamp(tmp_path / "style.pt"))
    assert message in caught.value.message and "run" not in capsys.readouterr().out.split()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("installation")
    write_tiny_sd1(root / "models/Stable-diffusion/sd1.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(root):
    return Engine(Library(folders(root, {}), HashCache(root / "hashes.sqlite3")), Models(10**9), Placement())


@pytest.fixture
def host(tmp_path):
    found = discover([EXTENSIONS], tmp_path, {"hypernetworks": (tmp_path / "files",)}, frozenset())
    return Host(tuple(item for item in found if item.id == "hypernetwork"))


def generated(engine: Engine, host: Host, prompt: str) -> tuple[Any, np.ndarray]:
    request = dataclasses.replace(REQUEST, prompt=prompt, steps=1)
    watch = Recorder()
    result = engine.generate(request, host.active(request), watch)
    return result, np.asarray(watch.pictures[0].image)


def test_a_tag_changes_the_picture_and_only_that_picture(engine, host, tmp_path):
    write(tmp_path / "files/style.pt", {"activation_func": "relu"})
    _, plain = generated(engine, host, "a cat")
    result, changed = generated(engine, host, "a cat<hypernet:style:0.8>")
    _, nothing = generated(engine, host, "a cat<hypernet:style:0>")
    _, after = generated(engine, host, "a cat")
    assert result.warnings == () and not np.array_equal(plain, changed)
    assert np.array_equal(plain, nothing) and np.array_equal(plain, after)


@pytest.mark.parametrize(("tag", "message"), [
    ("<hypernet:missing:1>", "no hypernetwork named 'missing'"),
    ("<hypernet:style:1e9>", "is no number up to 100"),
    ("<hypernet:style:much>", "is no number up to 100"),
    ("<hypernet:nan:1>", r"nan.pt holds NaN"),
    ("<hypernet:wide:1>", "does not fit"),
])
def test_what_cannot_be_used_is_named_and_left_out(engine, host, tmp_path, tag, message):
    write(tmp_path / "files/style.pt", {})
    write(tmp_path / "files/wide.pt", {}, widths=(48,))
    write(tmp_path / "files/nan.pt", {})
    data = torch.load(tmp_path / "files/nan.pt", weights_only=True)
    data[32][0]["linear.0.bias"][0] = float("nan")
    torch.save(data, tmp_path / "files/nan.pt")
    _, plain = generated(engine, host, "a cat")
    result, picture = generated(engine, host, f"a cat{tag}")
    assert np.array_equal(plain, picture)
    [warning] = result.warnings
    assert message in warning and tag in warning


def test_two_files_of_one_name_are_both_named(engine, host, tmp_path):
    for folder in "ab":
        write(tmp_path / "files" / folder / "style.pt", {})
    [warning] = generated(engine, host, "a cat<hypernet:style:1>")[0].warnings
    assert str(tmp_path / "files/a") in warning and str(tmp_path / "files/b") in warning


def test_the_list(host, tmp_path):
    write(tmp_path / "files/style.pt", {})
    [route] = host.routes()
    assert route.answer(Asked()) == [{"name": "style", "path": str(tmp_path / "files/style.pt")}]

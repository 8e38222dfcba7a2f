"""Torch's pickled files: what torch writes is read as it is, and nothing in a file is ever run."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.core.errors import InvalidModel
from modules.library.headers import read_header
from modules.library.pickle_format import LEGACY_MAGIC, SAFE_GLOBALS, Inert, inert_globals, read_legacy, read_zip
from modules.library.tensors import TensorInfo

READERS = {True: read_zip, False: read_legacy}


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def write_zip(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return path


def legacy(path: Path, pickled: bytes) -> Path:
    parts = [pickle.dumps(LEGACY_MAGIC, 2), pickle.dumps(1001, 2), pickle.dumps({}, 2), pickled]
    path.write_bytes(b"".join(parts))
    return path


def variety() -> dict[str, torch.Tensor]:
    shared = torch.arange(12.0)
    return {
        "half": torch.zeros(2, 3, dtype=torch.float16),
        "brain": torch.zeros(4, dtype=torch.bfloat16),
        "double": torch.zeros(1, dtype=torch.float64),
        "position_ids": torch.arange(77).unsqueeze(0),
        "flag": torch.zeros(3, dtype=torch.bool),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0),
        "transposed": torch.zeros(3, 5).t(),
        "part": shared[3:9].view(2, 3),
        "whole": shared,
    }


NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64", torch.bool: "BOOL",
         torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def described(tensors: dict[str, torch.Tensor]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(NAMES[value.dtype], tuple(value.shape)) for name, value in tensors.items()}


@pytest.mark.parametrize("as_zip", [True, False])
def test_reads_what_torch_writes(tmp_path: Path, as_zip: bool) -> None:
    tensors = variety()
    if as_zip:
        tensors |= {"e4m3": torch.zeros(2, 2).to(torch.float8_e4m3fn), "e5m2": torch.zeros(6).to(torch.float8_e5m2)}
    path = tmp_path / "model.ckpt"
    torch.save(tensors, path, _use_new_zipfile_serialization=as_zip)
    assert READERS[as_zip](path) == described(tensors)
    header = read_header(path)
    assert (header.layout, header.tensors) == ("pickle" if as_zip else "legacy_pickle", described(tensors))


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, as_zip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "trained.ckpt"
    torch.save({
        "epoch": 3, "global_step": 470000, "pytorch-lightning_version": "1.4.2",
        "callbacks": {callback: {"monitor": "loss", "best_model_score": np.float64(0.25), "best": np.float32(1)}},
        "optimizer_states": [optimizer.state_dict()], "state_dict": layer.state_dict(),
    }, path, _use_new_zipfile_serialization=as_zip)
    assert READERS[as_zip](path) == {"weight": TensorInfo("F32", (2, 3)), "bias": TensorInfo("F32", (2,))}
    # The same list of names is what torch's own restricted loader needs, and all that it needs.
    with torch.serialization.safe_globals([(kind, name) for name, kind in inert_globals().items()]):
        loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded["state_dict"]["weight"], layer.weight)
    assert isinstance(next(iter(loaded["callbacks"].values()))["best"], Inert)


def test_an_embedding_with_a_parameter_dict(tmp_path: Path) -> None:
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.zeros(2, 768))})
    path = tmp_path / "style.pt"
    torch.save({"string_to_token": {"*": 265}, "string_to_param": parameters, "name": "style", "step": 5}, path)
    assert read_zip(path) == {"string_to_param.*": TensorInfo("F32", (2, 768))}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_code_in_a_file_is_named_and_not_run(tmp_path: Path, protocol: int, container: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.ckpt"
    pickled = pickle.dumps({"state_dict": {"a": Payload(mark)}}, protocol)
    {"zip": write_zip, "legacy": legacy, "bare": Path.write_bytes}[container](path, pickled)
    with pytest.raises(InvalidModel, match=r"Unsafe: it names (posix|nt)\.system.*can run code"):
        read_header(path)
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists(), "the payload is a real one"


@pytest.mark.parametrize("name", [
    "builtins eval", "builtins exec", "builtins getattr", "__builtin__ eval", "subprocess Popen", "torch load",
    "torch.serialization load", "numpy load", "pickle loads", "runpy _run_code", "operator attrgetter",
    "torch._utils _rebuild_device_tensor_from_numpy", "collections OrderedDict.fromkeys", "torch.hub load",
    "modules.core.errors InvalidModel", "_codecs decode", "numpy.core.multiarray fromfile",
])
def test_only_the_fixed_list_of_names_is_accepted(tmp_path: Path, name: str) -> None:
    module, attribute = name.split(" ")
    by_opcode = [
        f"c{module}\n{attribute}\n.".encode(),
        b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(attribute)]) + attribute.encode()
        + b"\x93.",
    ]
    for pickled in by_opcode:
        with pytest.raises(InvalidModel, match="Unsafe: it names"):
            read_zip(write_zip(tmp_path / "model.ckpt", b"\x80\x04" + pickled))


def test_the_list_of_names_holds_nothing_that_acts() -> None:
    assert {name.split(".")[0] for name in SAFE_GLOBALS} == {
        "torch", "numpy", "pytorch_lightning", "collections", "_codecs", "builtins"}
    assert {name for name in SAFE_GLOBALS if name.startswith("builtins.")} == {"builtins.set", "builtins.bytearray"}


@pytest.mark.parametrize("opcode", [b"i__main__\nA\n", b"\x82\x01", b"\x97", b"Pabc\n"])
def test_opcodes_without_use_are_refused(tmp_path: Path, opcode: bytes) -> None:
    with pytest.raises(InvalidModel, match="has no place in a checkpoint"):
        read_zip(write_zip(tmp_path / "model.ckpt", b"\x80\x04(" + opcode + b"."))


def storage(elements: int, kind: bytes = b"FloatStorage", key: bytes = b"0") -> bytes:
    text = lambda value: b"X" + struct.pack("<I", len(value)) + value  # noqa: E731
    return (b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu")
            + b"J" + struct.pack("<i", elements) + b"tQ")


def rebuilt(elements: int, shape: tuple, strides: tuple, offset: int = 0, **names: bytes) -> bytes:
    function = b"ctorch._utils\n_rebuild_tensor_v2\n("
    rest = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, shape, strides, False, {}))
    return b"\x80\x02}X\x01\x00\x00\x00a" + function + storage(elements, **names) + rest + b"tRs."


def test_hand_made_pickles_are_as_torch_makes_them(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.ckpt", rebuilt(6, (2, 3), (3, 1)), _0=bytes(24))
    assert read_zip(path) == {"a": TensorInfo("F32", (2, 3))}


@pytest.mark.parametrize(("pickled", "reason"), [
    (rebuilt(6, (2, 4), (4, 1)), "does not fit its storage of 6"),
    (rebuilt(6, (2, 3), (3, 1), offset=1), "does not fit"),
    (rebuilt(1, (10**6, 10**6), (0, 0)), "does not fit its storage of 1"),
    (rebuilt(6, (2, 3), (10**9, 1)), "does not fit"),
    (rebuilt(6, (2, -3), (3, 1)), "shape of a tensor is damaged"),
    (rebuilt(6, (2, 3), (3,)), "shape of a tensor is damaged"),
    (rebuilt(6, (2.0, 3), (3, 1)), "shape of a tensor is damaged"),
    (rebuilt(7, (7,), (1,)), "truncated: storage '0' should have 28 bytes and has 24"),
    (rebuilt(6, (6,), (1,), key=b"1"), "truncated: storage '1' should have 24 bytes and has 0"),
    (rebuilt(-1, (1,), (1,)), "storage of its tensors is damaged"),
    (rebuilt(6, (6,), (1,), kind=b"Size"), "is damaged"),
    (b"\x80\x02}q\x00X\x05", "is damaged"),
    (b"\x80\x02", "is damaged"),
    (b"\x80\x02(((.", "is damaged"),
    (b"\x80\x02h\x07.", "is damaged"),
    (b"\x80\x02\xff.", "is damaged"),
    (b"", "is damaged"),
])
def test_damaged_pickles_are_refused(tmp_path: Path, pickled: bytes, reason: str) -> None:
    with pytest.raises(InvalidModel, match=reason):
        read_header(write_zip(tmp_path / "model.ckpt", pickled, _0=bytes(24)))


def test_bombs_are_bounded(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    assert read_zip(write_zip(tmp_path / "deep.ckpt", deep)) == {}
    deep_key = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."  # the hash of such a tuple overflows the C stack
    assert read_zip(write_zip(tmp_path / "key.ckpt", deep_key)) == {}
    laughs = b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1) for i in range(100)) + b"."
    assert read_zip(write_zip(tmp_path / "laughs.ckpt", laughs)) == {}
    memo = b"\x80\x02]r" + struct.pack("<I", 2**32 - 1) + b"."
    assert read_zip(write_zip(tmp_path / "memo.ckpt", memo)) == {}
    long = b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc."
    with pytest.raises(InvalidModel, match="1,099,511,627,776 bytes to be read at once"):
        read_zip(write_zip(tmp_path / "long.ckpt", long))
    with pytest.raises(InvalidModel, match="has 50,000,000 bytes"):
        read_zip(write_zip(tmp_path / "deflated.ckpt", bytes(50_000_000)))
    with pytest.raises(InvalidModel, match="more objects than any checkpoint"):
        read_zip(write_zip(tmp_path / "many.ckpt", b"\x80\x02" + b"N0" * 500_001 + b"."))


def test_truncated_and_foreign_archives(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(variety(), path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InvalidModel, match="model.ckpt is truncated or damaged"):
            read_header(path)
    for name, reason in (("a.txt", "no torch checkpoint"), ("model/constants.pkl", "TorchScript")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")
            if "/" in name:
                archive.writestr("model/data.pkl", pickle.dumps({}, 2))
        with pytest.raises(InvalidModel, match=reason):
            read_header(path)


def test_a_central_directory_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    size = 64 * 1024 * 1024
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(4 + size)
        file.seek(0, io.SEEK_END)
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, size, 4, 0))
    with pytest.raises(InvalidModel, match="67,108,864 bytes to be read at once"):
        read_header(path)


def test_a_pickle_that_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(InvalidModel, match="a pickle but no torch checkpoint"):
        read_header(path)

"""Headers of safetensors: what the format's own library writes, real files' variety, and damaged files."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import InvalidModel
from modules.library.safetensors_format import data_offset, read_safetensors
from modules.library.tensors import DTYPE_BITS, TensorInfo

TORCH_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL", torch.float64: "F64",
}


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(start: int, end: int, shape: list, dtype: str = "U8") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_agrees_with_the_formats_own_library(tmp_path: Path) -> None:
    tensors = {f"layer.{index}.weight": torch.zeros(index + 1, 3).to(kind) for index, kind in enumerate(TORCH_NAMES)}
    # As in real files: markers without elements, scalars of EMA, position_ids, keys of something else.
    tensors |= {
        "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0), "model_ema.decay": torch.tensor(0.5),
        "model_ema.num_updates": torch.tensor(7), "cond_stage_model.transformer.embeddings.position_ids":
        torch.zeros(1, 77, dtype=torch.int64), "double_blocks.0.img_attn.norm.key_norm.scale": torch.zeros(128),
        "denoiser.sigmas": torch.zeros(1000), "lora_unet_x.alpha": torch.tensor(4.0),
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"modelspec.title": "A", "ss_tag_frequency": '{"a": {"b": 1}}'})
    read, metadata = read_safetensors(path)
    assert read == {name: TensorInfo(TORCH_NAMES[value.dtype], tuple(value.shape)) for name, value in tensors.items()}
    assert metadata == {"modelspec.title": "A", "ss_tag_frequency": '{"a": {"b": 1}}'}
    with path.open("rb") as file:
        assert sum(info.bytes for info in read.values()) == path.stat().st_size - data_offset(file)


def test_no_tensor_is_read(tmp_path: Path) -> None:
    size = 8 * 1024**3
    path = write(tmp_path / "large.safetensors", {"weight": entry(0, size, [1024, 1024, 2048], "F32")})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)  # sparse: reading it would take seconds
    assert read_safetensors(path)[0] == {"weight": TensorInfo("F32", (1024, 1024, 2048))}


def test_types_below_a_byte_round_up() -> None:
    assert TensorInfo("F4", (3,)).bytes == 2
    assert TensorInfo("F6_E2M3", (4,)).bytes == 3
    assert TensorInfo("F32", ()).bytes == 4
    assert TensorInfo("F32", (0, 5)).bytes == 0
    assert set(TORCH_NAMES.values()) <= set(DTYPE_BITS)


@pytest.mark.parametrize(("header", "data", "reason"), [
    ({"a": entry(0, 4, [4])}, b"12", "truncated: 4 bytes expected, 2 found"),
    ({"a": entry(0, 4, [4])}, b"123456", "2 bytes behind its last tensor"),
    ({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}, b"123456", "'b' overlaps"),
    ({"a": entry(0, 2, [2]), "b": entry(4, 6, [2])}, b"123456", "'b' leaves a gap"),
    ({"a": entry(1, 3, [2])}, b"123", "'a' leaves a gap"),
    ({"a": entry(0, 4, [5])}, b"1234", "'a' needs 5 bytes and has 4"),
    ({"a": entry(4, 0, [4])}, b"1234", "'a' needs 4 bytes and has -4"),
    ({"a": entry(0, 4, [-2, -2])}, b"1234", "entry of 'a' is damaged"),
    ({"a": entry(0, 4, [True, 4])}, b"1234", "entry of 'a' is damaged"),
    ({"a": entry(0, 4, [2.0, 2])}, b"1234", "entry of 'a' is damaged"),
    ({"a": entry(0, 0, [2**62, 2**62])}, b"", "'a' needs"),
    ({"a": entry(0, 0, [1] * 65)}, b"", "entry of 'a' is damaged"),
    ({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0]}}, b"1234", "entry of 'a' is damaged"),
    ({"a": {"shape": [4], "data_offsets": [0, 4]}}, b"1234", "unknown type 'None'"),
    ({"a": entry(0, 4, [4], "NF4")}, b"1234", "unknown type 'NF4'"),
    ({"a": "b"}, b"", "entry of 'a' is damaged"),
    ({"__metadata__": {"a": 1}}, b"", "metadata"),
    ({"__metadata__": []}, b"", "metadata"),
    (b'{"a": {}, "a": {}}', b"", "a name occurs twice"),
    (b"{" * 100, b"", "damaged"),
    (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "damaged"),
    (b'{"a": [' + b"[]," * 2_000_001 + b"0]}", b"", "more entries than any model"),
    (b'{"a": "\xff\xfe"}', b"", "damaged"),
])
def test_damaged_headers_are_refused_with_the_reason(tmp_path: Path, header: object, data: bytes, reason: str) -> None:
    path = write(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(InvalidModel, match=reason):
        read_safetensors(path)


@pytest.mark.parametrize(("length", "reason"), [
    (1_000_000, "truncated: 1,000,008 bytes expected, 10 found"),
    (2**63, "claims 9,223,372,036,854,775,808 bytes"),
    (100_000_001, "claims 100,000,001 bytes"),
])
def test_the_length_of_a_header_is_bounded(tmp_path: Path, length: int, reason: str) -> None:
    path = write(tmp_path / "bad.safetensors", {}, length=length)
    with pytest.raises(InvalidModel, match=reason):
        read_safetensors(path)

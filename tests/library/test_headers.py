"""Reading any model file or folder: the content decides, not the name."""

import json
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import InvalidModel, NotFound
from modules.library.headers import TensorInfo, read_header, weight_files


def write_folder(path: Path) -> Path:
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
             "text_encoder": ["transformers", "CLIPTextModel"], "scheduler": ["diffusers", "DDIMScheduler"],
             "safety_checker": [None, None], "requires_safety_checker": False, "vae": ["diffusers", "AutoencoderKL"]}
    for name in ("unet", "text_encoder", "scheduler"):
        (path / name).mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "unet/config.json").write_text('{"attention_head_dim": 8}')
    (path / "scheduler/scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    save_file({"conv_in.weight": torch.zeros(4, 2)}, path / "unet/diffusion_pytorch_model.safetensors")
    torch.save({"embed.weight": torch.zeros(3, dtype=torch.float16)}, path / "text_encoder/pytorch_model.bin")
    return path


def test_a_safetensors_file_by_any_name(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "mislabelled.ckpt", metadata={"k": "v"})
    header = read_header(tmp_path / "mislabelled.ckpt")
    assert (header.layout, header.tensors, header.metadata) == ("safetensors", {"a": TensorInfo("F32", (2,))},
                                                                {"k": "v"})
    torch.save({"a": torch.zeros(2)}, tmp_path / "mislabelled.safetensors")
    assert read_header(str(tmp_path / "mislabelled.safetensors")).layout == "pickle"


def test_a_diffusers_folder(tmp_path: Path) -> None:
    header = read_header(write_folder(tmp_path / "model"))
    assert header.layout == "diffusers"
    assert header.tensors == {"unet.conv_in.weight": TensorInfo("F32", (4, 2)),
                              "text_encoder.embed.weight": TensorInfo("F16", (3,))}
    assert set(header.components) == {"unet", "text_encoder", "scheduler"}
    unet = header.components["unet"]
    assert (unet.kind, unet.config, unet.tensors) == (
        "UNet2DConditionModel", {"attention_head_dim": 8}, {"conv_in.weight": TensorInfo("F32", (4, 2))})
    assert unet.files == (str(tmp_path / "model/unet/diffusion_pytorch_model.safetensors"),)
    assert header.components["scheduler"].config == {"prediction_type": "v_prediction"}
    assert header.components["scheduler"].files == ()
    assert header.index["_class_name"] == "StableDiffusionPipeline"


def test_shards_are_put_together_and_missing_ones_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model") / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    first, second = (f"diffusion_pytorch_model-0000{index}-of-00002.safetensors" for index in (1, 2))
    save_file({"a": torch.zeros(2)}, folder / first)
    with pytest.raises(InvalidModel, match="unet is incomplete: the index"):
        read_header(folder.parent)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": second}}))
    with pytest.raises(InvalidModel, match=f"unet is incomplete: {second}"):
        read_header(folder.parent)
    save_file({"b": torch.zeros(3)}, folder / second)
    assert set(read_header(folder.parent).components["unet"].tensors) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(InvalidModel, match="no part of the model"):
        read_header(folder.parent)


@pytest.mark.parametrize(("names", "chosen"), [
    (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
    (["pytorch_model.bin", "model.fp16.safetensors"], "model.fp16.safetensors"),
    (["model.non_ema.safetensors", "model.fp16.safetensors"], "model.fp16.safetensors"),
    (["model.onnx", "flax_model.msgpack", "pytorch_model.bin", "openvino_model.bin"], "pytorch_model.bin"),
])
def test_the_plain_file_is_preferred(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in weight_files(tmp_path)] == [chosen]


def test_component_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "outside")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"../outside/unet": ["a", "b"], "..": ["a", "b"], "x": 1}))
    assert read_header(folder).components == {}


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "it is empty"),
    (b"\0" * 64, "zeros"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    (b"GGUF\x03\0\0\0" + bytes(30), "GGUF"),
    (b"hello, this is no model", "neither safetensors nor a torch checkpoint"),
    (b"cos\nsystem\n(S'true'\ntR.", "neither safetensors nor a torch checkpoint"),
    (b"\x80", "is damaged"),
])
def test_what_is_no_model_is_recognised(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=reason) as error:
        read_header(path)
    assert "model.safetensors" in str(error.value)


def test_folders_without_or_with_a_damaged_index(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="has no model_index.json"):
        read_header(tmp_path)
    for text in ("[]", "{", "[" * 100_000):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(InvalidModel, match="model_index.json is"):
            read_header(tmp_path)
    with pytest.raises(NotFound, match="gone.safetensors does not exist"):
        read_header(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_files_changed_at_random_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    path, tensors = tmp_path / "model", {"a.b": torch.zeros(2, 3), "c": torch.zeros(4, dtype=torch.float16)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    whole, chance = path.read_bytes(), random.Random(7)
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])
        try:
            read_header(path)
        except InvalidModel:
            refused += 1
    assert refused > 100


def test_an_entry_with_a_damaged_name(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é/data.pkl", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(InvalidModel, match="truncated or damaged"):
        read_header(path)

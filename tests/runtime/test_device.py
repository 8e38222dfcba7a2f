import dataclasses

import pytest
import torch

from modules.core.errors import InvalidRequest
from modules.runtime import device
from modules.runtime.device import DeviceInfo, Placement, choose

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
AMPERE = DeviceInfo("cuda", 0, "NVIDIA GeForce RTX 3060", 12 * 2**30, (8, 6), True, True)
TURING = DeviceInfo("cuda", 0, "NVIDIA GeForce RTX 2060", 6 * 2**30, (7, 5), True, False)
GTX16 = DeviceInfo("cuda", 0, "NVIDIA GeForce GTX 1660 Ti", 6 * 2**30, (7, 5), True, False)
SECOND = dataclasses.replace(AMPERE, index=1)
ROCM = DeviceInfo("rocm", 0, "AMD Radeon RX 7900 XTX", 24 * 2**30, (11, 0), True, True)
XPU = DeviceInfo("xpu", 0, "Intel Arc A770", 16 * 2**30, fast_fp16=True, fast_bf16=True)
MPS = DeviceInfo("mps", 0, "Apple GPU", 16 * 2**30, fast_fp16=True)
CPU = DeviceInfo("cpu", memory=8 * 2**30)
CPU_BF16 = dataclasses.replace(CPU, fast_bf16=True)


@pytest.mark.parametrize(("info", "flags", "where", "types"), [
    (AMPERE, {}, "cuda:0", (F16, F16, F16)),
    (SECOND, {}, "cuda:1", (F16, F16, F16)),
    (TURING, {}, "cuda:0", (F16, F16, F16)),
    (GTX16, {}, "cuda:0", (F32, F32, F32)),
    (ROCM, {}, "cuda:0", (F16, F16, F16)),
    (XPU, {}, "xpu:0", (F16, F16, F16)),
    (MPS, {}, "mps:0", (F16, F16, F32)),
    (AMPERE, {"no_half": True}, "cuda:0", (F32, F32, F32)),
    (AMPERE, {"precision": "full"}, "cuda:0", (F32, F32, F32)),
    (AMPERE, {"precision": "autocast"}, "cuda:0", (F16, F16, F16)),
    (AMPERE, {"no_half_vae": True}, "cuda:0", (F16, F16, F32)),
    (AMPERE, {"upcast_sampling": True}, "cuda:0", (F32, F16, F16)),
    (MPS, {"upcast_sampling": True, "no_half_vae": True}, "mps:0", (F32, F16, F32)),
    (AMPERE, {"use_cpu": ["all"]}, "cpu", (F32, F32, F32)),
    (AMPERE, {"use_cpu": "interrogate, sd"}, "cpu", (F32, F32, F32)),
    (AMPERE, {"use_cpu": ["interrogate"]}, "cuda:0", (F16, F16, F16)),
    (CPU, {}, "cpu", (F32, F32, F32)),
    (CPU, {"precision": "half"}, "cpu", (F32, F32, F32)),
    (CPU_BF16, {}, "cpu", (F32, F32, F32)),
    (CPU_BF16, {"precision": "half"}, "cpu", (BF16, F32, F32)),
    (CPU_BF16, {"precision": "half", "no_half": True}, "cpu", (F32, F32, F32)),
])
def test_placement_by_device_and_flags(info, flags, where, types):
    placement = choose(info, flags)
    assert placement.device == torch.device(where)
    assert tuple(placement.dtype(name) for name in ("unet", "text_encoder", "vae")) == types


def test_upcast_sampling_holds_half_and_casts_every_layer():
    placement = choose(AMPERE, {"upcast_sampling": True})
    assert placement.storage == F16 and placement.cast_above == 0
    assert choose(AMPERE, {}).storage is None


def test_what_overflows_in_half_precision_gets_the_range_of_float32():
    wide = [choose(info, {}).wide for info in (AMPERE, TURING, ROCM, XPU, MPS, CPU)]
    assert wide == [BF16, F32, BF16, BF16, F32, F32]


@pytest.mark.parametrize(("flags", "gib"), [
    ({}, 11), ({"always_gpu": True}, 12), ({"reserve_vram": 2.5}, 9.5), ({"reserve_vram": 0.0}, 12),
    ({"medvram": True}, 6), ({"medvram_sdxl": True}, 6), ({"lowvram": True, "medvram": True}, 2),
    ({"always_no_vram": True}, 1), ({"vram_budget": 3.5}, 3.5), ({"vram_budget": 40.0}, 11),
    ({"vram_budget": 8.0, "lowvram": True}, 2), ({"reserve_vram": 13.0}, 0), ({"medvram": False}, 11),
])
def test_flags_set_the_budget_and_nothing_else(flags, gib):
    assert device.vram_budget(AMPERE, flags) == gib * 2**30


def test_weights_wait_in_main_memory_unless_the_device_shares_it():
    assert choose(AMPERE, {}).home == choose(CPU, {}).home == torch.device("cpu")
    assert choose(MPS, {}).home == torch.device("mps", 0)


def test_what_torch_keeps_for_itself_counts_as_available(monkeypatch):
    readings = {"mem_get_info": (3000, 8000), "memory_reserved": 500, "memory_allocated": 200}
    for name, value in readings.items():
        monkeypatch.setattr(torch.cuda, name, lambda where, value=value: value)
    assert device.available(torch.device("cuda", 0)) == 3300


def test_default_placement_is_exact_on_the_cpu():
    assert Placement() == choose(CPU, {})


def test_detect_finds_this_machine(monkeypatch):
    found = device.detect({})
    assert found.kind == ("cuda" if torch.cuda.is_available() else "cpu") and found.memory > 2**30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for index in ("7", "two", -1):
        with pytest.raises(InvalidRequest, match="device"):
            device.detect({"device_id": index})


def test_detect_reads_the_card_that_is_asked_for(monkeypatch):
    class Properties:
        name, total_memory, major, minor = "NVIDIA H200", 140 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    expected = DeviceInfo("cuda", 1, "NVIDIA H200", 140 * 2**30, (9, 0), True, True)
    assert device.detect({"device_id": "1"}) == expected


def test_memory_readings_add_up():
    reading = device.memory(torch.device("cpu"))
    assert reading["cuda"] == {"error": "unavailable"}
    assert 0 < reading["ram"]["free"] < reading["ram"]["total"]
    assert 0 < reading["ram"]["used"] < reading["ram"]["total"]
    assert device.available(torch.device("cpu")) <= reading["ram"]["total"]


def test_attention_belongs_to_where_the_model_is_placed(monkeypatch):
    monkeypatch.setattr(device, "available", lambda where: 1 << 30)
    plain = torch.nn.functional.scaled_dot_product_attention
    for info, flags, direct in ((AMPERE, {}, False), (AMPERE, {"use_cpu": ["all"]}, True), (CPU, {}, True),
                                (CPU, {"opt_sub_quad_attention": True}, False)):
        placement = device.with_attention(choose(info, flags), info, flags)
        assert (placement.attention.core is plain) is direct
        assert placement == choose(info, flags) and not placement.channels_last
    assert device.with_attention(choose(CPU, {}), CPU, {"opt_channelslast": True}).channels_last


def test_fast_fp16_is_for_the_whole_process_and_off_without_the_flag():
    for flags, expected in (({"fast_fp16": True}, True), ({}, False)):
        device.configure(flags)
        assert torch.backends.cuda.matmul.allow_fp16_accumulation is expected

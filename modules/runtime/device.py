"""What the machine can compute on, and where and in what precision a model is placed on it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from modules.core.errors import InvalidRequest
from modules.runtime.attention_choice import AttentionChooser, open_attention

GIB = 1024**3
SMALL_COMPONENT = GIB
# What a driver's context and the screen take, in GiB.
RESERVED = 1.0
# A1111's and Forge's words for how much of a device may be used, in GiB.
BUDGETS = {"medvram": 6.0, "medvram_sdxl": 6.0, "lowvram": 2.0, "always_no_vram": 1.0}


@dataclass(frozen=True)
class DeviceInfo:
    """One device as found: ``kind`` is cuda, rocm, xpu, mps or cpu; ``memory`` in bytes; ``capability`` of NVIDIA."""

    kind: str
    index: int = 0
    name: str = ""
    memory: int = 0
    capability: tuple[int, int] = (0, 0)
    fast_fp16: bool = False
    fast_bf16: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a model computes and in what precision.

    ``denoiser``, ``text_encoder`` and ``vae`` are the types computed in. Denoiser weights that would take
    ``cast_above`` bytes or more in that type stay in a narrower one (``storage``, or the file's own where that is
    None) and are cast layer by layer at each call; everything else is converted once, on loading. ``wide`` is the
    narrowest type with the range of float32 that is computed in well, for what overflows in float16. ``attention``
    chooses how attention is computed; ``channels_last`` holds feature maps with their channels together, as tensor
    cores read them.
    """

    device: torch.device = torch.device("cpu")
    denoiser: torch.dtype = torch.float32
    text_encoder: torch.dtype = torch.float32
    vae: torch.dtype = torch.float32
    storage: torch.dtype | None = None
    cast_above: int = SMALL_COMPONENT
    wide: torch.dtype = torch.float32
    attention: AttentionChooser = field(default_factory=AttentionChooser, compare=False, repr=False)
    channels_last: bool = False

    @property
    def home(self) -> torch.device:
        """Where weights are loaded and wait: main memory, which an Apple GPU shares."""
        return self.device if self.device.type == "mps" else torch.device("cpu")

    def dtype(self, component: str) -> torch.dtype:
        """Return the type in which ``unet``, ``text_encoder`` or ``vae`` computes."""
        types = {"unet": self.denoiser, "text_encoder": self.text_encoder, "vae": self.vae}
        return types[component]


def choose(info: DeviceInfo, flags: Mapping[str, Any]) -> Placement:
    """Return the placement for a device under A1111's precision flags; pure.

    ``flags`` may hold ``no_half``, ``no_half_vae``, ``upcast_sampling`` (bool), ``precision`` (``full``, ``half``,
    ``autocast``) and ``use_cpu`` (names; ``all`` or ``sd`` puts the model on the CPU).
    """
    if info.kind == "cpu" or {"all", "sd"} & set(_names(flags.get("use_cpu"))):
        return _on_cpu(info, flags)
    device = torch.device("cuda" if info.kind == "rocm" else info.kind, info.index)
    if flags.get("no_half") or flags.get("precision") == "full" or _half_gives_nan(info):
        return Placement(device)
    half = torch.float16 if info.fast_fp16 or not info.fast_bf16 else torch.bfloat16
    vae = torch.float32 if flags.get("no_half_vae") or info.kind == "mps" else half
    wide = torch.bfloat16 if info.fast_bf16 else torch.float32
    if flags.get("upcast_sampling"):
        return Placement(device, torch.float32, half, vae, storage=half, cast_above=0, wide=wide)
    return Placement(device, half, half, vae, wide=wide)


def with_attention(placement: Placement, info: DeviceInfo, flags: Mapping[str, Any]) -> Placement:
    """Return ``placement`` with the attention backends of its device, and A1111's flags for them and for speed."""
    kind = "cpu" if placement.device.type == "cpu" else info.kind
    chooser = open_attention(kind, info.capability, flags, lambda: available(placement.device))
    return dataclasses.replace(placement, attention=chooser, channels_last=bool(flags.get("opt_channelslast")))


def configure(flags: Mapping[str, Any]) -> None:
    """Set what holds for this whole process: with ``fast_fp16``, NVIDIA's matrix products in float16 are summed in it.

    That doubles their rate on GeForce cards and costs some accuracy; convolutions are not touched.
    """
    torch.backends.cuda.matmul.allow_fp16_accumulation = bool(flags.get("fast_fp16"))


def vram_budget(info: DeviceInfo, flags: Mapping[str, Any]) -> int:
    """Return how many bytes of the device the engine may use; pure.

    ``flags`` may hold ``vram_budget`` and ``reserve_vram`` (GiB), those of ``BUDGETS``, and ``always_gpu``, which
    leaves nothing to others. The smallest counts.
    """
    reserved = 0.0 if flags.get("always_gpu") else flags.get("reserve_vram")
    limits = [size for name, size in BUDGETS.items() if flags.get(name)]
    if flags.get("vram_budget"):
        limits.append(float(flags["vram_budget"]))
    return int(max(0.0, min([info.memory / GIB - (RESERVED if reserved is None else reserved), *limits])) * GIB)


def _on_cpu(info: DeviceInfo, flags: Mapping[str, Any]) -> Placement:
    """Compute in float32; ``--precision half`` takes bfloat16 where the processor has instructions for it."""
    if flags.get("precision") == "half" and info.kind == "cpu" and info.fast_bf16 and not flags.get("no_half"):
        return Placement(torch.device("cpu"), torch.bfloat16, torch.float32, torch.float32)
    return Placement(torch.device("cpu"))


def _half_gives_nan(info: DeviceInfo) -> bool:
    """GeForce GTX 16 cards return NaN from half-precision convolutions."""
    return info.kind == "cuda" and "GTX 16" in info.name


def _names(value: object) -> Collection[str]:
    if not value:
        return ()
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    return [str(name) for name in value] if isinstance(value, (list, tuple, set, frozenset)) else ()


def detect(flags: Mapping[str, Any] | None = None) -> DeviceInfo:
    """Return the device to use: the accelerator that ``device_id`` selects (default 0), or the CPU without one.

    Raises ``InvalidRequest`` when ``device_id`` names a device that is not there.
    """
    chosen = (flags or {}).get("device_id")
    index = 0 if chosen in (None, "") else _index(chosen)
    if torch.cuda.is_available():
        _check_index(index, torch.cuda.device_count())
        return _cuda(index)
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        _check_index(index, torch.xpu.device_count())
        found = torch.xpu.get_device_properties(index)
        return DeviceInfo("xpu", index, found.name, found.total_memory, fast_fp16=True, fast_bf16=True)
    if torch.backends.mps.is_available():
        return DeviceInfo("mps", 0, "Apple GPU", ram()["total"], fast_fp16=True)
    return DeviceInfo("cpu", 0, "CPU", ram()["total"], fast_bf16=_cpu_has_bf16())


def _cuda(index: int) -> DeviceInfo:
    found = torch.cuda.get_device_properties(index)
    capability = (int(found.major), int(found.minor))
    rocm = torch.version.hip is not None
    return DeviceInfo(
        "rocm" if rocm else "cuda", index, found.name, found.total_memory, capability,
        fast_fp16=True, fast_bf16=rocm or capability >= (8, 0),
    )


def _index(chosen: object) -> int:
    text = str(chosen)
    if not text.isdecimal():
        raise InvalidRequest(f"--device-id {text!r} is not a device's number.", "Use 0 for the first device.")
    return int(text)


def _check_index(index: int, count: int) -> None:
    if index >= count:
        raise InvalidRequest(f"There is no device {index}; this machine has {count}.", "Change --device-id.")


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())


def ram() -> dict[str, int]:
    """Return main memory in bytes: ``free`` for programs, ``used`` by this process, ``total``."""
    import psutil

    system = psutil.virtual_memory()
    return {
        "free": int(system.available),
        "used": int(psutil.Process(os.getpid()).memory_info().rss),
        "total": int(system.total),
    }


def available(device: torch.device) -> int:
    """Return the bytes that can still be allocated on ``device``."""
    if device.type in ("cuda", "xpu"):
        backend = torch.get_device_module(device)
        free, _ = backend.mem_get_info(device)
        return int(free + backend.memory_reserved(device) - backend.memory_allocated(device))
    return ram()["free"]


def memory(device: torch.device) -> dict[str, Any]:
    """Return ``ram`` and ``cuda`` readings in the shape of ``/sdapi/v1/memory``."""
    return {"ram": ram(), "cuda": _cuda_memory(device)}


def _cuda_memory(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"error": "unavailable"}
    free, total = torch.cuda.mem_get_info(device)
    stats = torch.cuda.memory_stats(device)

    def reading(name: str) -> dict[str, int]:
        return {kind: stats.get(f"{name}_bytes.all.{kind}", 0) for kind in ("current", "peak")}

    return {
        "system": {"free": free, "used": total - free, "total": total},
        "active": reading("active"),
        "allocated": reading("allocated"),
        "reserved": reading("reserved"),
        "inactive": reading("inactive_split"),
        "events": {"retries": stats.get("num_alloc_retries", 0), "oom": stats.get("num_ooms", 0)},
    }

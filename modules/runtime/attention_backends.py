"""The ways to compute attention, as data: PyTorch's kernels, optional packages, and our own in pieces.

Every one maps query, key and value [rows, heads, tokens, head width] to the attended values of the same form. Optional
packages are imported when they are first used, and only where they are installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from modules.runtime.attention_chunks import Chunking, by_heads, in_float32, split, sub_quadratic

Core = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HALF = (torch.float16, torch.bfloat16)
ACCELERATORS = ("cuda", "rocm", "xpu", "mps")


class ShapeClass(NamedTuple):
    """What decides which kernel is best: sizes are rounded up to a power of two, given as its exponent."""

    device: str
    dtype: torch.dtype
    width: int
    queries: int
    keys: int
    heads: int

    def score_bytes(self) -> int:
        """Return the bytes of the largest matrix of scores in this class."""
        return self.dtype.itemsize << (self.queries + self.keys + self.heads)


def shape_class(query: torch.Tensor, key: torch.Tensor) -> ShapeClass:
    """Return the class of a call; sizes of one class differ by less than a factor of two."""
    rows, heads, tokens, width = query.shape
    return ShapeClass(query.device.type, query.dtype, width, (tokens - 1).bit_length(),
                      (key.shape[-2] - 1).bit_length(), (rows * heads - 1).bit_length())


def every_shape(shape: ShapeClass) -> bool:
    """Accept any class."""
    return True


@dataclass(frozen=True)
class AttentionBackend:
    """One way to compute attention, by the name under which settings and flags ask for it.

    ``bind`` takes the bytes that are free and returns the function to call. ``automatic`` ones are exact and worth a
    measurement wherever they suit. ``quadratic`` ones hold all scores at once. ``kinds`` are those of ``DeviceInfo``,
    ``capability`` the lowest of NVIDIA's, ``package`` what must be installed.
    """

    name: str
    bind: Callable[[int], Core]
    automatic: bool = False
    quadratic: bool = False
    kinds: tuple[str, ...] = (*ACCELERATORS, "cpu")
    capability: tuple[int, int] = (0, 0)
    package: str = ""
    suits: Callable[[ShapeClass], bool] = every_shape


def fixed(core: Core) -> Callable[[int], Core]:
    """Return a ``bind`` for a function that does not depend on memory."""
    return lambda free: core


def kernel(*kernels: SDPBackend) -> Core:
    """Return PyTorch's attention confined to ``kernels``."""
    allowed = list(kernels)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(allowed):
            return scaled_dot_product_attention(query, key, value)

    return attend


def xformers(flash: bool, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute with xformers, which takes [rows, tokens, heads, width]; ``flash`` asks for FlashAttention in it."""
    from xformers import ops

    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    operator = ops.MemoryEfficientAttentionFlashAttentionOp if flash else None
    attended: torch.Tensor = ops.memory_efficient_attention(q, k, v, op=operator).transpose(1, 2)
    return attended


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute with the package flash-attn, which takes [rows, tokens, heads, width] (Dao 2023)."""
    from flash_attn import flash_attn_func

    attended: torch.Tensor = flash_attn_func(*(tensor.transpose(1, 2) for tensor in (query, key, value)))
    return attended.transpose(1, 2)


def sage_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute with SageAttention, which quantises queries and keys to 8 bits (Zhang et al. 2024): near, not exact."""
    from sageattention import sageattn

    attended: torch.Tensor = sageattn(query, key, value, tensor_layout="HND", is_causal=False)
    return attended


def half_up_to(width: int, multiple: int = 1) -> Callable[[ShapeClass], bool]:
    """Return whether a class is in half precision with heads no wider than ``width`` and a multiple of ``multiple``."""
    return lambda shape: shape.dtype in HALF and shape.width <= width and shape.width % multiple == 0


SDP = AttentionBackend("sdp", fixed(scaled_dot_product_attention), automatic=True)
LAST_RESORT = AttentionBackend("float32", lambda free: partial(in_float32, free=free))


def backends(flags: Mapping[str, Any]) -> tuple[AttentionBackend, ...]:
    """Return every backend, the first choice first, cut and tuned as A1111's flags say.

    PyTorch's own choice is first among the exact ones: where it is as fast as the others, nothing wraps the call.
    """
    chunking, flash = chunking_from(flags), bool(flags.get("xformers_flash_attention"))
    native, nvidia = ("cuda", "rocm"), ("cuda",)
    return (
        SDP,
        AttentionBackend("cudnn", fixed(kernel(SDPBackend.CUDNN_ATTENTION)), automatic=True, kinds=nvidia,
                         capability=(8, 0), suits=half_up_to(128, multiple=8)),
        AttentionBackend("flash", fixed(kernel(SDPBackend.FLASH_ATTENTION)), automatic=True, kinds=native,
                         capability=(8, 0), suits=half_up_to(256, multiple=8)),
        AttentionBackend("efficient", fixed(kernel(SDPBackend.EFFICIENT_ATTENTION)), automatic=True, kinds=native),
        AttentionBackend("xformers", fixed(partial(xformers, flash)), automatic=not flags.get("disable_xformers"),
                         kinds=nvidia, package="xformers", suits=half_up_to(256) if flash else every_shape),
        AttentionBackend("flash-attn", fixed(flash_attention), automatic=True, kinds=native, capability=(8, 0),
                         package="flash_attn", suits=half_up_to(256, multiple=8)),
        AttentionBackend("sage", fixed(sage_attention), kinds=nvidia, capability=(8, 0), package="sageattention",
                         suits=half_up_to(128)),
        AttentionBackend("sdp-no-mem", fixed(kernel(SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION,
                                                    SDPBackend.MATH))),
        AttentionBackend("sub-quadratic", lambda free: partial(sub_quadratic, chunking=chunking, free=free)),
        AttentionBackend("Doggettx", lambda free: partial(split, free=free)),
        AttentionBackend("InvokeAI", lambda free: partial(split, free=free)),
        AttentionBackend("V1", fixed(by_heads)),
        AttentionBackend("None", fixed(kernel(SDPBackend.MATH)), quadratic=True),
        LAST_RESORT,
    )


def usable(backend: AttentionBackend, kind: str, capability: tuple[int, int]) -> bool:
    """Return whether ``backend`` can work on a device at all; imports nothing."""
    return (kind in backend.kinds and (kind != "cuda" or capability >= backend.capability)
            and (not backend.package or importlib.util.find_spec(backend.package) is not None))


def chunking_from(flags: Mapping[str, Any]) -> Chunking:
    """Return how A1111's flags cut sub-quadratic attention; the threshold is given in percent of free memory."""
    percent = flags.get("sub_quad_chunk_threshold")
    default = Chunking()
    return Chunking(
        flags.get("sub_quad_q_chunk_size") or default.queries,
        flags.get("sub_quad_kv_chunk_size") or default.keys,
        default.threshold if percent is None else percent / 100,
    )


# A1111's flag, as a name of ``Flags`` -> the backend it prefers; where several are given, the first of these counts.
PREFERENCES: Mapping[str, str] = {
    "use_sage_attention": "sage",
    "use_flash_attention": "flash-attn",
    "xformers": "xformers",
    "xformers_flash_attention": "xformers",
    "opt_sdp_no_mem_attention": "sdp-no-mem",
    "opt_sdp_attention": "sdp",
    "opt_sub_quad_attention": "sub-quadratic",
    "opt_split_attention": "Doggettx",
    "opt_split_attention_invokeai": "InvokeAI",
    "opt_split_attention_v1": "V1",
    "disable_opt_split_attention": "None",
}


def preferred_by(flags: Mapping[str, Any]) -> str:
    """Return the backend that the command line prefers, empty for none."""
    return next((name for flag, name in PREFERENCES.items() if flags.get(flag)), "")

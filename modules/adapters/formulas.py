"""What each kind of network changes about a weight: functions of the weight, and of a file's tensors.

Both are computed with in float32, or in float64 where the tensors come in it.

LoRA: Hu et al. 2021. LoCon, LoHa, LoKr, IA3, GLoRA, OFT, BOFT: Yeh et al. 2023 (LyCORIS) and the papers it names.
DoRA: Liu et al. 2024. Names of tensors are those of the files people share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from modules.library.network_names import DOWN, MIDDLE, SCALE, UP, UP_BIAS

if TYPE_CHECKING:
    from torch import Tensor

    Parts = Mapping[str, Tensor]
    Change = Callable[[Tensor], Tensor]


def weight_change(parts: Parts, rank: int | None = None) -> Change | None:
    """Return the change of a module's weight at scale 1, None where ``parts`` are of no known kind.

    ``rank`` is how many of the ranks of a LoRA count. What it returns raises ``RuntimeError`` or ``ValueError`` for a
    weight of another shape.
    """
    for needed, make in KINDS:
        if all(name in parts for name in needed):
            wide = {name: _wide(part) for name, part in parts.items()}
            change = make(wide, rank)
            return _decomposed(change, wide[SCALE]) if SCALE in parts else change
    return None


def bias_change(parts: Parts) -> Change | None:
    """Return the change of a module's bias, None where there is none."""
    found = parts.get("diff_b", parts.get("b_norm"))
    if UP_BIAS in parts and DOWN in parts:
        found = _wide(parts[UP_BIAS]) * _scale(parts, parts[DOWN].shape[0])
    return None if found is None else lambda bias: _wide(found).reshape(bias.shape)


def _wide(part: Tensor) -> Tensor:
    return part if part.element_size() > 4 else part.float()


def factors(parts: Parts, rank: int | None = None) -> tuple[Tensor, Tensor] | None:
    """Return [out, r] and [r, n] whose product is the change of a weight with ``n`` values for each output.

    None where ``parts`` are not of that kind. Raises ``ValueError`` for a rank of 0.
    """
    if UP not in parts or DOWN not in parts or SCALE in parts:
        return None
    up, down = _wide(parts[UP]).flatten(1), _wide(parts[DOWN])
    scale = _scale(parts, down.shape[0])
    if MIDDLE in parts:
        import torch

        return scale * up, torch.einsum("ij...,jr->ir...", _wide(parts[MIDDLE]), down.flatten(1)).flatten(1)
    kept = slice(None) if rank is None else slice(0, max(rank, 0))
    return scale * up[:, kept], down.flatten(1)[kept]


def _low_rank(parts: Parts, rank: int | None) -> Change:
    found = factors({name: part for name, part in parts.items() if name != SCALE}, rank)
    assert found is not None
    up, down = found
    return lambda weight: (up @ down).reshape(weight.shape)


def _hadamard(parts: Parts, rank: int | None) -> Change:
    scale = _scale(parts, parts["hada_w1_b"].shape[0])

    def half(number: int) -> Tensor:
        first, second = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        core = parts.get(f"hada_t{number}")
        return first @ second if core is None else _tucker(core, first, second)

    return lambda weight: (scale * half(1) * half(2)).reshape(weight.shape)


def _kronecker(parts: Parts, rank: int | None) -> Change:
    ranks = [parts[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in parts]
    scale = _scale(parts, ranks[-1]) if ranks else 1.0

    def factor(number: int) -> Tensor:
        if f"lokr_w{number}" in parts:
            return parts[f"lokr_w{number}"]
        first, second = parts[f"lokr_w{number}_a"], parts[f"lokr_w{number}_b"]
        core = parts.get(f"lokr_t{number}")
        return first @ second if core is None else _tucker(core, first, second)

    def change(weight: Tensor) -> Tensor:
        import torch

        one, other = factor(1), factor(2)
        one = one.reshape(*one.shape, *(1,) * (other.ndim - one.ndim))
        return (scale * torch.kron(one, other)).reshape(weight.shape)
    return change


def _scaled(parts: Parts, rank: int | None) -> Change:
    factor, on_input = parts["weight"].flatten(), bool(parts["on_input"].item())

    def change(weight: Tensor) -> Tensor:
        places = [1] * weight.ndim
        places[1 if on_input else 0] = -1
        return weight * factor.reshape(places)
    return change


def _multiplied(parts: Parts, rank: int | None) -> Change:
    """IA3 (Liu et al. 2022) as PEFT writes it: factors [out, 1], or [1, in] of what goes in."""
    factor = parts["ia3_l"]
    return lambda weight: weight.flatten(1).mul(factor - 1).reshape(weight.shape)


def _difference(parts: Parts, rank: int | None) -> Change:
    found = parts["diff"] if "diff" in parts else parts["w_norm"]
    return lambda weight: found.reshape(weight.shape)


def _generalized(parts: Parts, rank: int | None) -> Change:
    """GLoRA (Chavan et al. 2023): a change in proportion to the weight, and one on its own."""
    a1, a2, b1, b2 = (parts[f"{name}.weight"].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    # The two of each pair have changed places since; the rank, which is the smaller side, tells where it is.
    older = a1.shape[0] < a1.shape[1]
    outer, inner = ((a2, b2), (a1, b1)) if older else ((a1, b1), (a2, b2))
    scale = _scale(parts, inner[0].shape[0])

    def change(weight: Tensor) -> Tensor:
        flat = weight.flatten(1)
        return (scale * (outer[1] @ inner[1] + flat @ outer[0] @ inner[0])).reshape(weight.shape)
    return change


def _rotated(parts: Parts, rank: int | None) -> Change:
    """OFT (Qiu et al. 2023) and, with blocks of four dimensions, BOFT (Liu et al. 2023): rotations of the outputs."""
    blocks, rescale = parts.get("oft_blocks", parts.get("oft_diag")), parts.get("rescale")
    assert blocks is not None
    limit = float(parts["alpha"]) if "alpha" in parts and "oft_blocks" in parts else 0.0

    def change(weight: Tensor) -> Tensor:
        turned = weight.flatten(1)
        if "oft_diag" in parts:
            turned = _by_block(blocks.transpose(-1, -2), turned)
        elif blocks.ndim == 3:
            turned = _by_block(_rotation(blocks, limit * weight.shape[0]).transpose(-1, -2), turned)
        else:
            turned = _butterfly(_rotation(blocks, limit * weight.shape[0]), turned)
        turned = turned.reshape(weight.shape)
        if rescale is not None:
            turned = turned * rescale.reshape(-1, *(1,) * (weight.ndim - 1))
        return turned - weight
    return change


def _rotation(blocks: Tensor, limit: float) -> Tensor:
    """Return the rotations of skew-symmetric matrices (Cayley), no longer than ``limit`` where that is not 0."""
    import torch

    skew = blocks - blocks.transpose(-1, -2)
    if limit:
        length = torch.linalg.vector_norm(skew) + 1e-8
        skew = skew * (length.clamp(max=limit) / length)
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _by_block(blocks: Tensor, weight: Tensor) -> Tensor:
    """Return each group of rows of ``weight`` [out, n] multiplied with its block [groups, size, size]."""
    return (blocks @ weight.reshape(blocks.shape[0], blocks.shape[1], -1)).reshape(weight.shape)


def _butterfly(factors: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight`` [out, n] multiplied with each factor [groups, size, size] among rows ever farther apart."""
    rows, half = weight.shape[0], factors.shape[-1] // 2
    for level, factor in enumerate(factors):
        apart = 2**level * half
        near = weight.reshape(rows // (2 * apart), 2, apart, -1).transpose(1, 2).reshape(rows, -1)
        turned = _by_block(factor, near)
        weight = turned.reshape(rows // (2 * apart), apart, 2, -1).transpose(1, 2).reshape(rows, -1)
    return weight


def _tucker(core: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the tensor of a core [i, j, ...] with ``first`` [i, out] and ``second`` [j, in]: [out, in, ...]."""
    import torch

    return torch.einsum("ij...,ip,jr->pr...", core, first, second)


def _decomposed(change: Change, magnitude: Tensor) -> Change:
    """Return the change that brings each direction of the changed weight to its ``magnitude`` (DoRA).

    Along the outputs where there is one number for each of them, as in PEFT, else along the inputs.
    """
    def decomposed(weight: Tensor) -> Tensor:
        import torch

        merged = weight + change(weight)
        along_outputs = magnitude.shape[0] == weight.shape[0] and magnitude.numel() == weight.shape[0]
        axis = 0 if along_outputs else 1
        places = [1] * weight.ndim
        places[axis] = weight.shape[axis]
        length = torch.linalg.vector_norm(merged.transpose(0, axis).flatten(1), dim=1).reshape(places)
        return merged * (magnitude.reshape(places) / length.clamp(min=1e-12)) - weight
    return decomposed


def _scale(parts: Parts, rank: int) -> float:
    if not rank:
        raise ValueError("its rank is 0")
    return float(parts["alpha"]) / rank if "alpha" in parts else 1.0


KINDS: tuple[tuple[tuple[str, ...], Callable[[Parts, int | None], Change]], ...] = (
    ((UP, DOWN), _low_rank),
    (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _hadamard),
    (("lokr_w1",), _kronecker), (("lokr_w1_a", "lokr_w1_b"), _kronecker),
    (("weight", "on_input"), _scaled), (("ia3_l",), _multiplied),
    (("a1.weight", "a2.weight", "b1.weight", "b2.weight"), _generalized),
    (("oft_blocks",), _rotated), (("oft_diag",), _rotated),
    (("diff",), _difference), (("w_norm",), _difference),
)

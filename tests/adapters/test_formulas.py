"""Each kind of network against its formula, written out with NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import scipy.linalg
import torch

from modules.adapters import formulas
from modules.library.network_names import NAMES

OUT, IN, RANK = 12, 8, 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def exact(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def tucker(core: Any, first: Any, second: Any) -> np.ndarray:
    """Sum over both ranks: core [i, j, h, w], first [i, out], second [j, in]."""
    result = np.zeros((first.shape[1], second.shape[1], *core.shape[2:]))
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            result += first[i][:, None, None, None] * second[j][None, :, None, None] * core[i, j]
    return result


WEIGHT, KERNEL = drawn(OUT, IN), drawn(OUT, IN, 3, 3)
UP, DOWN = drawn(OUT, RANK), drawn(RANK, IN)
HADA = {"hada_w1_a": drawn(OUT, RANK), "hada_w1_b": drawn(RANK, IN, seed=1), "hada_w2_a": drawn(OUT, RANK, seed=2),
        "hada_w2_b": drawn(RANK, IN, seed=3)}
ALPHA = {"alpha": torch.tensor(1.5)}


def lora() -> Any:
    return {"lora_up.weight": UP, "lora_down.weight": DOWN, **ALPHA}, WEIGHT, exact(UP) @ exact(DOWN) * 0.5


def lora_without_alpha() -> Any:
    return {"lora_up.weight": UP, "lora_down.weight": DOWN}, WEIGHT, exact(UP) @ exact(DOWN)


def locon() -> Any:
    down = drawn(RANK, IN, 3, 3)
    expected = np.einsum("or,rihw->oihw", exact(UP), exact(down)) * 0.5
    return {"lora_up.weight": UP[..., None, None], "lora_down.weight": down, **ALPHA}, KERNEL, expected


def locon_tucker() -> Any:
    middle = drawn(RANK, RANK, 3, 3)
    expected = tucker(exact(middle), exact(UP).T, exact(DOWN)) * 0.5
    return {"lora_up.weight": UP[..., None, None], "lora_down.weight": DOWN[..., None, None],
            "lora_mid.weight": middle, **ALPHA}, KERNEL, expected


def loha() -> Any:
    first, second, third, fourth = map(exact, HADA.values())
    return {**HADA, **ALPHA}, WEIGHT, (first @ second) * (third @ fourth) * 0.5


def loha_tucker() -> Any:
    cores = {"hada_t1": drawn(RANK, RANK, 3, 3), "hada_t2": drawn(RANK, RANK, 3, 3, seed=9)}
    parts = {"hada_w1_a": drawn(RANK, OUT), "hada_w1_b": drawn(RANK, IN), "hada_w2_a": drawn(RANK, OUT, seed=5),
             "hada_w2_b": drawn(RANK, IN, seed=6)}
    halves = [tucker(exact(cores[f"hada_t{n}"]), exact(parts[f"hada_w{n}_a"]), exact(parts[f"hada_w{n}_b"]))
              for n in (1, 2)]
    return {**parts, **cores, **ALPHA}, KERNEL, halves[0] * halves[1] * 0.5


def lokr_full() -> Any:
    one, other = drawn(3, 2), drawn(4, 4)
    return {"lokr_w1": one, "lokr_w2": other, **ALPHA}, WEIGHT, np.kron(exact(one), exact(other))


def lokr_low_rank() -> Any:
    one, first, second = drawn(3, 2), drawn(4, RANK), drawn(RANK, 4)
    expected = np.kron(exact(one), exact(first) @ exact(second)) * 0.5
    return {"lokr_w1": one, "lokr_w2_a": first, "lokr_w2_b": second, **ALPHA}, WEIGHT, expected


def lokr_convolution() -> Any:
    one, other = drawn(3, 2), drawn(4, 4, 3, 3)
    expected = np.kron(exact(one)[..., None, None], exact(other))
    return {"lokr_w1": one, "lokr_w2": other}, KERNEL, expected


def ia3_on_output() -> Any:
    factor = drawn(OUT)
    return {"weight": factor[:, None], "on_input": torch.tensor(False)}, WEIGHT, exact(WEIGHT) * exact(factor)[:, None]


def ia3_of_peft() -> Any:
    factor = drawn(OUT, 1)
    return {"ia3_l": factor}, WEIGHT, exact(WEIGHT) * exact(factor) - exact(WEIGHT)


def ia3_of_peft_on_input() -> Any:
    factor = drawn(1, IN)
    return {"ia3_l": factor}, WEIGHT, exact(WEIGHT) * exact(factor) - exact(WEIGHT)


def ia3_on_input() -> Any:
    factor = drawn(IN)
    return {"weight": factor, "on_input": torch.tensor(True)}, WEIGHT, exact(WEIGHT) * exact(factor)[None]


def difference() -> Any:
    found = drawn(OUT, IN, seed=4)
    return {"diff": found}, WEIGHT, exact(found)


def norm() -> Any:
    found = drawn(OUT)
    return {"w_norm": found, "b_norm": found}, drawn(OUT, seed=1), exact(found)


def glora_of_older_files() -> Any:
    parts = {"a1.weight": drawn(RANK, IN), "a2.weight": drawn(IN, RANK), "b1.weight": drawn(RANK, IN, seed=2),
             "b2.weight": drawn(OUT, RANK)}
    a1, a2, b1, b2 = map(exact, parts.values())
    return {**parts, **ALPHA}, WEIGHT, (b2 @ b1 + exact(WEIGHT) @ a2 @ a1) * 0.5


def glora() -> Any:
    parts = {"a1.weight": drawn(IN, RANK), "a2.weight": drawn(RANK, IN), "b1.weight": drawn(OUT, RANK),
             "b2.weight": drawn(RANK, IN, seed=2)}
    a1, a2, b1, b2 = map(exact, parts.values())
    return {**parts, **ALPHA}, WEIGHT, (b1 @ b2 + exact(WEIGHT) @ a1 @ a2) * 0.5


def glora_of_a_square() -> Any:
    parts = {"a1.weight": drawn(IN, RANK), "a2.weight": drawn(RANK, IN), "b1.weight": drawn(IN, RANK, seed=2),
             "b2.weight": drawn(RANK, IN, seed=3)}
    a1, a2, b1, b2 = map(exact, parts.values())
    return {**parts, **ALPHA}, WEIGHT[:IN], (b1 @ b2 + exact(WEIGHT[:IN]) @ a1 @ a2) * 0.5


def rotation(blocks: torch.Tensor) -> list[np.ndarray]:
    skews = [exact(block) - exact(block).T for block in blocks]
    return [(np.eye(len(skew)) + skew) @ np.linalg.inv(np.eye(len(skew)) - skew) for skew in skews]


def oft() -> Any:
    blocks = drawn(3, 4, 4) * 0.1
    whole = scipy.linalg.block_diag(*(turn.T for turn in rotation(blocks)))
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.0)}, WEIGHT, whole @ exact(WEIGHT) - exact(WEIGHT)


def oft_with_a_limit() -> Any:
    blocks = drawn(3, 4, 4)
    skew = exact(blocks) - exact(blocks).transpose(0, 2, 1)
    skew *= min(1.0, 0.01 * OUT / np.sqrt((skew**2).sum()))
    turns = [np.linalg.inv(np.eye(4) - one).T @ (np.eye(4) + one).T for one in skew]
    whole = scipy.linalg.block_diag(*turns)
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.01)}, WEIGHT, whole @ exact(WEIGHT) - exact(WEIGHT)


def boft() -> Any:
    factors, weight = drawn(2, 4, 4, 4) * 0.1, drawn(16, IN)
    found = exact(weight)
    for level, factor in enumerate(factors):
        apart = 2**level * 2
        # Rows that belong together lie ``apart`` from each other: gather them, turn, and put them back.
        order = [group * 2 * apart + place + side * apart for group in range(16 // (2 * apart))
                 for place in range(apart) for side in range(2)]
        turned = scipy.linalg.block_diag(*rotation(factor)) @ found[order]
        found = np.empty_like(found)
        found[order] = turned
    return {"oft_blocks": factors}, weight, found - exact(weight)


def dora() -> Any:
    magnitude = drawn(1, IN).abs()
    merged = exact(WEIGHT) + exact(UP) @ exact(DOWN)
    expected = merged / np.linalg.norm(merged, axis=0, keepdims=True) * exact(magnitude) - exact(WEIGHT)
    return {"lora_up.weight": UP, "lora_down.weight": DOWN, "dora_scale": magnitude}, WEIGHT, expected


def dora_along_outputs() -> Any:
    magnitude = drawn(OUT).abs()
    merged = exact(WEIGHT) + exact(UP) @ exact(DOWN)
    expected = merged / np.linalg.norm(merged, axis=1, keepdims=True) * exact(magnitude)[:, None] - exact(WEIGHT)
    return {"lora_up.weight": UP, "lora_down.weight": DOWN, "dora_scale": magnitude}, WEIGHT, expected


KINDS = [lora, lora_without_alpha, locon, locon_tucker, loha, loha_tucker, lokr_full, lokr_low_rank, lokr_convolution,
         ia3_on_output, ia3_on_input, ia3_of_peft, ia3_of_peft_on_input, difference, norm, glora, glora_of_older_files,
         glora_of_a_square, oft, oft_with_a_limit, boft, dora, dora_along_outputs]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_its_formula(kind: Any) -> None:
    parts, weight, expected = kind()
    found = exact(formulas.weight_change(parts)(weight))
    assert np.abs(expected).max() > 0.01
    assert np.linalg.norm(found - expected) <= 1e-6 * max(np.linalg.norm(expected), np.linalg.norm(exact(weight)))
    wide = {name: part.double() for name, part in parts.items()}
    assert np.linalg.norm(exact(formulas.weight_change(wide)(weight.double())) - expected) <= 1e-8 * max(
        np.linalg.norm(expected), np.linalg.norm(exact(weight)))
    narrow = {name: part if name in ("alpha", "on_input") else part.half() for name, part in parts.items()}
    halved = exact(formulas.weight_change(narrow)(weight))
    assert np.linalg.norm(halved - expected) <= 2e-3 * np.linalg.norm(expected)


def test_a_lower_rank_takes_the_first_ones() -> None:
    parts = {"lora_up.weight": UP, "lora_down.weight": DOWN, **ALPHA}
    found = formulas.weight_change(parts, 2)(WEIGHT)
    np.testing.assert_allclose(exact(found), exact(UP)[:, :2] @ exact(DOWN)[:2] * 0.5, atol=1e-5)


def test_biases_are_added() -> None:
    assert torch.equal(formulas.bias_change({"diff_b": UP[:, 0]})(torch.zeros(OUT)), UP[:, 0])
    assert formulas.bias_change({"diff": WEIGHT}) is None


@pytest.mark.parametrize("config", [
    peft.IA3Config(target_modules=["key", "wide"], feedforward_modules=["wide"]),
    peft.LoraConfig(r=2, lora_alpha=3, target_modules=["key", "wide"], lora_bias=True)])
def test_files_of_peft_are_what_it_makes_of_them(config: Any) -> None:
    torch.manual_seed(0)
    plain = torch.nn.ModuleDict({"key": torch.nn.Linear(IN, OUT), "wide": torch.nn.Linear(IN, OUT)})
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    wrapped = peft.PeftModel(plain, config)
    for name, value in wrapped.named_parameters():
        if "lora" in name or "ia3" in name:
            value.data = torch.randn_like(value)
    saved = peft.get_peft_model_state_dict(wrapped)
    merged = wrapped.merge_and_unload().state_dict()
    for module in ("key", "wide"):
        parts = {NAMES[name.split(f".{module}.")[1]]: value.detach() for name, value in saved.items()
                 if f".{module}." in name}
        if isinstance(config, peft.LoraConfig):
            parts["alpha"] = torch.tensor(float(config.lora_alpha))
        change = formulas.weight_change(parts)(before[f"{module}.weight"])
        torch.testing.assert_close(before[f"{module}.weight"] + change, merged[f"{module}.weight"])
        bias = formulas.bias_change(parts)
        assert (bias is None) == isinstance(config, peft.IA3Config)
        if bias is not None:
            expected = merged[f"{module}.bias"] - before[f"{module}.bias"]
            torch.testing.assert_close(bias(before[f"{module}.bias"]), expected)


def test_what_is_of_no_known_kind_changes_nothing() -> None:
    assert formulas.weight_change({"alpha": torch.tensor(1.0)}) is None
    assert formulas.weight_change({"lora_up.weight": UP}) is None


def test_a_rank_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="rank"):
        formulas.weight_change({"lora_up.weight": UP[:, :0], "lora_down.weight": DOWN[:0]})

"""Differences by block, against the same norms in float64 over whole tensors."""

import math

import pytest
import torch
from safetensors.torch import save_file

from modules.core.difference import Comparison, check
from modules.core.errors import Interrupted, InvalidModel, InvalidRequest, NotFound
from modules.core.merge_blocks import blocks, side_of
from modules.merging import difference
from modules.merging.difference import perform
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sdxl import write_tiny_sdxl
from tests.merging.test_merge import Progress

EMBEDDING = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
GROUPS = {
    "TE": ("cond_stage_model.",), "VAE": ("first_stage_model.",),
    "IN00": ("model.diffusion_model.input_blocks.0.", "model.diffusion_model.time_embed."),
    "M00": ("model.diffusion_model.middle_block.",), "OUT03": ("model.diffusion_model.output_blocks.3.",),
    "OUT07": ("model.diffusion_model.output_blocks.7.", "model.diffusion_model.out."),
}


def norms(a, b, prefixes):
    chosen = [name for name in a if name.startswith(prefixes) and a[name].is_floating_point()]
    apart = torch.cat([(a[name].double() - b[name].double()).flatten() for name in chosen])
    return float(apart.norm() / torch.cat([a[name].double().flatten() for name in chosen]).norm())


def compared(library, a="a", b="b", progress=None):
    return perform(Comparison(a, b), library, progress or Progress())


def test_every_block_has_its_relative_norm(place, monkeypatch):  # noqa: F811
    monkeypatch.setattr(difference, "PIECE", 1000)
    folder = place.folders.checkpoints[0]
    a, b = tiny_sd1(0, torch.float16), tiny_sd1(1, torch.float32)
    save_file(a, folder / "a.safetensors")
    save_file(b, folder / "b.safetensors")
    progress = Progress()
    found = compared(place, progress=progress)
    shares = {block["block"]: block["difference"] for block in found.result["blocks"]}
    assert list(shares) == ["TE", *blocks(side_of(a))[1:], "VAE"] and progress.share == pytest.approx(1.0)
    for block, prefixes in GROUPS.items():
        assert shares[block] == pytest.approx(norms(a, b, prefixes), rel=1e-9), block
    assert sum(block["elements"] for block in found.result["blocks"]) == sum(
        one.numel() for one in a.values() if one.is_floating_point())
    assert found.warnings == ()


def test_only_what_was_changed_differs_and_layouts_do_not_matter(place):  # noqa: F811
    folder = place.folders.checkpoints[0]
    write_tiny_sd1(folder / "a", "diffusers")
    changed = tiny_sd1()
    changed[EMBEDDING] = changed[EMBEDDING] * 1.5
    save_file(changed, folder / "b.safetensors")
    found = compared(place).result["blocks"]
    assert {block["block"] for block in found if block["difference"]} == {"TE"}
    assert [block["tensors"] - block["equal"] for block in found if block["block"] == "TE"] == [1]


def test_what_cannot_be_compared_is_left_out_and_said(place):  # noqa: F811
    folder = place.folders.checkpoints[0]
    write_tiny_sd1(folder / "a.safetensors", takes="inpaint")
    write_tiny_sd1(folder / "b.safetensors", vae=False)
    found = compared(place)
    assert len(found.warnings) == 2 and "VAE" not in {block["block"] for block in found.result["blocks"]}
    assert "not in b.safetensors" in found.warnings[0] and "input_blocks.0.0.weight" in found.warnings[1]


def test_zeros_have_no_relative_difference(place):  # noqa: F811
    folder = place.folders.checkpoints[0]
    zero = {name: one * 0 if name.startswith("first_stage") else one for name, one in tiny_sd1().items()}
    save_file(zero, folder / "a.safetensors")
    write_tiny_sd1(folder / "b.safetensors")
    found = {name: compared(place, "a", name).result["blocks"][-1] for name in "ab"}
    assert found["b"]["difference"] is None and found["a"]["difference"] == 0.0


def test_bad_models_are_named(place):  # noqa: F811
    folder = place.folders.checkpoints[0]
    write_tiny_sd1(folder / "a.safetensors")
    write_tiny_sdxl(folder / "xl.safetensors")
    bad = tiny_sd1()
    bad[EMBEDDING][0, 0] = math.nan
    save_file(bad, folder / "bad.safetensors")
    with pytest.raises(InvalidModel, match="xl"):
        compared(place, "a", "xl")
    with pytest.raises(InvalidModel, match="TE holds NaN"):
        compared(place, "a", "bad")
    with pytest.raises(NotFound):
        compared(place, "a", "none")
    with pytest.raises(Interrupted):
        compared(place, "a", "a", Progress(stop_at=0.5))
    with pytest.raises(InvalidRequest, match="Model B"):
        check(Comparison("a", ""))

"""Tiny models, written once for all tests of families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.families import detect
from modules.library.headers import read_header
from modules.runtime.device import Placement
from tests.fixtures.tiny_models import write_tiny_sd1

SUFFIX = {"safetensors": ".safetensors", "ckpt": ".ckpt", "diffusers": ""}


def load(path, vae_path=None, placement=None):
    family, variant = detect(read_header(path))
    return family, family.load(variant, str(path), vae_path and str(vae_path), placement or Placement())


@pytest.fixture(scope="session")
def tiny_paths(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {layout: write_tiny_sd1(folder / f"tiny{suffix}", layout) for layout, suffix in SUFFIX.items()}


@pytest.fixture(scope="session")
def tiny(tiny_paths):
    return load(tiny_paths["safetensors"])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def relative(ours, theirs) -> float:
    """Return the largest difference relative to the largest value."""
    return float((ours - theirs).abs().max().detach() / theirs.abs().max().detach())

"""LoRAs by name: one rule for prompts and for merges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.adapters.files import find_network, named
from modules.core.errors import NotFound
from modules.library.files import Library, folders
from modules.library.hashes import HashCache

FILES = (("amber", "blue"), ("blue", "amber"), ("cyan", "old"), ("dark", "old"))


@pytest.mark.parametrize(("name", "found"), [
    ("amber", [FILES[0]]), ("blue", [FILES[1]]), ("old", [FILES[2], FILES[3]]), ("Amber", []), ("", []),
])
def test_the_name_of_a_file_comes_before_the_name_it_was_trained_under(name: str, found: list[tuple[str, str]]) -> None:
    assert named(FILES, name, lambda file: file[0], lambda file: file[1]) == found


@pytest.fixture
def library(tmp_path: Path) -> Library:
    found = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    place = found.folders.lora[0]
    place.mkdir(parents=True)
    for stem, alias in FILES:
        save_file({"x": torch.zeros(1)}, place / f"{stem}.safetensors", {"ss_output_name": alias})
    return found


@pytest.mark.parametrize(("name", "found"), [("amber", "amber"), ("old", "cyan")])
def test_a_merge_finds_what_a_prompt_calls(library: Library, name: str, found: str) -> None:
    assert find_network(name, library).stem == found


@pytest.mark.parametrize("name", ["AMBER", "amber.safetensors", "x/amber"])
def test_what_a_prompt_does_not_find_a_merge_does_not_find(library: Library, name: str) -> None:
    with pytest.raises(NotFound, match=f"no lora named '{name}'") as raised:
        find_network(name, library)
    assert "amber" in str(raised.value.hint)

import json
import zipfile

import pytest
import torch
from PIL import Image

from modules.core.errors import DarkroomError, NotFound
from modules.training import dataset


def test_hexcodes_agree_without_variation_selectors():
    assert dataset.normalise_hexcode("2764-FE0F-200D-1F525") == "2764-200d-1f525"


def test_labels_hold_variants_by_their_base(packages):
    labels = dataset.read_labels(packages[1])
    dark = labels["1f44b-1f3ff"]
    assert (dark.base, dark.tone, dark.group) == ("waving hand", "dark", "people")
    assert "1f1e6" not in labels


def test_prepared_pictures_have_labels_and_one_size(data):
    assert data.rgba.shape == (9, 4, 32, 32) and data.rgba.dtype == torch.uint8
    assert {entry.label for entry in data.entries} >= {"red circle", "waving hand: dark skin tone"}


def test_the_archive_is_a_zip_with_an_index(archive):
    with zipfile.ZipFile(archive) as found:
        index = json.loads(found.read("index.json"))
        assert len(index) == 9 and "00008.webp" in found.namelist()


def test_padding_is_transparent_and_colour_does_not_bleed_from_it():
    picture = Image.new("RGBA", (8, 4), (200, 0, 0, 255))
    squared = dataset.square(picture, 4)
    assert squared.size == (4, 4)
    assert squared.getpixel((1, 0))[3] == 0
    assert squared.getpixel((1, 1)) == (200, 0, 0, 255)
    half = Image.new("RGBA", (4, 4))
    half.paste((200, 0, 0, 255), (0, 0, 1, 4))
    red, green, _, alpha = dataset.square(half, 2).getpixel((0, 0))
    assert red in (199, 200) and green == 0 and alpha in (127, 128)


def test_loading_restricts_groups_and_tones(archive):
    assert len(dataset.load(archive, tones=False).entries) == 8
    assert {entry.group for entry in dataset.load(archive, ("animals",)).entries} == {"animals"}
    with pytest.raises(NotFound, match="flags"):
        dataset.load(archive, ("flags",))


def test_loading_says_what_to_run_first(tmp_path):
    with pytest.raises(NotFound, match="prepare"):
        dataset.load(tmp_path / "none.zip")


def test_fractions_are_uniform_and_repeatable():
    values = [dataset.fraction("a", str(n)) for n in range(2000)]
    assert dataset.fraction("a", "1") == values[1] != dataset.fraction("b", "1")
    assert 0.46 < sum(values) / len(values) < 0.54 and min(values) >= 0 and max(values) < 1


def test_a_base_and_its_tones_are_on_one_side(data):
    train, held = dataset.split(data.entries, 0.5)
    assert sorted(train + held) == list(range(9)) and train and held
    assert not {data.entries[i].base for i in train} & {data.entries[i].base for i in held}


def npm(folder, text):
    """Put a program called npm into ``folder``."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def test_fetching_packs_both_packages_by_name(tmp_path, monkeypatch):
    npm(tmp_path, 'echo "$@" >> "$(dirname "$0")/asked"; echo pack.tgz')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert dataset.fetch(tmp_path) == (tmp_path / "pack.tgz", tmp_path / "pack.tgz")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[:2] for line in asked] == [
        ["pack", "@lobehub/fluent-emoji-3d"], ["pack", "emojibase-data"],
    ]


def test_fetching_reports_what_went_wrong(tmp_path, monkeypatch):
    npm(tmp_path, "echo no network >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DarkroomError, match="no network"):
        dataset.fetch(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NotFound, match="Node"):
        dataset.fetch(tmp_path)

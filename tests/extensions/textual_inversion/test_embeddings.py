from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from extensions.textual_inversion.embeddings import describe, found, load
from extensions.textual_inversion.pictures import sequence
from modules.plugin import InvalidModel
from tests.extensions.textual_inversion.files import drawn, hidden, picture, write

KINDS = [("pt", ".pt"), ("parameters", ".pt"), ("legacy", ".pt"), ("bin", ".bin"), ("safetensors", ".safetensors"),
         ("text", ".png"), ("bits", ".png"), ("bits", ".webp")]


@pytest.mark.parametrize(("kind", "suffix"), KINDS)
def test_every_kind_of_file_gives_its_vectors(tmp_path, kind, suffix):
    vectors = drawn(3, 32)
    write(tmp_path / f"style{suffix}", vectors, kind)
    [one] = found([tmp_path])
    assert (one.error, one.widths, one.vectors) == ("", {"": 32}, 3)
    torch.testing.assert_close(load(one.stamp)[""], vectors)
    if kind in ("pt", "parameters", "text", "bits"):
        assert (one.step, one.checkpoint, one.checkpoint_name) == (4999, "81761151", "v1-5")
    names = {"text": ("ignored", "style"), "bits": ("inside", "style")}
    assert one.names == names.get(kind, ("style",))


def test_a_single_vector_may_be_flat(tmp_path):
    write(tmp_path / "one.bin", drawn(1, 8), "bin")
    [one] = found([tmp_path])
    assert one.vectors == 1 and load(one.stamp)[""].shape == (1, 8)


def test_both_parts_of_sdxl_are_read(tmp_path):
    save_file({"clip_l": drawn(2, 64), "clip_g": drawn(2, 128)}, tmp_path / "xl.safetensors")
    [one] = found([tmp_path])
    assert one.widths == {"clip_l": 64, "clip_g": 128} and one.vectors == 2


def test_the_mixing_sequence_is_the_plain_recurrence():
    seed, expected = 0, []
    for _ in range(1000):
        seed = (1664525 * seed + 1013904223) % 2**32
        expected.append(seed % 255)
    assert sequence(1000).tolist() == expected


def test_previews_are_no_embeddings(tmp_path):
    write(tmp_path / "style.pt", drawn(1, 8), "pt")
    for name in ("style.png", "style.preview.png", "other.preview.png"):
        picture().save(tmp_path / name)
    assert [one.file for one in found([tmp_path])] == ["style.pt"]


def test_a_picture_without_an_embedding_says_so(tmp_path):
    black = np.full((32, 32, 3), 255, dtype=np.uint8)
    black[:, [10, 20]] = 0
    Image.fromarray(black).save(tmp_path / "columns.png")
    picture().save(tmp_path / "plain.webp")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    errors = {one.file: one.error for one in found([tmp_path])}
    assert "holds no embedding" in errors["columns.png"] and "holds no embedding" in errors["plain.webp"]
    assert "broken.png cannot be read" in errors["broken.png"]


def test_a_damaged_text_chunk_is_named(tmp_path):
    cut = hidden(drawn(1, 8)).crop((0, 0, 40, 64))
    cut.save(tmp_path / "cut.png")
    [one] = found([tmp_path])
    assert one.error


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_pickle_is_never_run(tmp_path, capsys):
    torch.save({"string_to_param": {"*": drawn(1, 8)}, "extra": Code()}, tmp_path / "code.pt")
    [one] = found([tmp_path])
    assert "print" in one.error
    with pytest.raises(InvalidModel, match="print"):
        load(one.stamp)
    assert "run" not in capsys.readouterr().out


def test_nan_is_refused_and_other_models_are_no_embeddings(tmp_path):
    write(tmp_path / "nan.pt", drawn(1, 8) * float("nan"), "pt")
    save_file({"lora_up": drawn(2, 2), "lora_down": drawn(2, 2)}, tmp_path / "lora.safetensors")
    lora, nan = found([tmp_path])
    assert "2 tensors" in lora.error
    with pytest.raises(InvalidModel, match=r"nan\.pt holds NaN"):
        load(nan.stamp)


def test_a_replaced_file_is_read_anew(tmp_path):
    path = write(tmp_path / "style.pt", drawn(1, 8), "pt")
    before = found([tmp_path])[0]
    write(path, drawn(4, 8), "pt")
    assert found([tmp_path])[0].vectors == 4 and describe(before.stamp).vectors == 1


def test_folders_that_link_to_themselves_end(tmp_path: Path):
    write(tmp_path / "below" / "style.pt", drawn(1, 8), "pt")
    (tmp_path / "below" / "again").symlink_to(tmp_path)
    assert len(found([tmp_path])) == 1

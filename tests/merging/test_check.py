"""Files read to their end."""

import hashlib
import math

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import Interrupted, InvalidRequest, NotFound
from modules.core.inspection import Check, check
from modules.library.files import CHECKPOINT, LORA, Library, folders
from modules.library.hashes import HashCache
from modules.merging import check as checking
from modules.merging.check import perform
from tests.fixtures.tiny_models import write_tiny_sd1
from tests.merging.test_merge import Progress


@pytest.fixture
def library(tmp_path):
    found = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    for kind in (CHECKPOINT, LORA):
        found.folders.of(kind)[0].mkdir(parents=True)
    return found


def test_bad_values_are_found_wherever_they_are(library, monkeypatch):
    monkeypatch.setattr(checking, "PIECE", 4)
    late = torch.ones(11)
    late[9] = math.nan
    tensors = {"late": late, "inf": torch.tensor([1.0, -math.inf], dtype=torch.float16), "zero": torch.zeros(3),
               "good": torch.tensor([-7.5]), "whole": torch.tensor([99]), "empty": torch.zeros(0),
               "eight": torch.tensor([math.nan]).to(torch.float8_e4m3fn)}
    save_file(tensors, library.folders.lora[0] / "bad.safetensors")
    found = perform(Check(LORA, "bad", hashes=False), library, Progress()).result
    assert found["hashes"] == {} and found["values"] == {
        "tensors": 7, "largest": 7.5, "nan": {"count": 2, "names": ["late", "eight"]},
        "infinite": {"count": 1, "names": ["inf"]}, "zero": {"count": 1, "names": ["zero"]}, "alphas": {}}


def test_alphas_are_counted_by_part(library):
    tensors = {f"{part}_{i}.alpha": torch.tensor(alpha) for i in range(2)
               for part, alpha in (("lora_unet", 8.0), ("lora_te_x", 0.5))}
    save_file(tensors | {"lora_unet_9.alpha": torch.tensor(1.0)}, library.folders.lora[0] / "a.safetensors")
    found = perform(Check(LORA, "a", hashes=False), library, Progress()).result["values"]
    assert found["alphas"] == {"unet": {"1": 1, "8": 2}, "text_encoder": {"0.5": 2}}


def test_hashes_are_those_of_the_file_and_of_its_tensors(library):
    path = library.folders.lora[0] / "a.safetensors"
    save_file({"a": torch.arange(5.0)}, path, {"note": "x"})
    found = perform(Check(LORA, "a", values=False), library, Progress()).result["hashes"]
    content = path.read_bytes()
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["addnet"] == hashlib.sha256(content[-20:]).hexdigest()
    assert (library.hashes.cached(path), library.hashes.cached_addnet(path)) == (found["sha256"], found["addnet"])


@pytest.mark.parametrize("layout", ["safetensors", "ckpt", "diffusers"])
def test_a_checkpoint_is_read_whole_and_can_be_stopped(library, layout):
    suffix = {"diffusers": ""}.get(layout, f".{layout}")
    write_tiny_sd1(library.folders.checkpoints[0] / f"m{suffix}", layout)
    progress = Progress()
    found = perform(Check(CHECKPOINT, "m"), library, progress).result
    assert progress.share == 1.0 and found["values"]["nan"]["count"] == 0 and found["values"]["largest"] > 0
    with pytest.raises(Interrupted):
        perform(Check(CHECKPOINT, "m", hashes=False), library, Progress(stop_at=0.5))


def test_what_is_not_there_or_nothing_to_do_is_said(library):
    with pytest.raises(NotFound):
        perform(Check(LORA, "none"), library, Progress())
    with pytest.raises(InvalidRequest, match="kind"):
        perform(Check("lamp", "a"), library, Progress())
    with pytest.raises(InvalidRequest, match="Nothing"):
        check(Check(LORA, "a", hashes=False, values=False))

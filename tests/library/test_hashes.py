"""Hashes: the right ones, computed once, cancellable, and remembered for as long as the file is the same."""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from modules.core.errors import Interrupted
from modules.library import hashes
from modules.library.hashes import HashCache, file_sha256, legacy_hash, short_hash


@pytest.fixture
def cache(tmp_path: Path) -> HashCache:
    return HashCache(tmp_path / "cache/hashes.sqlite")


def test_known_digests(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, "abc"
    assert file_sha256(tmp_path / "abc") == digest
    assert short_hash(digest) == "ba7816bf8f"
    large = os.urandom(10_000_000)
    (tmp_path / "large").write_bytes(large)
    assert file_sha256(tmp_path / "large") == hashlib.sha256(large).hexdigest()
    assert file_sha256(tmp_path / "large", offset=9) == hashlib.sha256(large[9:]).hexdigest()
    assert legacy_hash(tmp_path / "large") == hashlib.sha256(large[0x100000:0x110000]).hexdigest()[:8]
    assert legacy_hash(tmp_path) == ""


def test_computed_once_and_shared_through_the_file(tmp_path: Path, cache: HashCache, monkeypatch) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"abc")
    assert cache.cached(path) is None
    digest = cache.sha256(path)
    monkeypatch.setattr(hashes, "file_sha256", lambda *_: pytest.fail("computed again"))
    assert cache.sha256(path) == cache.cached(path) == digest
    other = HashCache(tmp_path / "cache/hashes.sqlite")
    assert other.cached(path) == digest
    os.utime(path, ns=(1, 1))
    assert other.cached(path) is None
    path.unlink()
    assert cache.cached(path) is None


def test_a_missing_file_and_one_that_changes_meanwhile(tmp_path: Path, cache: HashCache) -> None:
    with pytest.raises(FileNotFoundError):
        cache.sha256(tmp_path / "gone")
    path = tmp_path / "growing"
    path.write_bytes(b"abc")

    def grow() -> None:
        if path.stat().st_size == 3:
            path.write_bytes(b"abcd")

    cache.sha256(path, grow)
    assert cache.cached(path) is None


def test_cancelled_while_reading_and_while_waiting(tmp_path: Path, cache: HashCache) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(bytes(20_000_000))
    calls = []

    def cancel() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        cache.sha256(path, cancel)
    assert len(calls) == 2 and cache.cached(path) is None

    reading, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reading.set()
        go_on.wait(10)

    def stop() -> None:
        raise Interrupted("stop")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.sha256, path, hold)
        assert reading.wait(10)
        with pytest.raises(Interrupted):
            cache.sha256(path, stop)
        go_on.set()
        assert first.result() == hashlib.sha256(bytes(20_000_000)).hexdigest()


def test_many_threads_compute_one_file_once(tmp_path: Path, cache: HashCache, monkeypatch) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"abc")
    computed = []
    original = hashes.file_sha256
    monkeypatch.setattr(hashes, "file_sha256", lambda *arguments: computed.append(1) or original(*arguments))
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: cache.sha256(path), range(32)))
    assert (len(digests), len(computed)) == (1, 1)


def test_the_hash_of_a_lora_leaves_out_the_header(tmp_path: Path, cache: HashCache) -> None:
    tensors = {"lora.alpha": np.arange(6, dtype=np.float32)}
    for name, title in (("a", "one"), ("b", "another title")):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"title": title})
    expected = hashlib.sha256(np.arange(6, dtype="<f4").tobytes()).hexdigest()
    assert save(tensors).endswith(np.arange(6, dtype="<f4").tobytes())
    for name in ("a", "b"):
        assert cache.addnet(tmp_path / f"{name}.safetensors") == expected
    assert cache.sha256(tmp_path / "a.safetensors") != cache.sha256(tmp_path / "b.safetensors")
    (tmp_path / "c.pt").write_bytes(b"abc")
    assert cache.addnet(tmp_path / "c.pt") == hashlib.sha256(b"abc").hexdigest()


def test_a_diffusers_folder(tmp_path: Path, cache: HashCache) -> None:
    folder = tmp_path / "model"
    for part, name, content in (("vae", "diffusion_pytorch_model.safetensors", b"v"), ("unet", "model.bin", b"u")):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_bytes(content)
    (folder / "model_index.json").write_text(json.dumps({}))
    lines = [f"unet/model.bin {hashlib.sha256(b'u').hexdigest()}\n",
             f"vae/diffusion_pytorch_model.safetensors {hashlib.sha256(b'v').hexdigest()}\n"]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert cache.cached(folder) is None
    assert cache.sha256(folder) == cache.cached(folder) == digest
    (folder / "model_index.json").write_text(json.dumps({"a": 1}))
    assert cache.cached(folder) == digest
    (folder / "unet/model.bin").write_bytes(b"uu")
    assert cache.cached(folder) is None


def test_a_damaged_database_is_begun_anew(tmp_path: Path) -> None:
    path, database = tmp_path / "model.ckpt", tmp_path / "hashes.sqlite"
    path.write_bytes(b"abc")
    database.write_bytes(b"this is no database, " * 100)
    cache = HashCache(database)
    digest = cache.sha256(path)
    cache.close()
    assert HashCache(database).cached(path) == digest


def test_without_a_place_to_write_hashes_are_kept_in_memory(tmp_path: Path) -> None:
    path, database = tmp_path / "model.ckpt", tmp_path / "file/hashes.sqlite"
    path.write_bytes(b"abc")
    (tmp_path / "file").write_bytes(b"no folder")
    cache = HashCache(database)
    assert cache.sha256(path) == cache.cached(path)

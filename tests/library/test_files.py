"""Folders and flags as in A1111, listing, and finding a model by any of its names."""

import hashlib
import os
from pathlib import Path

import pytest

from modules.core.errors import NotFound
from modules.library.files import Folders, Library, folders
from modules.library.hashes import HashCache, file_sha256

ROOT = Path("/program")
UPSCALERS = ("ESRGAN", "RealESRGAN", "BSRGAN", "DAT", "SwinIR", "ScuNET", "HAT")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(folders(tmp_path, {}), HashCache(tmp_path / "cache/hashes.sqlite"))


def put(library: Library, name: str, content: bytes = b"x", kind: str = "checkpoint") -> Path:
    path = library.folders.of(kind)[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(library: Library, kind: str = "checkpoint") -> list[str]:
    return [file.name for file in library.files(kind)]


def test_the_usual_folders() -> None:
    found = folders(ROOT, {})
    models = ROOT / "models"
    assert found == Folders(
        root=ROOT, data_dir=ROOT, models_dir=models, checkpoints=(models / "Stable-diffusion",), checkpoint_files=(),
        vae=(models / "VAE",), vae_approx=(models / "VAE-approx",), lora=(models / "Lora",),
        embeddings=(ROOT / "embeddings",), esrgan=tuple(models / name for name in UPSCALERS),
        faces=(models / "GFPGAN", models / "Codeformer", models / "facexlib"),
        controlnet=(models / "ControlNet",),
        hypernetworks=(models / "hypernetworks",), wildcards=(ROOT / "wildcards",),
        bundled=(models / "Stable-diffusion", models / "Lora/darkroom-starter", ROOT / "embeddings/darkroom-starter"),
        outputs=ROOT / "outputs", extensions=(ROOT / "extensions",),
        cache=ROOT / "cache", config=ROOT / "config.json", styles=ROOT / "styles.csv",
    )
    assert found.spool == ROOT / "cache/spool"


@pytest.mark.parametrize(("flags", "field", "expected"), [
    ({"data_dir": "/data"}, "outputs", Path("/data/outputs")),
    ({"data_dir": "/data"}, "embeddings", (Path("/data/embeddings"), ROOT / "embeddings/darkroom-starter")),
    ({"data_dir": "/data"}, "extensions", (Path("/data/extensions"), ROOT / "extensions")),
    ({"data_dir": "/data"}, "config", Path("/data/config.json")),
    ({"data_dir": "/data", "models_dir": "/m"}, "lora", (Path("/m/Lora"), ROOT / "models/Lora/darkroom-starter")),
    ({"models_dir": "/m"}, "outputs", ROOT / "outputs"),
    ({"models_dir": "/m"}, "checkpoints", (Path("/m/Stable-diffusion"), ROOT / "models/Stable-diffusion")),
    ({"ckpt_dir": "/c"}, "checkpoints", (ROOT / "models/Stable-diffusion", Path("/c"))),
    ({"ckpt": "/c/a.ckpt"}, "checkpoint_files", (Path("/c/a.ckpt"),)),
    ({"vae_dir": "/v"}, "vae", (ROOT / "models/VAE", Path("/v"))),
    ({"lora_dir": "/l"}, "lora", (Path("/l"), ROOT / "models/Lora/darkroom-starter")),
    ({"embeddings_dir": "/e"}, "embeddings", (Path("/e"), ROOT / "embeddings/darkroom-starter")),
    ({"hypernetwork_dir": "/h"}, "hypernetworks", (Path("/h"),)),
    ({"esrgan_models_path": "/u"}, "esrgan", (*(ROOT / "models" / name for name in UPSCALERS), Path("/u"))),
    ({"gfpgan_models_path": "/g", "codeformer_models_path": "/c"}, "faces",
     (*(ROOT / "models" / name for name in ("GFPGAN", "Codeformer", "facexlib")), Path("/g"), Path("/c"))),
    ({"output_dir": "/o"}, "outputs", Path("/o")),
    ({"output_dir": ""}, "outputs", ROOT / "outputs"),
    ({"output_dir": "here/../out"}, "outputs", Path.cwd() / "out"),
    ({"lora_dir": "~/l"}, "lora", (Path.home() / "l", ROOT / "models/Lora/darkroom-starter")),
    ({"listen": "true", "api": ""}, "outputs", ROOT / "outputs"),
])
def test_flags(flags: dict, field: str, expected: object) -> None:
    assert getattr(folders(ROOT, flags), field) == expected


def test_listing(library: Library, tmp_path: Path) -> None:
    for name in ("b.safetensors", "A.ckpt", "sub/c.pt", ".hidden.safetensors", ".git/d.ckpt", "e.safetensors.part",
                 "f.safetensors.tmp", "notes.txt", "b.vae.safetensors", "g.SAFETENSORS"):
        put(library, name)
    put(library, "diffusers model.v1/model_index.json")
    put(library, "diffusers model.v1/unet/diffusion_pytorch_model.safetensors")
    place = library.folders.checkpoints[0]
    os.symlink(place, place / "sub/loop")
    os.symlink(tmp_path / "nowhere.ckpt", place / "broken.ckpt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked.ckpt").write_bytes(b"y")
    os.symlink(tmp_path / "elsewhere", place / "link")
    assert names(library) == ["A.ckpt", "b.safetensors", "diffusers model.v1", "g.SAFETENSORS", "link/linked.ckpt",
                              "sub/c.pt"]
    assert names(library, "vae") == ["b.vae.safetensors"]
    assert [file.stem for file in library.checkpoints()] == ["A", "b", "diffusers model.v1", "g", "linked", "c"]
    first = library.checkpoints()[0]
    assert (first.size, first.title, first.kind, first.path) == (1, "A.ckpt", "checkpoint", str(place / "A.ckpt"))


def test_no_folders_and_other_kinds(library: Library) -> None:
    assert [names(library, kind) for kind in ("checkpoint", "vae", "lora", "upscaler")] == [[], [], [], []]
    put(library, "a/b.safetensors", kind="lora")
    put(library, "x4.pth", kind="upscaler")
    put(library, "word.pt", kind="embedding")
    assert [names(library, kind) for kind in ("lora", "upscaler", "embedding")] == [["a/b.safetensors"], ["x4.pth"],
                                                                                    ["word.pt"]]


def test_a_file_that_vanishes_while_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(folders(tmp_path, {}), HashCache(tmp_path / "hashes.sqlite"))
    for name in ("a.ckpt", "b.ckpt"):
        put(library, name)
    cached = library.hashes.cached

    def vanish(path: Path) -> str | None:
        (path.parent / "b.ckpt").unlink(missing_ok=True)
        return cached(path)

    monkeypatch.setattr(library.hashes, "cached", vanish)
    assert names(library) == ["a.ckpt"]


def test_files_named_by_flag_and_several_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one/a.ckpt").write_bytes(b"1")
    (tmp_path / "two/a.ckpt").write_bytes(b"22")
    (tmp_path / "two/b.ckpt").write_bytes(b"3")
    flags = {"ckpt": str(tmp_path / "one/a.ckpt"), "ckpt_dir": str(tmp_path / "two")}
    library = Library(folders(tmp_path, flags), HashCache(tmp_path / "hashes.sqlite"))
    assert [(file.name, file.size) for file in library.checkpoints()] == [("a.ckpt", 1), ("b.ckpt", 1)]
    flags["ckpt"] = str(tmp_path / "two/b.ckpt")
    library = Library(folders(tmp_path, flags), library.hashes)
    assert [file.name for file in library.checkpoints()] == ["a.ckpt", "b.ckpt"]
    flags["ckpt"] = str(tmp_path / "gone.ckpt")
    assert len(Library(folders(tmp_path, flags), library.hashes).checkpoints()) == 2


def test_a_folder_of_diffusers_may_be_named_itself(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text("{}")
    library = Library(folders(tmp_path, {"ckpt_dir": str(tmp_path / "model")}), HashCache(tmp_path / "h.sqlite"))
    assert [(file.name, file.path) for file in library.checkpoints()] == [("model", str(tmp_path / "model"))]


def test_titles_carry_the_hash_once_it_is_known(library: Library) -> None:
    path = put(library, "sub/model.safetensors", b"content")
    assert library.checkpoints()[0].title == "sub/model.safetensors"
    digest = hashlib.sha256(b"content").hexdigest()
    assert library.hashes.sha256(path) == digest
    file = library.checkpoints()[0]
    assert (file.title, file.short_hash, file.sha256) == (f"sub/model.safetensors [{digest[:10]}]", digest[:10], digest)


def test_finding_a_checkpoint_by_its_names(library: Library) -> None:
    large = b"\1" * 0x100000 + b"\2" * 0x20000
    path = put(library, "sub/My Model.v2.safetensors", large)
    put(library, "other.ckpt", b"other")
    digest = library.hashes.sha256(path)
    legacy = hashlib.sha256(b"\2" * 0x10000).hexdigest()[:8]
    for text in (
        "sub/My Model.v2.safetensors", f"sub/My Model.v2.safetensors [{digest[:10]}]", "My Model.v2.safetensors",
        "My Model.v2", "my model.V2", "sub\\My Model.v2.safetensors", "sub/My Model.v2", digest, digest[:10],
        digest.upper(), legacy, f"My Model.v2 [{digest[:10]}]", f"renamed.ckpt [{digest[:10]}]",
        f"renamed.ckpt [{legacy}]", "My Model.v2.safetensors [0123456789]", "  My Model.v2  ",
    ):
        assert library.find_checkpoint(text).path == str(path), text


@pytest.mark.parametrize("text", [
    "", " ", "nothing", "[", "[]", "../../etc/passwd", "/etc/passwd", "..", ".", "sub/../other.ckpt", "*", "\0",
    "0" * 10, "f" * 64, "other.ckpt/..", "%2e%2e",
])
def test_a_text_is_only_compared_with_what_is_listed(library: Library, text: str) -> None:
    put(library, "other.ckpt")
    outside = library.folders.data_dir / "secret.ckpt"
    outside.write_bytes(b"s")
    for candidate in (text, text * 1_000_000, str(outside), "../secret.ckpt", "../../secret.ckpt"):
        with pytest.raises(NotFound, match="There is no checkpoint named"):
            library.find_checkpoint(candidate)


def test_near_names_are_offered(library: Library) -> None:
    put(library, "v1-5-Pruned-emaonly.safetensors")
    with pytest.raises(NotFound, match=r"Did you mean v1-5-Pruned-emaonly.safetensors\?"):
        library.find_checkpoint("v1-5-pruned-emaony")
    with pytest.raises(NotFound, match="refresh"):
        library.find_checkpoint("zzzzzzzzzzzzzzzzzzzzzzzzzz")


def test_finding_a_vae(library: Library) -> None:
    put(library, "photo.safetensors")
    put(library, "paint.safetensors")
    put(library, "lines.safetensors")
    beside = put(library, "photo.vae.pt")
    named = put(library, "paint.vae.safetensors", kind="vae")
    plain = put(library, "lines.safetensors", kind="vae")
    other = put(library, "ft-mse.safetensors", kind="vae")
    for text in ("Automatic", ""):
        for stem, path in (("photo", beside), ("paint", named), ("lines", plain)):
            found = library.find_vae(text, library.find_checkpoint(stem))
            assert found is not None and found.path == str(path)
    assert library.find_vae("Automatic") is None
    assert library.find_vae("None", library.find_checkpoint("photo")) is None
    for text in ("ft-mse.safetensors", "ft-mse", library.hashes.sha256(other)[:10]):
        found = library.find_vae(text)
        assert found is not None and found.path == str(other)
    with pytest.raises(NotFound, match="There is no VAE named 'ft-msx'. Did you mean ft-mse.safetensors"):
        library.find_vae("ft-msx")


def test_a_hash_survives_only_while_the_file_is_the_same(library: Library) -> None:
    path = put(library, "a.ckpt", b"one")
    library.hashes.sha256(path)
    path.write_bytes(b"other")
    assert library.checkpoints()[0].title == "a.ckpt"
    assert file_sha256(path) == library.hashes.sha256(path) == hashlib.sha256(b"other").hexdigest()

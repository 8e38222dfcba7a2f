"""Where things are, and which model files there are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from modules.core.errors import InvalidRequest, NotFound
from modules.library.hashes import SHORT, HashCache, legacy_hash
from modules.library.headers import MODEL_INDEX
from modules.library.walk import is_folder, walk

CHECKPOINT, VAE, VAE_APPROX, LORA = "checkpoint", "vae", "vae_approx", "lora"
EMBEDDING, UPSCALER, CONTROLNET, HYPERNETWORK = "embedding", "upscaler", "controlnet", "hypernetwork"
FACE = "face"

AUTOMATIC, NO_VAE = "Automatic", "None"

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth")
SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    CHECKPOINT: _WEIGHTS,
    VAE: _WEIGHTS,
    VAE_APPROX: _WEIGHTS,
    LORA: (".safetensors", ".ckpt", ".pt"),
    EMBEDDING: (".safetensors", ".pt", ".bin", ".png", ".webp", ".jxl", ".avif"),
    UPSCALER: (".safetensors", ".pth", ".pt", ".ckpt", ".param"),
    CONTROLNET: (*_WEIGHTS, ".bin"),
    HYPERNETWORK: (".pt",),
    FACE: _WEIGHTS,
})
# A1111's and Forge's folders of upscalers below models/.
_UPSCALERS = ("ESRGAN", "RealESRGAN", "BSRGAN", "DAT", "SwinIR", "ScuNET", "HAT")
# Those of face restorers, and of what finds faces for them.
_FACES = ("GFPGAN", "Codeformer", "facexlib")
# Folders of an installation with models that come with the program.
BUNDLED: Mapping[str, str] = MappingProxyType({
    CHECKPOINT: "models/Stable-diffusion",
    LORA: "models/Lora/darkroom-starter",
    EMBEDDING: "embeddings/darkroom-starter",
})
_MAX_NAME = 1000


@dataclass(frozen=True)
class Folders:
    """Every folder and file of an installation, absolute. They need not exist.

    Models are looked for in all folders of a kind, the first named wins. ``bundled`` are folders of models that
    come with the program and are only read; ``checkpoint_files`` single files named by ``--ckpt``.
    """

    root: Path
    data_dir: Path
    models_dir: Path
    checkpoints: tuple[Path, ...]
    checkpoint_files: tuple[Path, ...]
    vae: tuple[Path, ...]
    vae_approx: tuple[Path, ...]
    lora: tuple[Path, ...]
    embeddings: tuple[Path, ...]
    esrgan: tuple[Path, ...]
    faces: tuple[Path, ...]
    controlnet: tuple[Path, ...]
    hypernetworks: tuple[Path, ...]
    wildcards: tuple[Path, ...]
    bundled: tuple[Path, ...]
    outputs: Path
    extensions: tuple[Path, ...]
    cache: Path
    config: Path
    styles: Path

    @property
    def spool(self) -> Path:
        """Where pictures lie that were asked not to be saved."""
        return self.cache / "spool"

    @property
    def inputs(self) -> Path:
        """Where the pictures and masks lie that were brought for img2img."""
        return self.data_dir / "data" / "inputs"

    def of(self, kind: str) -> tuple[Path, ...]:
        """Return the folders of one kind of model file."""
        return {
            CHECKPOINT: self.checkpoints, VAE: self.vae, VAE_APPROX: self.vae_approx, LORA: self.lora,
            EMBEDDING: self.embeddings, UPSCALER: self.esrgan, CONTROLNET: self.controlnet,
            HYPERNETWORK: self.hypernetworks, FACE: self.faces,
        }[kind]


def folders(root: Path, flags: Mapping[str, str], bundled: Mapping[str, str] = BUNDLED) -> Folders:
    """Return the folders of the installation at ``root``, following A1111's names and flags. Touches no disk.

    ``flags`` maps the names of command-line flags (``data_dir``, ``ckpt_dir`` ...) to what was given; empty values
    count as absent, relative paths start at the current folder. As there, ``--ckpt-dir``, ``--vae-dir`` and
    ``--esrgan-models-path`` add to the usual folder, while ``--lora-dir``, ``--embeddings-dir`` and
    ``--hypernetwork-dir`` replace it. ``bundled`` are folders below ``root``, by kind, that are listed whatever the
    flags say.
    """
    root = _absolute(root)
    given = {name: _absolute(value) for name, value in flags.items() if value and name in _PATH_FLAGS}
    data = given.get("data_dir", root)
    models = given.get("models_dir", data / "models")
    shipped = {kind: root / folder for kind, folder in bundled.items()}

    def also(flag: str, *usual: Path) -> tuple[Path, ...]:
        return _distinct((*usual, *([given[flag]] if flag in given else [])))

    def with_shipped(kind: str, *usual: Path) -> tuple[Path, ...]:
        own = [shipped[kind]] if kind in shipped else []
        return (*usual, *(path for path in own if not any(path.is_relative_to(folder) for folder in usual)))

    return Folders(
        root=root,
        data_dir=data,
        models_dir=models,
        checkpoints=with_shipped(CHECKPOINT, *also("ckpt_dir", models / "Stable-diffusion")),
        checkpoint_files=(given["ckpt"],) if "ckpt" in given else (),
        vae=also("vae_dir", models / "VAE"),
        vae_approx=_distinct((models / "VAE-approx", root / "models" / "VAE-approx")),
        lora=with_shipped(LORA, given.get("lora_dir", models / "Lora")),
        embeddings=with_shipped(EMBEDDING, given.get("embeddings_dir", data / "embeddings")),
        esrgan=also("esrgan_models_path", *(models / folder for folder in _UPSCALERS)),
        faces=also("codeformer_models_path", *also("gfpgan_models_path", *(models / folder for folder in _FACES))),
        controlnet=also("controlnet_dir", models / "ControlNet"),
        hypernetworks=(given.get("hypernetwork_dir", models / "hypernetworks"),),
        wildcards=also("wildcards_dir", data / "wildcards"),
        bundled=tuple(shipped.values()),
        outputs=given.get("output_dir", data / "outputs"),
        extensions=_distinct((data / "extensions", root / "extensions")),
        cache=data / "cache",
        config=given.get("ui_settings_file", data / "config.json"),
        styles=given.get("styles_file", data / "styles.csv"),
    )


_PATH_FLAGS = frozenset({
    "data_dir", "models_dir", "ckpt", "ckpt_dir", "vae_dir", "lora_dir", "embeddings_dir", "esrgan_models_path",
    "gfpgan_models_path", "codeformer_models_path",
    "controlnet_dir", "hypernetwork_dir", "wildcards_dir", "output_dir", "ui_settings_file", "styles_file",
})


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _distinct(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(paths))


@dataclass(frozen=True)
class ModelFile:
    """A model on disk.

    ``name`` is its path relative to the folder it was found in, with ``/``; ``title`` is ``name [short hash]``, or
    ``name`` while the hash is unknown. ``size`` in bytes, ``mtime`` in seconds (both 0 for a folder of diffusers).
    """

    path: str
    name: str
    title: str
    kind: str
    size: int
    mtime: float
    sha256: str = ""

    @property
    def stem(self) -> str:
        """The file's name without folders and suffix, as infotexts and file names show it."""
        base = self.name.rsplit("/", 1)[-1]
        return base.rsplit(".", 1)[0] if base.lower().endswith(SUFFIXES[self.kind]) else base

    @property
    def short_hash(self) -> str:
        """The first ten digits of the sha256, empty while it is unknown."""
        return self.sha256[:SHORT]


class Library:
    """The model files in the configured folders, listed anew at every call.

    A text from a request is only ever compared with what was listed, so it cannot name a path outside.
    """

    def __init__(self, folders: Folders, hashes: HashCache) -> None:
        self.folders = folders
        self.hashes = hashes

    def checkpoints(self) -> tuple[ModelFile, ...]:
        """Return checkpoints: files and diffusers folders, sorted by name; VAEs lying beside them excluded."""
        found = _listed(self.folders.checkpoints, SUFFIXES[CHECKPOINT], with_folders=True)
        listed = {path for _, path in found}
        found = [(path.name, path) for path in self.folders.checkpoint_files if path not in listed] + found
        return self._described(CHECKPOINT, ((name, path) for name, path in found if not is_vae_name(name)))

    def vaes(self) -> tuple[ModelFile, ...]:
        """Return VAE files, also those named ``*.vae.*`` in the folders of checkpoints."""
        beside = _listed(self.folders.checkpoints, SUFFIXES[VAE])
        found = _listed(self.folders.vae, SUFFIXES[VAE])
        return self._described(VAE, (*found, *((name, path) for name, path in beside if is_vae_name(name))))

    def files(self, kind: str) -> tuple[ModelFile, ...]:
        """Return the files of ``kind`` (``lora``, ``embedding`` ...), sorted by name; upscalers may be folders."""
        if kind == CHECKPOINT:
            return self.checkpoints()
        if kind == VAE:
            return self.vaes()
        return self._described(kind, _listed(self.folders.of(kind), SUFFIXES[kind], with_folders=kind == UPSCALER))

    def find_checkpoint(self, text: str) -> ModelFile:
        """Return the checkpoint that ``text`` names.

        Understood are title, name, file name, stem, sha256, its first ten digits, the eight digits of A1111's oldest
        pictures, and ``name [hash]`` where the hash decides and the name is what remains if it is unknown.
        Raises ``NotFound`` with names that are near.
        """
        return self.find(CHECKPOINT, text)

    def find(self, kind: str, text: str) -> ModelFile:
        """Return the file of ``kind`` that ``text`` names, understood as by ``find_checkpoint``.

        Raises ``InvalidRequest`` for a kind that does not exist, ``NotFound`` with names that are near.
        """
        files = self.files(check_kind(kind))
        found = _match(text, files)
        if found is None:
            raise not_found("VAE" if kind == VAE else kind.replace("_", " "), text, files)
        return found

    def find_vae(self, text: str, checkpoint: ModelFile | None = None) -> ModelFile | None:
        """Return the VAE that ``text`` names; None means the checkpoint's own.

        ``Automatic`` (and an empty text) finds the file named like the checkpoint: ``stem.vae.*`` beside it or in a
        VAE folder, or ``stem.*`` in a VAE folder. Raises ``NotFound`` with names that are near.
        """
        if text == NO_VAE:
            return None
        files = self.vaes()
        if text in ("", AUTOMATIC):
            stem = checkpoint.stem if checkpoint else None
            return next((file for file in files if file.stem.removesuffix(".vae") == stem), None)
        found = _match(text, files)
        if found is None:
            raise not_found("VAE", text, files)
        return found

    def _described(self, kind: str, found: Iterable[tuple[str, Path]]) -> tuple[ModelFile, ...]:
        first: dict[str, Path] = {}
        for name, path in found:
            first.setdefault(name, path)
        described = (self._describe(kind, name, path) for name, path in first.items())
        return tuple(sorted((file for file in described if file), key=lambda file: (file.name.lower(), file.name)))

    def _describe(self, kind: str, name: str, path: Path) -> ModelFile | None:
        try:
            status = path.stat()
        except OSError:
            return None
        sha256 = self.hashes.cached(path) or ""
        title = f"{name} [{sha256[:SHORT]}]" if sha256 and kind == CHECKPOINT else name
        size, mtime = (0, 0.0) if path.is_dir() else (status.st_size, status.st_mtime)
        return ModelFile(str(path), name, title, kind, size, mtime, sha256)


def check_kind(kind: str) -> str:
    """Return ``kind``, or raise ``InvalidRequest`` where there are no models of such a kind."""
    if kind not in SUFFIXES:
        raise InvalidRequest(f"There are no models of the kind {kind[:60]!r}.", f"Kinds are {', '.join(SUFFIXES)}.")
    return kind


def is_vae_name(name: str) -> bool:
    """Return whether a file among checkpoints is a VAE by its name: ``*.vae.*``."""
    return re.search(r"\.vae\.\w+$", name) is not None


def _listed(places: Iterable[Path], suffixes: tuple[str, ...], with_folders: bool = False) -> list[tuple[str, Path]]:
    def is_model(entry: os.DirEntry[str]) -> bool:
        return with_folders and is_folder(entry) and os.path.isfile(os.path.join(entry.path, MODEL_INDEX))

    found: list[tuple[str, Path]] = []
    for place in places:
        if with_folders and (place / MODEL_INDEX).is_file():
            found.append((place.name, place))
            continue
        for here in walk((place,), lambda entry: is_folder(entry) and not is_model(entry)):
            found += [(f"{here.below}{name}", Path(entry.path)) for name, entry in here.entries.items()
                      if (name.lower().endswith(suffixes) and not is_folder(entry)) or is_model(entry)]
    return found


def _match(text: str, files: tuple[ModelFile, ...]) -> ModelFile | None:
    text = text.strip()
    if not text or len(text) > _MAX_NAME:
        return None
    bracketed = re.fullmatch(r"(.*?)\s*\[([0-9a-fA-F]+)\]", text, re.DOTALL)
    by_title = next((file for file in files if text in (file.title, file.name)), None)
    if by_title or not bracketed:
        return by_title or _match_name(text, files) or _match_hash(text, files)
    return _match_hash(bracketed[2], files) or _match_name(bracketed[1], files)


def _match_name(text: str, files: tuple[ModelFile, ...]) -> ModelFile | None:
    name = text.replace("\\", "/").lower()
    for known in (lambda file: file.name, lambda file: file.name.rsplit("/", 1)[-1], lambda file: file.stem,
                  lambda file: file.name.rsplit(".", 1)[0]):
        found = next((file for file in files if known(file).lower() == name), None)
        if found:
            return found
    return None


def _match_hash(text: str, files: tuple[ModelFile, ...]) -> ModelFile | None:
    digits = text.lower()
    if re.fullmatch(r"[0-9a-f]{10,64}", digits):
        return next((file for file in files if file.sha256.startswith(digits)), None)
    if re.fullmatch(r"[0-9a-f]{8}", digits):
        return next((file for file in files if legacy_hash(Path(file.path)) == digits), None)
    return None


def not_found(what: str, text: str, files: tuple[ModelFile, ...]) -> NotFound:
    """Return what to raise where none of ``files`` is the ``what`` that ``text`` names, with names that are near."""
    shown = text if len(text) <= 100 else f"{text[:100]}..."
    names = [file.name for file in files]
    near = difflib.get_close_matches(shown.lower(), [name.lower() for name in names], 3, 0.4)
    near = [name for name in names if name.lower() in near]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Choose one from the list, or refresh it."
    return NotFound(f"There is no {what} named {shown!r}.", hint)

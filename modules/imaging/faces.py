"""What restores the faces of a picture, as engine and Extras are handed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from PIL import Image

from modules.core.errors import InvalidRequest
from modules.imaging.upscalers import Advance


class FaceRestorer(Protocol):
    """Whatever makes the faces of a picture good."""

    @property
    def name(self) -> str:
        """What the page and the infotext call it."""

    def restore(self, image: Image.Image, fidelity: float, advance: Advance) -> Image.Image:
        """Return an RGB ``image`` with its faces restored; itself where it has none.

        ``fidelity`` 0 changes a face most, 1 least, where the restorer can be told. ``advance`` is called before the
        first face and after each.
        """


# A face restorer by its name; raises ``InvalidRequest`` naming the file that is missing.
FindRestorer = Callable[[str], FaceRestorer]


def no_restorer(name: str) -> FaceRestorer:
    """Find none: what stands for the search where there are no face restorers."""
    raise InvalidRequest(f"There is no face restorer {name[:100]!r}.")

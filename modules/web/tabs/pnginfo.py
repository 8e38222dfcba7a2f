"""The PNG Info tab: what a picture carries with it, and the way back into the form."""

from __future__ import annotations

from typing import Any

from modules.core.errors import InvalidRequest
from modules.web.controls import markup
from modules.web.tabs import Tab

MAX_PICTURE_BYTES = 256 * 1024 * 1024


def build(app: Any) -> None:
    """Lay the tab out; its element sends the picture as it is, so that nothing of its metadata is lost."""
    markup("<darkroom-pnginfo></darkroom-pnginfo>", elem_id="pnginfo_panel")


def read_picture(picture: bytes) -> dict[str, Any]:
    """Return the infotext of an encoded picture and its other text entries by name.

    Raises ``InvalidRequest`` for what is no picture.
    """
    from modules.library.images import read_image_info

    if not picture:
        raise InvalidRequest("There is no picture.", "Choose a PNG, JPEG, WebP or AVIF file.")
    if len(picture) > MAX_PICTURE_BYTES:
        raise InvalidRequest("The picture is larger than 256 MB.")
    info = read_image_info(picture)
    return {"infotext": info.infotext, "items": {name: str(value) for name, value in info.items.items()}}


ENTRY = Tab("pnginfo", "PNG Info", build)

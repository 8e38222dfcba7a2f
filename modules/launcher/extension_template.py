"""The files that a new extension begins with."""

from __future__ import annotations

from pathlib import Path
from string import Template

_PLUGIN = Template('''"""A frame around every picture: change it into what you want."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from PIL import ImageOps

from modules.plugin import FinishedPicture, Plan, Plugin, param


@dataclass(frozen=True)
class Options:
    """What the panel shows; the defaults change nothing."""

    border: int = param(0, "Border", infotext="$title border", minimum=0, maximum=64, step=1, help="In pixels.")


class $kind(Plugin):
    """Draws a frame inside the picture."""

    id = "$name"
    name = "$title"
    description = "A frame around every picture."
    version = "0.1"
    Params = Options

    def on_image(self, picture: FinishedPicture, plan: Plan, params: Options) -> FinishedPicture | None:
        """Draw the frame on the decoded picture; None leaves it unchanged."""
        if params.border == 0:
            return None
        inner = ImageOps.crop(picture.image, params.border)
        return dataclasses.replace(picture, image=ImageOps.expand(inner, params.border, "white"))
''')
_TEST = Template('''"""The extension $name, as the program finds and calls it."""

from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.host.discover import discover
from modules.host.registry import Host
from modules.plugin import FinishedPicture, ModelRef, Plan, hooks

EXTENSIONS = Path("$directory")
PICTURE = FinishedPicture(0, Image.new("RGB", (32, 32)), "a cat", "", 1, 1, ModelRef("model"))


@pytest.fixture
def host(tmp_path):
    found = discover([EXTENSIONS], tmp_path, {}, frozenset())
    return Host(tuple(item for item in found if item.id == "$name"))


def finished(host, **values):
    request = Request(prompt="a cat", plugins={"$name": values})
    return hooks.on_image(host.active(request), PICTURE, Plan(request, (), ()))


def test_it_is_found(host):
    assert not host.failures() and len(host.found) == 1


def test_by_default_nothing_changes(host):
    assert finished(host) == PICTURE


def test_the_frame_is_white(host):
    image = finished(host, border=4).image
    assert image.size == (32, 32)
    assert image.getpixel((3, 16)) == (255, 255, 255) and image.getpixel((4, 16)) == (0, 0, 0)


def test_a_border_beyond_the_limit_is_refused(host):
    with pytest.raises(InvalidRequest, match="border"):
        finished(host, border=65)
''')


def plugin(name: str) -> str:
    """Return ``plugin.py`` of the extension ``name``."""
    words = name.split("_")
    return _PLUGIN.substitute(name=name, title=" ".join(words).capitalize(),
                              kind="".join(word.capitalize() for word in words))


def test(name: str, folder: Path) -> str:
    """Return the test of the extension ``name``, which lies in ``folder``."""
    return _TEST.substitute(name=name, directory=folder.parent.as_posix())

import pytest

from modules.app.messages import Advanced, Failed, Finished, Look, Previewed, Run, Saved, pack, unpack
from modules.core.errors import InvalidRequest
from modules.core.request import Request
from modules.core.result import Failure, Progress, SavedImage
from modules.core.settings import Settings
from modules.core.task import Task

IMAGE = SavedImage("/x/1.png", "picture", 64, 72, 2**64 - 1, "ünïcode\nSteps: 1", 3)


@pytest.mark.parametrize("message", [
    Run("a", Request(prompt="猫", seed=2**64 - 1, plugins={"p": {"on": True}}, settings=Settings(rho=0.5)), (IMAGE,)),
    Run("a", Task("upscale", {"scale": 2.5, "names": ["ü"]}, "t", "s", 3, Settings(rho=0.5), False), (IMAGE,)),
    Finished("a", False, (), {"path": "/x"}),
    Look(True), Advanced("a", Progress(1, 2, 3, 4, 0.5, None, "x")), Previewed("a", 2, b"\0\xff{}" * 9),
    Previewed("a", 1),
    Saved("a", IMAGE), Finished("a", True, ("w",)), Failed("", Failure("E", "m", "h", 422), True),
])
def test_every_message_comes_out_as_it_went_in(message):
    assert unpack(pack(message)) == message


@pytest.mark.parametrize("data", [
    b"", b"\x01", b"\xff\xff\xff\x7f{}", pack(Look(True))[:-3], b"\x02\0\0\0[]",
    pack(Look(True)).replace(b"Look", b"Leak"), pack(Look(True)).replace(b"true", b"nice"),
])
def test_anything_else_is_refused(data):
    with pytest.raises(InvalidRequest):
        unpack(data)

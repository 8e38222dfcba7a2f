import dataclasses

import pytest
from PIL import Image

from modules.app.tasks import TASKS, Tools, find_task
from modules.core import codec
from modules.core.errors import InvalidRequest
from modules.core.extras import KIND, Extras, Source
from modules.core.task import Task
from modules.host.registry import Host
from modules.imaging.resize import RESAMPLERS
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.inputs import Inputs


class Watch:
    """Keeps the pictures."""

    def __init__(self):
        self.pictures = []

    def stopping(self):
        return False

    def check(self):
        pass

    def batch(self, first, pictures):
        pass

    def step(self, done, total):
        pass

    def picture(self, picture):
        self.pictures.append(picture)


@pytest.fixture
def tools(tmp_path):
    library = Library(folders(tmp_path, {}), HashCache(tmp_path / "hashes.sqlite3"))
    return Tools(library, Host(()), None, None, RESAMPLERS)


def test_extras_are_made_from_stored_pictures(tools):
    key = Inputs(tools.library.folders.inputs).add(Image.new("RGB", (6, 4), "red")).id
    extras, watch = Extras((Source(key, "cat.png"),), upscaler_1="Lanczos", upscaling_resize=3), Watch()
    assert find_task(KIND)(Task(KIND, codec.encode(extras)), tools, watch, frozenset()).complete
    assert watch.pictures[0].image.size == (18, 12) and watch.pictures[0].basename == "cat"
    assert find_task(KIND)(Task(KIND, codec.encode(extras)), tools, watch, frozenset({0})).complete
    assert len(watch.pictures) == 1


def test_a_plugin_that_is_not_there_is_refused(tools):
    extras = dataclasses.replace(Extras((Source("a" * 32),)), plugins={"gone": {}})
    with pytest.raises(InvalidRequest, match="gone"):
        TASKS[KIND](Task(KIND, codec.encode(extras)), tools, Watch(), frozenset())


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidRequest, match="no jobs of the kind"):
        find_task("juggle")

import dataclasses

import pytest
from PIL import Image
from safetensors.torch import save_file

from modules.app.tasks import FILE_TASKS, TASKS, Tools, find_task
from modules.core import codec, difference, inspection, lora, merge
from modules.core.errors import InvalidRequest, Skipped
from modules.core.extras import KIND, Extras, Source
from modules.core.task import Task
from modules.host.registry import Host
from modules.imaging.resize import RESAMPLERS
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.library.inputs import Inputs
from tests.fixtures.tiny_loras import tiny_lora
from tests.fixtures.tiny_models import write_tiny_sd1


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


class Skipping(Watch):
    """Skips at the first opportunity."""

    def check(self):
        raise Skipped("The batch was skipped.")

    def phase(self, text):
        pass


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


ON_FILES = {
    merge.KIND: merge.Recipe("a", "b"), lora.MERGE: lora.LoraMerge("<lora:amber:1>", "a"),
    lora.EXTRACT: lora.LoraExtraction("a", "b", rank=2), inspection.KIND: inspection.Check("checkpoint", "a"),
    difference.KIND: difference.Comparison("a", "b"),
}


@pytest.mark.parametrize("kind", FILE_TASKS)
def test_work_on_files_that_is_skipped_ends_without_a_failure_and_leaves_nothing(tools, kind):
    checkpoints, loras = tools.library.folders.checkpoints[0], tools.library.folders.lora[0]
    loras.mkdir(parents=True)
    for seed, name in enumerate("ab"):
        write_tiny_sd1(checkpoints / f"{name}.safetensors", seed=seed)
    save_file(tiny_lora(checkpoints / "a.safetensors", only="mid_block"), loras / "amber.safetensors")
    outcome = find_task(kind)(Task(kind, codec.encode(ON_FILES[kind])), tools, Skipping(), frozenset())
    assert not outcome.complete
    assert {path.stem for folder in (checkpoints, loras) for path in folder.iterdir()} == {"a", "b", "amber"}

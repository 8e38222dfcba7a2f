"""A place with folders for models, whose files tests write."""

import pytest

from modules.library.files import Library, folders
from modules.library.hashes import HashCache


@pytest.fixture
def place(tmp_path):
    library = Library(folders(tmp_path, {}, {}), HashCache(tmp_path / "hashes.sqlite3"))
    for folder in (library.folders.checkpoints[0], library.folders.lora[0]):
        folder.mkdir(parents=True)
    return library

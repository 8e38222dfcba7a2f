"""Saved pictures: names, numbers, several writers at once, full disks."""

import errno
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from modules.core.errors import DarkroomError, DiskFull
from modules.core.settings import Settings
from modules.library import outputs
from modules.library.files import Folders, folders
from modules.library.images import read_image_info
from modules.library.outputs import GRID, Outputs, Target, expire_spool, remove_partial, write_file
from modules.library.patterns import Facts

FACTS = Facts(seed=42, now=datetime(2024, 3, 9, 17, 5), prompt="a cat / ../ on a mat", model_name="v1-5")
TARGET = Target(FACTS)
PICTURE = Image.new("RGB", (8, 8), "red")
TEXT = "a cat\nSteps: 1, Seed: 42, Sampler: Euler"


@pytest.fixture
def places(tmp_path: Path) -> Folders:
    return folders(tmp_path, {})


def everything(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


SAVE_MANY = """
import sys, time
from datetime import datetime
from pathlib import Path
from PIL import Image
from modules.core.settings import Settings
from modules.library.files import folders
from modules.library.outputs import Outputs, Target
from modules.library.patterns import Facts

root, seed = Path(sys.argv[1]), int(sys.argv[2])
writer = Outputs(folders(root, {}))
(root / f"ready{seed}").touch()
while not (root / "go").exists():
    time.sleep(0.001)
for _ in range(100):
    writer.save(Image.new("RGB", (8, 8)), "", Target(Facts(seed, datetime(2024, 3, 9))), Settings())
"""


def test_where_a_picture_goes(places: Folders) -> None:
    writer = Outputs(places)
    paths = [writer.save(PICTURE, TEXT, TARGET, Settings()) for _ in range(3)]
    paths.append(writer.save(PICTURE, TEXT, replace(TARGET, kind=GRID), Settings()))
    paths.append(writer.save(PICTURE, TEXT, replace(TARGET, kind=GRID), Settings()))
    paths.append(writer.save(PICTURE, TEXT, replace(TARGET, tab="img2img"), Settings(save_to_dirs=False)))
    paths.append(writer.save(PICTURE, TEXT, replace(TARGET, spool=True), Settings(samples_filename_pattern="[none]")))
    assert [path.relative_to(places.data_dir).as_posix() for path in paths] == [
        "outputs/txt2img-images/2024-03-09/00000-42.png", "outputs/txt2img-images/2024-03-09/00001-42.png",
        "outputs/txt2img-images/2024-03-09/00002-42.png", "outputs/txt2img-grids/2024-03-09/grid-0000-42.png",
        "outputs/txt2img-grids/2024-03-09/grid-0001-42.png", "outputs/img2img-images/00000-42.png",
        "cache/spool/2024-03-09/00000-42.png",
    ]
    assert all(read_image_info(path).infotext == TEXT for path in paths)
    assert len(everything(places.data_dir)) == len(paths), "nothing else remains"


@pytest.mark.parametrize(("pattern", "name"), [
    ("", "00000-42.png"), ("[seed]", "00000-42.png"), ("[number]", "00000.png"), ("[none]", "00000.png"),
    ("[number] [seed]", "00000 42.png"), ("[number][seed]", "00000-42.png"), ("[seed]-[number]", "42-00000.png"),
    ("[model_name]", "00000-v1-5.png"), ("[prompt]", "00000-a_cat___..__on_a_mat.png"), ("../x", "00000-.._x.png"),
    ("/etc/x", "00000-_etc_x.png"), ("../[number]", "_00000.png"), ("[number][number]", "00000[number].png"),
])
def test_patterns_of_file_names(places: Folders, pattern: str, name: str) -> None:
    path = Outputs(places).save(PICTURE, "", TARGET, Settings(samples_filename_pattern=pattern))
    assert path == places.outputs / "txt2img-images/2024-03-09" / name


@pytest.mark.parametrize(("pattern", "folder"), [
    ("[date]", "2024-03-09"), ("[model_name]/[date]", "v1-5/2024-03-09"), ("", "a cat on a mat"), ("../..", "."),
    ("/tmp", "tmp"), ("[prompt_spaces]", "a cat _ .._ on a mat"), ("a/../../../b", "a/b"),
])
def test_patterns_of_folders(places: Folders, pattern: str, folder: str) -> None:
    path = Outputs(places).save(PICTURE, "", TARGET, Settings(directories_filename_pattern=pattern))
    assert path.parent == places.outputs / "txt2img-images" / folder


def test_a_tab_is_no_path(places: Folders) -> None:
    path = Outputs(places).save(PICTURE, "", replace(TARGET, tab="../../x"), Settings(save_to_dirs=False))
    assert path.parent.parent == places.outputs


def test_long_names_are_cut(places: Folders) -> None:
    facts = replace(FACTS, prompt="猫" * 500)
    for pattern in ("[prompt]", "[prompt][prompt][number][prompt][prompt]"):
        path = Outputs(places).save(PICTURE, "", Target(facts), Settings(samples_filename_pattern=pattern))
        assert path.exists() and len(path.name.encode()) <= 255


def test_numbers_follow_the_highest_that_is_there(places: Folders) -> None:
    folder = places.outputs / "txt2img-images/2024-03-09"
    folder.mkdir(parents=True)
    for name in ("00003-1.png", "00007-2.txt", "notes.txt", "x-00099-1.png", "100000-3.png"):
        (folder / name).touch()
    writer = Outputs(places)
    assert writer.save(PICTURE, "", TARGET, Settings()).name == "100001-42.png"
    (folder / "100002-by-someone-else.png").touch()
    assert writer.save(PICTURE, "", TARGET, Settings()).name == "100003-42.png"
    (folder / ".100004.part").touch()  # another process is writing it
    assert writer.save(PICTURE, "", TARGET, Settings()).name == "100005-42.png"


def test_formats_and_text_files(places: Folders) -> None:
    writer = Outputs(places)
    long = "word, " * 20_000
    for settings, text, names in (
        (Settings(samples_format="jpg"), TEXT, ["00000-42.jpg"]),
        (Settings(save_txt=True), TEXT, ["00001-42.png", "00001-42.txt"]),
        (Settings(samples_format="webp"), long, ["00002-42.txt", "00002-42.webp"]),
        (Settings(samples_format="webp", enable_pnginfo=False), long, ["00003-42.webp"]),
    ):
        folder = writer.save(PICTURE, text, TARGET, settings).parent
        assert everything(folder)[-len(names):] == names
    assert (folder / "00001-42.txt").read_text() == f"{TEXT}\n"
    assert (folder / "00002-42.txt").read_text() == f"{long}\n"


def test_threads_do_not_share_a_number(places: Folders) -> None:
    writer = Outputs(places)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda seed: writer.save(PICTURE, f"seed {seed}", Target(replace(FACTS, seed=seed)),
                                                       Settings()), range(64)))
    numbers = sorted(int(path.name[:5]) for path in paths)
    assert numbers == list(range(64))
    assert all(read_image_info(path).infotext == f"seed {int(path.stem[6:])}" for path in paths)
    assert len(everything(places.outputs)) == 64


def test_processes_do_not_share_a_number(places: Folders) -> None:
    root = places.data_dir
    workers = [subprocess.Popen([sys.executable, "-c", SAVE_MANY, str(root), str(seed)]) for seed in range(3)]
    while not all((root / f"ready{seed}").exists() for seed in range(3)):
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    (root / "go").touch()
    assert [worker.wait(60) for worker in workers] == [0] * 3
    names = everything(places.outputs / "txt2img-images/2024-03-09")
    assert len({name[:5] for name in names}) == len(names) == 300


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("written", [0, 20])
def test_a_full_disk_leaves_nothing_behind(places: Folders, code: int, written: int) -> None:
    def fill(path: Path, data: bytes) -> None:
        write_file(path, data[:written])
        raise OSError(code, os.strerror(code))

    with pytest.raises(DiskFull, match=r"2024-03-09: the disk is full \(\d+\.\d MB free\)") as error:
        Outputs(places, write=fill).save(PICTURE, TEXT, TARGET, Settings())
    assert "--output-dir" in error.value.hint
    assert everything(places.outputs) == []
    assert Outputs(places).save(PICTURE, TEXT, TARGET, Settings()).name == "00000-42.png"


def test_a_full_disk_at_the_text_file_keeps_the_picture(places: Folders) -> None:
    def fill_later(path: Path, data: bytes) -> None:
        if path.name.endswith(".txt.part"):
            write_file(path, data[:3])
            raise OSError(errno.ENOSPC, "full")
        write_file(path, data)

    with pytest.raises(DiskFull):
        Outputs(places, write=fill_later).save(PICTURE, TEXT, TARGET, Settings(save_txt=True))
    assert everything(places.outputs) == ["txt2img-images/2024-03-09/00000-42.png"]


def test_a_folder_that_cannot_be_written(places: Folders) -> None:
    places.outputs.write_bytes(b"a file is in the way")
    with pytest.raises(DarkroomError, match="could not be saved in .*: (Not a directory|File exists)"):
        Outputs(places).save(PICTURE, TEXT, TARGET, Settings())


def test_file_systems_without_hard_links(places: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(outputs.os, "link", refuse)
    writer = Outputs(places)
    paths = [writer.save(PICTURE, TEXT, TARGET, Settings()) for _ in range(2)]
    assert [path.name for path in paths] == ["00000-42.png", "00001-42.png"]
    assert read_image_info(paths[1]).infotext == TEXT
    assert len(everything(places.outputs)) == 2


def test_without_hard_links_a_failure_leaves_nothing_behind(places: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(outputs.os, "link", refuse)
    monkeypatch.setattr(outputs.os, "replace", refuse)
    with pytest.raises(DarkroomError, match="not permitted"):
        Outputs(places).save(PICTURE, TEXT, TARGET, Settings())
    assert everything(places.outputs) == []


def test_the_spool_expires_and_leftovers_go(places: Folders) -> None:
    writer = Outputs(places)
    old = writer.save(PICTURE, TEXT, replace(TARGET, spool=True), Settings())
    new = writer.save(PICTURE, TEXT, Target(replace(FACTS, now=datetime(2024, 3, 10)), spool=True), Settings())
    kept = writer.save(PICTURE, TEXT, TARGET, Settings())
    partial = kept.with_name(".00009.part")
    partial.touch()
    os.utime(old, (1000, 1000))
    os.utime(partial, (1000, 1000))
    os.utime(kept, (1000, 1000))
    assert expire_spool(places, 24) == 1 and remove_partial(places) == 1
    assert everything(places.data_dir) == sorted(path.relative_to(places.data_dir).as_posix() for path in (new, kept))
    os.utime(old.parent, (1000, 1000))
    assert expire_spool(places, 24) == 0 and not old.parent.exists() and new.exists()


def test_names_are_readable_in_a_listing(places: Folders) -> None:
    writer = Outputs(places)
    for _ in range(12):
        path = writer.save(PICTURE, "", TARGET, Settings())
    assert [re.match(r"\d{5}", name)[0] for name in everything(path.parent)] == [f"{index:05}" for index in range(12)]

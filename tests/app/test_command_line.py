import dataclasses
import io
import json

import pytest

from modules.app import command_line
from modules.app.command_line import deliver, for_destination, free_name, numbered, txt2img
from modules.app.terminal import Bar, bar_line
from modules.core.errors import InvalidRequest
from modules.core.grid import Grid
from modules.core.request import Request
from modules.core.result import Progress, SavedImage
from modules.launcher.commands import Txt2ImgArguments
from modules.launcher.flags import Flags
from modules.library.files import folders
from modules.library.images import read_image_info
from tests.fixtures.fake_engine import write_stand_in_checkpoint

STUB = "tests.app.stub_bench:open_stub"


@pytest.fixture
def flags(tmp_path, monkeypatch):
    monkeypatch.setattr(command_line, "project_root", lambda: tmp_path / "program")
    flags = Flags(data_dir=str(tmp_path / "data"))
    write_stand_in_checkpoint(folders(tmp_path / "program", flags.folders()).checkpoints[0])
    return flags


def arguments(**values):
    fields = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 3}
    others = {name: values.pop(name) for name in ("out", "settings") if name in values}
    return Txt2ImgArguments(fields | values, **others)


def test_pictures_go_where_the_page_puts_them_and_their_paths_are_printed(flags, tmp_path, capsys):
    assert txt2img(arguments(batch_count=2), flags, engine=STUB) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 3 and all(path.startswith(str(tmp_path / "data" / "outputs")) for path in paths)
    assert "a cat" in read_image_info(paths[0]).infotext and "txt2img-grids" in paths[2]


def test_out_names_a_file_relative_to_the_current_folder(flags, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert txt2img(arguments(out="new/cat.jpg", batch_count=2), flags, engine=STUB) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in ("cat.jpg", "cat-2.jpg")]
    assert read_image_info(tmp_path / "new" / "cat.jpg").format == "JPEG"
    assert not (tmp_path / "data" / "outputs").exists()


def test_out_names_a_folder(flags, tmp_path, capsys):
    assert txt2img(arguments(out=str(tmp_path / "pictures")), flags, engine=STUB) == 0
    assert txt2img(arguments(out=str(tmp_path / "pictures")), flags, engine=STUB) == 0
    assert len(set(capsys.readouterr().out.split())) == 2 == len(list((tmp_path / "pictures").iterdir()))


def test_a_plot_is_what_is_delivered_and_a_failing_cell_leaves_the_others(flags, tmp_path, capsys):
    out = tmp_path / "plot.png"
    grid = Grid("Prompt S/R", "cat, boom, dog", "Steps", "1, 2")
    assert txt2img(arguments(out=str(out), grid=grid), flags, engine=STUB) == 0
    told = capsys.readouterr()
    assert told.out.split() == [str(out)] and "Script: X/Y/Z plot" in read_image_info(out).infotext
    assert "2 of 6 cells are missing: failed." in told.err and "boom" in told.err
    assert txt2img(arguments(out=str(tmp_path / "all"), grid=dataclasses.replace(
        grid, include_lone_images=True)), flags, engine=STUB) == 0
    assert len(list((tmp_path / "all").iterdir())) == 5


@pytest.mark.parametrize(("values", "status", "words"), [
    ({"out": "cat.exe"}, 2, ".exe"), ({"model": "nothing"}, 2, "nothing"), ({"sampler": "nothing"}, 2, "nothing"),
])
def test_a_request_at_fault_is_one_readable_line(flags, capsys, values, status, words):
    assert txt2img(arguments(**values), flags, engine=STUB) == status
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and words in error and error.count("\n") == 1


def test_without_a_model_it_says_where_to_put_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "project_root", lambda: tmp_path / "program")
    assert txt2img(arguments(), Flags(data_dir=str(tmp_path / "empty")), engine=STUB) == 2
    assert "Stable-diffusion" in capsys.readouterr().err


@pytest.mark.parametrize(("prompt", "status", "words"), [("boom", 1, "ValueError: boom"), ("hungry", 1, "GiB")])
def test_what_fails_in_the_engine_is_told(flags, capsys, prompt, status, words):
    assert txt2img(arguments(prompt=prompt), flags, engine=STUB) == status and words in capsys.readouterr().err


def test_an_interrupted_run_says_so(flags, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "run_all", interrupted)
    assert txt2img(arguments(), flags, engine=STUB) == 130 and "Interrupted" in capsys.readouterr().err


def test_settings_of_the_file_and_the_arguments_count(flags, tmp_path, capsys):
    (tmp_path / "data" / "config.json").write_text(json.dumps({"samples_format": "webp"}))
    assert txt2img(arguments(), flags, engine=STUB) == 0
    assert capsys.readouterr().out.strip().endswith(".webp")
    assert txt2img(arguments(settings=(("samples_format", "jpg"),)), flags, engine=STUB) == 0
    assert capsys.readouterr().out.strip().endswith(".jpg")


def test_a_destination_decides_the_format(tmp_path):
    request = for_destination(Request(), tmp_path / "a.WEBP")
    assert request.settings.samples_format == "webp" and not request.save_images and not request.save_grid
    assert for_destination(Request(), tmp_path).settings.samples_format == "png"
    with pytest.raises(InvalidRequest):
        for_destination(Request(), tmp_path / "a.gif")


def test_delivered_pictures_never_replace_others_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_text("old")
    (tmp_path / "in" / "1.png").write_text("new")
    image = SavedImage(str(tmp_path / "in" / "1.png"), "picture", 1, 1, 1, "")
    assert deliver([image], tmp_path / "out") == [tmp_path / "out" / "1-2.png"]
    assert (tmp_path / "out" / "1.png").read_text() == "old"
    assert numbered(tmp_path / "a.png", 2).name == "a-3.png" and free_name(tmp_path / "z.png").name == "z.png"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_is_drawn_on_a_terminal_alone():
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = Bar(stream)
        bar.show(Progress(step=1, steps=2, fraction=0.5))
        bar.end()
    assert "50%" in terminal.getvalue() and terminal.getvalue().endswith("\r\x1b[K") and file.getvalue() == ""
    quiet = Terminal()
    Bar(quiet, shown=False).show(Progress())
    assert quiet.getvalue() == ""


def test_the_bar_says_where_the_job_stands():
    line = bar_line(Progress(picture=1, pictures=3, step=10, steps=20, fraction=0.5, eta=64.4))
    assert line == f"[{'#' * 15}{'.' * 15}]  50%  step 10/20  picture 2/3  1:04 left"
    assert bar_line(Progress(phase="Loading the model")) == "Loading the model ..."

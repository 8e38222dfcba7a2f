"""webui.py itself: what it starts, what it says, and that importing it does nothing."""

import os
import shutil
import subprocess
import sys

import pytest

APP = "def create(flags):\n    return ['app', flags.port]\n"
SITE = "def serve(app, flags):\n    print('serving', app, flags.theme, flags.accounts)\n"
COMMAND_LINE = ("def txt2img(arguments, flags):\n"
                "    print('making', arguments.fields['prompt'], flags.no_half)\n    return 3\n")


@pytest.fixture
def program(tmp_path, pytestconfig):
    """Return a function that runs webui.py beside stand-ins of the packages that it starts."""
    root = pytestconfig.rootpath
    shutil.copy(root / "webui.py", tmp_path)
    for package in ("core", "launcher"):
        shutil.copytree(root / "modules" / package, tmp_path / "modules" / package)
    shutil.copy(root / "modules" / "__init__.py", tmp_path / "modules")
    for path, text in {"app/app.py": APP, "app/command_line.py": COMMAND_LINE, "web/site.py": SITE}.items():
        (tmp_path / "modules" / path).parent.mkdir(exist_ok=True)
        (tmp_path / "modules" / path).write_text(text)

    def run(*words, code=None, **environ):
        command = [sys.executable, "-c", code] if code else [sys.executable, "webui.py", *words]
        clean = {name: value for name, value in os.environ.items() if name != "COMMANDLINE_ARGS"}
        result = subprocess.run(command, cwd=tmp_path, env=clean | environ, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    return run


def test_it_serves(program):
    words = ["--skip-prepare-environment", "--port", "8000", "--theme", "dark", "--gradio-auth", "a:b", "--lowram"]
    status, output, errors = program(*words)
    assert (status, output) == (0, "serving ['app', 8000] dark (('a', 'b'),)\n")
    assert errors == "Warning: --lowram has no effect: memory is placed automatically.\n"


def test_it_makes_pictures(program):
    status, output, _ = program("txt2img", "--prompt", "a cat", COMMANDLINE_ARGS="--no-half --skip-prepare-environment")
    assert (status, output) == (3, "making a cat True\n")


@pytest.mark.parametrize("words, part", [
    (["--listen"], "no accounts"), (["--prot", "1"], "--port"), (["txt2img"], "--prompt"),
])
def test_a_mistake_is_one_message_and_no_traceback(program, words, part):
    status, output, errors = program(*words)
    assert (status, output) == (1, "") and part in errors and errors.startswith("Error: ") and "Traceback" not in errors


def test_help_needs_no_packages(program):
    status, output, _ = program(code="import sys; sys.argv = ['webui.py', '--help']; import runpy\n"
                                     "sys.modules['torch'] = sys.modules['gradio'] = None\n"
                                     "runpy.run_path('webui.py', run_name='__main__')")
    assert status == 0 and "--ckpt-dir" in output


def test_importing_it_does_nothing(program):
    code = ("import sys; before = set(sys.modules); import webui\n"
            "print(sorted(name for name in set(sys.modules) - before if name.startswith('modules')))")
    assert program(code=code) == (0, "[]\n", "")


def test_a_spawned_child_does_not_start_it_again(program):
    code = ("import multiprocessing, runpy, sys; sys.argv = ['webui.py', '--port', '1']\n"
            "runpy.run_path('webui.py', run_name='__mp_main__')\nprint('quiet')")
    assert program(code=code) == (0, "quiet\n", "")


@pytest.mark.parametrize("version", ["(3, 10, 4)", "(3, 14, 0)"])
def test_another_python_is_told_which_to_use(program, version):
    code = ("import sys, runpy; sys.argv = ['webui.py']\n"
            f"sys.version_info = {version}\nrunpy.run_path('webui.py', run_name='__main__')")
    status, _, errors = program(code=code)
    assert status == 1 and "3.11, 3.12 or 3.13" in errors and "Traceback" not in errors


def test_the_launcher_uses_the_standard_library_alone(program):
    code = ("import sys; sys.path[:] = [path for path in sys.path if 'site-packages' not in path]\n"
            "import modules.launcher.environment, modules.launcher.commands, modules.launcher.testing; print('ok')")
    assert program(code=code)[:2] == (0, "ok\n")

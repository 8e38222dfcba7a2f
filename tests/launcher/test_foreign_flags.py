from pathlib import Path

import pytest

from modules.launcher.commands import parse
from modules.launcher.flags import flag_infos
from modules.launcher.foreign_flags import explain, foreign_flags

FACTS = Path(__file__).resolve().parents[1] / "fixtures" / "a1111_flags.txt"
A1111 = [line for line in FACTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
SPECIAL = {"--theme": "dark", "--precision": "full", "--loglevel": "DEBUG", "--gradio-auth": "a:b", "--api-auth": "a:b"}


def own_names():
    return {name for field, info in flag_infos().items() for name in (f"--{field.replace('_', '-')}", *info.aliases)}


@pytest.mark.parametrize("line", A1111)
def test_every_flag_of_a1111_is_accepted_with_its_value(line, tmp_path):
    name, _, value = line.partition(" ")
    words = [name, SPECIAL.get(name, "1")] if value else [name]
    if name in ("--share", "--listen", "--server-name"):
        words += ["--gradio-auth", "a:b"]
    if name.startswith("--tls-"):
        words = ["--tls-keyfile", "k", "--tls-certfile", "c"]
    if name == "--gradio-auth-path":
        (tmp_path / "accounts").write_text("a:b")
        words = [name, str(tmp_path / "accounts")]
    call = parse([*words, "--subpath", "after"], {})
    assert call.flags.subpath == "after"
    assert len(call.warnings) == (0 if name in own_names() else 1)


def test_each_name_has_one_meaning():
    names = [name for name, _, _ in foreign_flags()]
    assert len(names) == len(set(names))
    assert not set(names) & own_names()
    assert all(name.startswith("--") for name in names)


def test_a_repeated_flag_is_explained_once():
    lines = explain(("--lowram", "--disable-sage", "--lowram"))
    assert lines == ("--lowram has no effect: memory is placed automatically.",
                     "--disable-sage has no effect: attention is chosen automatically.")


def test_a_value_of_a_foreign_flag_is_not_mistaken_for_another():
    call = parse(["--ngrok-options", "{}", "--vae-path", "x.pt", "--port", "1"], {})
    assert call.flags.port == 1 and len(call.warnings) == 2

import argparse

import pytest

from modules.core.errors import InvalidRequest
from modules.launcher.flags import ENVIRONMENT, Flags, add_flags, flag_infos, flags_from


def read(*words, groups=()):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, groups)
    return flags_from(parser.parse_args(words))


def test_without_arguments_every_flag_has_its_default():
    assert read() == Flags()


@pytest.mark.parametrize("words, name, value", [
    (["--no-half"], "no_half", True),
    (["--port", "8000"], "port", 8000),
    (["--theme", "dark"], "theme", "dark"),
    (["--use-cpu", "interrogate", "gfpgan"], "use_cpu", ("interrogate", "gfpgan")),
    (["--ckpt-dir", "a b"], "ckpt_dir", "a b"),
    (["--timeout-keep-alive", "5"], "timeout_keep_alive", 5),
    (["--sub-quad-chunk-threshold", "0"], "sub_quad_chunk_threshold", 0),
    (["--attention-split"], "opt_split_attention", True),
    (["--fast-fp16-accumulation"], "fast_fp16", True),
    (["--gpu-device-id", "1"], "device_id", "1"),
    (["--auth", "a:b"], "gradio_auth", "a:b"),
    (["--vram-budget", "3.5"], "vram_budget", 3.5),
    (["--reserve-vram", "0"], "reserve_vram", 0.0),
    (["--always-low-vram"], "lowvram", True),
])
def test_values_arrive_in_their_type(words, name, value):
    flags = read(*words)
    assert getattr(flags, name) == value
    assert [other for other in flag_infos() if getattr(flags, other) != getattr(Flags(), other)] == [name]


@pytest.mark.parametrize("words, part", [
    (["--port", "0"], "1 to 65535"),
    (["--port", "65536"], "1 to 65535"),
    (["--timeout-keep-alive", "-1"], "negative"),
    (["--sub-quad-q-chunk-size", "-1"], "--sub-quad-q-chunk-size cannot be negative"),
    (["--vram-budget", "0"], "above 0"),
    (["--vram-budget", "nan"], "above 0"),
    (["--reserve-vram", "-1"], "negative"),
    (["--tls-keyfile", "k"], "Add --tls-certfile"),
    (["--tls-certfile", "c"], "Add --tls-keyfile"),
])
def test_values_out_of_range_say_what_to_do(words, part):
    with pytest.raises(InvalidRequest, match=part):
        read(*words)


def test_a_group_can_be_read_alone():
    parser = argparse.ArgumentParser()
    add_flags(parser, (ENVIRONMENT,))
    values, rest = parser.parse_known_args(["--skip-install", "--port", "1"])
    assert flags_from(values).skip_install and rest == ["--port", "1"]


def test_folders_are_those_given():
    flags = read("--ckpt-dir", "a", "--output-dir", "b", "--port", "80")
    assert flags.folders() == {"ckpt_dir": "a", "output_dir": "b"}


def test_passwords_are_shown_nowhere():
    flags = Flags(gradio_auth="ann:secret", api_auth="bob:secret", accounts=(("ann", "secret"),))
    assert "secret" not in repr(flags)
    assert "secret" not in str(flags.public())
    assert flags.public()["api_auth"] == "***" and Flags().public()["api_auth"] == ""
    assert flags.public()["port"] is None


def test_every_flag_explains_itself():
    assert all(info.help and info.group for info in flag_infos().values())

import pytest

from modules.core.errors import DarkroomError
from modules.launcher.torch_builds import (
    AMD,
    INTEL,
    NVIDIA,
    TORCH,
    Gpu,
    SystemInfo,
    choose_build,
    indexed_build,
    xformers_obstacle,
)

NEW, OLD, ANCIENT = (580, 95), (550, 54), (470, 199)


def nvidia(*capabilities):
    return tuple(Gpu(NVIDIA, f"card {capability}", capability=capability) for capability in capabilities)


def linux(gpus=(), driver=(), machine="x86_64", rocm=True):
    return SystemInfo("Linux", machine, gpus, driver, rocm)


def windows(gpus=(), driver=(), machine="AMD64"):
    return SystemInfo("Windows", machine, gpus, driver)


@pytest.mark.parametrize("system, name", [
    # Capabilities: 3.5 Kepler, 5.2 Maxwell, 6.1 Pascal, 7.0 Volta, 7.5 Turing, 8.6 Ampere, 8.9 Ada, 9.0 Hopper,
    # 12.0 Blackwell.
    (linux(nvidia((8, 9)), NEW), "cu130"),
    (linux(nvidia((7, 5)), (580,)), "cu130"),
    (linux(nvidia((9, 0)), NEW), "cu130"),
    (linux(nvidia((12, 0)), NEW), "cu130"),
    (windows(nvidia((12, 0)), NEW), "cu130"),
    (linux(nvidia((8, 9)), OLD), "cu126"),
    (linux(nvidia((8, 9)), (579, 99)), "cu126"),
    (linux(nvidia((6, 1)), NEW), "cu126"),
    (linux(nvidia((7, 0)), NEW), "cu126"),
    (windows(nvidia((5, 2)), NEW), "cu126"),
    (linux(nvidia((6, 1), (8, 6)), NEW), "cu126"),
    (linux(nvidia((12, 0), (6, 1)), NEW), "cu130"),
    (linux(nvidia((12, 0)), OLD), "cu130"),
    (linux(nvidia((3, 5)), OLD), "cpu"),
    (linux(nvidia((8, 6)), ANCIENT), "cpu"),
    (linux(nvidia(None), NEW), "cu130"),
    (linux(nvidia(None), ANCIENT), "cpu"),
    (linux(nvidia((9, 0)), NEW, "aarch64"), "cu130"),
    (linux(nvidia((12, 1)), NEW, "aarch64"), "cu130"),
    (linux(nvidia((9, 0)), OLD, "aarch64"), "cu126"),
    (linux(nvidia((7, 2)), NEW, "aarch64"), "cpu"),
    (windows(nvidia((8, 6)), NEW, "ARM64"), "cpu"),
    (linux((*nvidia((8, 6)), Gpu(INTEL, device="46a6")), NEW), "cu130"),
    (linux((Gpu(AMD),)), "rocm7.2"),
    (linux((Gpu(AMD),), rocm=False), "cpu"),
    (linux((Gpu(AMD),), machine="aarch64"), "cpu"),
    (windows((Gpu(AMD, "Radeon"),)), "cpu"),
    (linux((Gpu(INTEL, device="56a0"),)), "xpu"),     # Arc A770
    (windows((Gpu(INTEL, device="e20b"),)), "xpu"),   # Arc B580
    (linux((Gpu(INTEL, device="7d55"),)), "xpu"),     # Meteor Lake
    (linux((Gpu(INTEL, device="64a0"),)), "xpu"),     # Lunar Lake
    (linux((Gpu(INTEL, device="46a6"),)), "cpu"),     # Alder Lake, Iris Xe
    (linux((Gpu(INTEL, device="3e92"),)), "cpu"),     # Coffee Lake, UHD 630
    (linux((Gpu(INTEL, device="56a0"),), machine="aarch64"), "cpu"),
    (linux((Gpu(AMD), Gpu(INTEL, device="46a6"))), "rocm7.2"),
    (linux(), "cpu"),
    (linux(machine="aarch64"), "cpu"),
    (windows(), "cpu"),
    (SystemInfo("FreeBSD", "amd64"), "cpu"),
])
def test_the_build_for_each_machine(system, name):
    build = choose_build(system)
    assert (build.name, build.index_url) == (name, f"https://download.pytorch.org/whl/{name}")
    assert build.packages == (f"torch=={TORCH}+{name}",)
    assert build.note


def test_apple_silicon_takes_the_usual_wheel():
    build = choose_build(SystemInfo("Darwin", "arm64"))
    assert (build.index_url, build.packages) == (None, (f"torch=={TORCH}",))


def test_intel_macs_are_told_that_there_is_no_torch():
    with pytest.raises(DarkroomError, match="Intel processor"):
        choose_build(SystemInfo("Darwin", "x86_64"))


@pytest.mark.parametrize("system, words", [
    (linux(nvidia((8, 6)), ANCIENT), ["driver", "--reinstall-torch"]),
    (linux(nvidia((12, 0)), OLD), ["580"]),
    (linux(nvidia((12, 0), (6, 1)), NEW), ["not used"]),
    (linux((Gpu(AMD),), rocm=False), ["/dev/kfd"]),
])
def test_a_machine_that_could_do_better_is_told_how(system, words):
    assert all(word in choose_build(system).note for word in words)


def test_the_pin_is_that_of_the_requirements(pytestconfig):
    lines = (pytestconfig.rootpath / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"torch=={TORCH}" in lines


def test_an_index_of_ones_own():
    build = indexed_build("https://example.org/whl")
    assert (build.index_url, build.packages) == ("https://example.org/whl", (f"torch=={TORCH}",))


@pytest.mark.parametrize("system, build, words", [
    (linux(nvidia((8, 9)), NEW), "cu130", ""),
    (windows(nvidia((8, 9)), NEW), "cu126", ""),
    (linux(nvidia((8, 9)), NEW), "configured", ""),
    (linux(nvidia((8, 9)), NEW), "", ""),
    (linux(nvidia((8, 9)), NEW, machine="aarch64"), "cu130", "no xformers for Linux on aarch64"),
    (SystemInfo("Darwin", "arm64"), "metal", "no xformers for Darwin"),
    (linux((Gpu(AMD),)), "rocm7.2", "NVIDIA"),
    (linux((Gpu(INTEL),)), "xpu", "NVIDIA"),
    (linux(nvidia((3, 5)), NEW), "cpu", "NVIDIA"),
    (linux(), "configured", "NVIDIA"),
])
def test_where_xformers_is_of_use(system, build, words):
    obstacle = xformers_obstacle(system, build)
    assert words in obstacle and bool(obstacle) == bool(words)

import platform

import pytest

from modules.launcher.hardware import parse_nvidia_smi, parse_windows_adapters, read_pci, read_system
from modules.launcher.torch_builds import AMD, INTEL, NVIDIA, Gpu


@pytest.mark.parametrize("text, gpus, driver", [
    ("NVIDIA GeForce RTX 4090, 580.95.05, 8.9\n",
     (Gpu(NVIDIA, "NVIDIA GeForce RTX 4090", capability=(8, 9)),), (580, 95, 5)),
    ("Tesla P4, 535.54, 6.1\nNVIDIA B200, 535.54, 10.0\n",
     (Gpu(NVIDIA, "Tesla P4", capability=(6, 1)), Gpu(NVIDIA, "NVIDIA B200", capability=(10, 0))), (535, 54)),
    ("GeForce GTX 970, 470.199.02\n", (Gpu(NVIDIA, "GeForce GTX 970"),), (470, 199, 2)),
    ("NVIDIA X, 580.1, [N/A]\n", (Gpu(NVIDIA, "NVIDIA X"),), (580, 1)),
    ("NVIDIA-SMI has failed because it couldn't communicate, sorry\n", (), ()),
    ("No devices were found\n", (), ()),
    ("", (), ()),
])
def test_nvidia_smi(text, gpus, driver):
    assert parse_nvidia_smi(text) == (gpus, driver)


def test_pci_devices_of_linux(tmp_path):
    devices = {
        "0000:00:02.0": ("0x030000", "0x8086", "0x46A6"), "0000:03:00.0": ("0x038000", "0x1002", "0x744c"),
        "0000:04:00.0": ("0x020000", "0x8086", "0x1533"), "0000:05:00.0": ("0x030000", "0x1a03", "0x2000"),
    }
    for address, values in devices.items():
        for name, value in zip(("class", "vendor", "device"), values, strict=True):
            (tmp_path / address).mkdir(exist_ok=True)
            (tmp_path / address / name).write_text(value + "\n")
    (tmp_path / "0000:06:00.0").mkdir()
    assert read_pci(tmp_path) == (Gpu(INTEL, device="46a6"), Gpu(AMD, device="744c"))
    assert read_pci(tmp_path / "absent") == ()


def test_adapters_of_windows():
    text = ("Intel(R) Arc(TM) A770 Graphics|PCI\\VEN_8086&DEV_56A0&SUBSYS_10208086&REV_08\\6&1\r\n"
            "AMD Radeon RX 7900|PCI\\VEN_1002&DEV_744C&SUBSYS_0\r\nMicrosoft Remote Display Adapter|SWD\\REMOTE\r\n")
    assert parse_windows_adapters(text) == (
        Gpu(INTEL, "Intel(R) Arc(TM) A770 Graphics", "56a0"), Gpu(AMD, "AMD Radeon RX 7900", "744c"))


def test_this_machine_can_be_read():
    system = read_system()
    assert (system.system, system.machine) == (platform.system(), platform.machine())
    assert bool(system.driver) == bool(system.of(NVIDIA))

"""What this machine is made of, read from the system; nothing here decides anything."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from modules.launcher.torch_builds import AMD, INTEL, LINUX, NVIDIA, WINDOWS, Gpu, SystemInfo

_VENDORS = {"10de": NVIDIA, "1002": AMD, "8086": INTEL}
_NVIDIA_SMI = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi", r"C:\Windows\System32\nvidia-smi.exe")
_DISPLAY_CLASS = "0x03"


def read_system() -> SystemInfo:
    """Return what this machine is; a part that cannot be read counts as absent."""
    system = platform.system()
    nvidia, driver = parse_nvidia_smi(_nvidia_smi())
    others = read_pci(Path("/sys/bus/pci/devices")) if system == LINUX else ()
    if system == WINDOWS:
        others = parse_windows_adapters(_windows_adapters())
    gpus = nvidia + tuple(gpu for gpu in others if gpu.vendor != NVIDIA)
    return SystemInfo(system, platform.machine(), gpus, driver, rocm_ready=os.path.exists("/dev/kfd"))


def parse_nvidia_smi(text: str) -> tuple[tuple[Gpu, ...], tuple[int, ...]]:
    """Return cards and driver version from nvidia-smi's CSV of name, driver_version and, where known, compute_cap."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") >= 1]
    rows = [row for row in rows if re.fullmatch(r"\d+(\.\d+)+", row[1])]
    gpus = tuple(Gpu(NVIDIA, row[0], capability=_capability(row[2] if len(row) > 2 else "")) for row in rows)
    return gpus, tuple(int(part) for part in rows[0][1].split(".")) if rows else ()


def read_pci(devices: Path) -> tuple[Gpu, ...]:
    """Return the display controllers that Linux lists under ``devices`` (/sys/bus/pci/devices)."""
    found = []
    for device in sorted(devices.glob("*")):
        if _text(device / "class").startswith(_DISPLAY_CLASS):
            vendor = _VENDORS.get(_text(device / "vendor").removeprefix("0x"))
            found += [Gpu(vendor, device=_text(device / "device").removeprefix("0x"))] if vendor else []
    return tuple(found)


def parse_windows_adapters(text: str) -> tuple[Gpu, ...]:
    r"""Return the display adapters in lines of ``name|PCI\VEN_8086&DEV_56A0&...``."""
    found = []
    for line in text.splitlines():
        name, _, identity = line.partition("|")
        match = re.search(r"VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", identity, re.IGNORECASE)
        vendor = _VENDORS.get(match[1].lower()) if match else None
        if match and vendor:
            found.append(Gpu(vendor, name.strip(), match[2].lower()))
    return tuple(found)


def _capability(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _nvidia_smi() -> str:
    program = next((path for name in _NVIDIA_SMI if (path := shutil.which(name))), None)
    if program is None:
        return ""
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):  # drivers before 510 lack the last
        if text := _output([program, f"--query-gpu={fields}", "--format=csv,noheader"]):
            return text
    return ""


def _windows_adapters() -> str:
    script = "Get-CimInstance Win32_VideoController | ForEach-Object { $_.Name + '|' + $_.PNPDeviceID }"
    return _output(["powershell", "-NoProfile", "-Command", script])


def _output(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""

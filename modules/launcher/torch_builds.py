"""Which build of torch a machine needs: a table and a pure function.

Architectures, CUDA and ROCm versions are those of PyTorch's release compatibility matrix for 2.13 (RELEASE.md in its
repository); driver versions are those of NVIDIA's table of minor version compatibility (CUDA Compatibility guide).
"""

from __future__ import annotations

from dataclasses import dataclass

from modules.core.errors import DarkroomError

TORCH = "2.13.0"
WHEELS = "https://download.pytorch.org/whl/"

LINUX, WINDOWS, MACOS = "Linux", "Windows", "Darwin"
NVIDIA, AMD, INTEL = "nvidia", "amd", "intel"

# CUDA 13 needs driver 580 and compute capability 7.5; CUDA 12 needs driver 525 and the build of it ends at 9.0.
CUDA_13_DRIVER, CUDA_12_DRIVER = (580,), (525,)
CUDA_13_LOWEST, CUDA_12_LOWEST, CUDA_12_HIGHEST = (7, 5), (5, 0), (9, 0)
CUDA_LOWEST_ON_ARM = (8, 0)

# PCI device numbers of Arc A and B, Core Ultra with Arc graphics (Meteor, Arrow, Lunar, Panther Lake) and Max (PVC).
INTEL_PREFIXES = ("56", "e20", "e21", "7d", "64", "b08", "b09", "b0a", "0bd")


@dataclass(frozen=True)
class Gpu:
    """A graphics card: ``device`` is its PCI number in lower-case hex; ``capability`` is NVIDIA's (major, minor)."""

    vendor: str
    name: str = ""
    device: str = ""
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class SystemInfo:
    """A machine, as ``platform`` names system and processor; ``driver`` is the version of NVIDIA's."""

    system: str
    machine: str
    gpus: tuple[Gpu, ...] = ()
    driver: tuple[int, ...] = ()
    rocm_ready: bool = False

    def of(self, vendor: str) -> tuple[Gpu, ...]:
        """Return the cards of one vendor."""
        return tuple(gpu for gpu in self.gpus if gpu.vendor == vendor)


@dataclass(frozen=True)
class Build:
    """A build of torch: where pip finds it beside its usual index, what to install, and what to tell the user.

    ``gigabytes`` is the room that downloading and installing everything takes.
    """

    name: str
    index_url: str | None
    packages: tuple[str, ...]
    note: str = ""
    gigabytes: float = 3.0


def choose_build(system: SystemInfo) -> Build:
    """Return the build for ``system``; raises ``DarkroomError`` where there is none (Macs with an Intel processor)."""
    if system.system == MACOS:
        return _macos(system)
    if nvidia := system.of(NVIDIA):
        return _cuda(system, nvidia)
    if system.of(AMD):
        return _rocm(system)
    if any(gpu.device.startswith(INTEL_PREFIXES) for gpu in system.of(INTEL)) and _is_x86(system):
        return _indexed("xpu", "Intel graphics; it needs Intel's current driver.", 8.0)
    return _cpu("No graphics card that torch can use; pictures are made on the CPU.")


def configured_build() -> Build:
    """Return the build for a pip that is told where to find wheels: whatever it finds there, no index added."""
    return Build("configured", None, (f"torch=={TORCH}",), "pip's own settings say where torch comes from.")


def indexed_build(index_url: str) -> Build:
    """Return the build that ``TORCH_INDEX_URL`` asks for."""
    return Build("chosen", index_url, (f"torch=={TORCH}",), f"TORCH_INDEX_URL is {index_url}.", 10.0)


def xformers_obstacle(system: SystemInfo, build: str) -> str:
    """Return why xformers is of no use with the build of torch called ``build``, empty if it is.

    Its wheels are for Linux and Windows on x86-64, and their kernels for NVIDIA's cards alone. A build from elsewhere
    (``configured``, ``chosen``) is taken for CUDA's where there is such a card.
    """
    if system.system not in (LINUX, WINDOWS) or not _is_x86(system):
        return f"there is no xformers for {system.system} on {system.machine}"
    if not build.startswith("cu") and (build not in ("", "configured", "chosen") or not system.of(NVIDIA)):
        return "xformers needs an NVIDIA card"
    return ""


def _macos(system: SystemInfo) -> Build:
    if system.machine != "arm64":
        raise DarkroomError(f"There is no torch {TORCH} for Macs with an Intel processor.",
                            "A Mac with Apple silicon, Linux or Windows is needed.")
    return Build("metal", None, (f"torch=={TORCH}",), "Apple silicon.")


def _cuda(system: SystemInfo, cards: tuple[Gpu, ...]) -> Build:
    names = ", ".join(dict.fromkeys(card.name for card in cards))
    known = [card.capability for card in cards if card.capability]
    lowest, highest = min(known, default=CUDA_13_LOWEST), max(known, default=CUDA_13_LOWEST)
    if system.system == WINDOWS and not _is_x86(system):
        return _cpu(f"{names}: there is no CUDA build of torch for Windows on ARM.")
    if highest < (CUDA_12_LOWEST if _is_x86(system) else CUDA_LOWEST_ON_ARM):
        return _cpu(f"{names}: too old for this version of torch; pictures are made on the CPU.")
    if system.driver < CUDA_12_DRIVER:
        return _cpu(f"{names}: the driver is too old; install 580 or newer, then start with --reinstall-torch.")
    if highest > CUDA_12_HIGHEST:
        return _cuda_for_newest(system, names, lowest)
    if system.driver >= CUDA_13_DRIVER and lowest >= CUDA_13_LOWEST:
        return _indexed("cu130", f"{names}.", 10.0)
    return _indexed("cu126", f"{names}.", 10.0)


def _cuda_for_newest(system: SystemInfo, names: str, lowest: tuple[int, int]) -> Build:
    if system.driver < CUDA_13_DRIVER:
        return _indexed("cu130", f"{names}: the driver must be 580 or newer; until then the CPU is used.", 10.0)
    unused = " Cards older than the RTX 20 series are not used." if lowest < CUDA_13_LOWEST else ""
    return _indexed("cu130", f"{names}.{unused}", 10.0)


def _rocm(system: SystemInfo) -> Build:
    names = ", ".join(dict.fromkeys(gpu.name or "AMD graphics" for gpu in system.of(AMD)))
    if system.system != LINUX or not _is_x86(system):
        return _cpu(f"{names}: torch reaches AMD cards on Linux only; pictures are made on the CPU.")
    if not system.rocm_ready:
        return _cpu(f"{names}: the kernel's driver (amdgpu, /dev/kfd) is missing; pictures are made on the CPU.")
    return _indexed("rocm7.2", f"{names}.", 20.0)


def _indexed(name: str, note: str, gigabytes: float) -> Build:
    return Build(name, WHEELS + name, (f"torch=={TORCH}+{name}",), note, gigabytes)


def _cpu(note: str) -> Build:
    return _indexed("cpu", note, 3.0)


def _is_x86(system: SystemInfo) -> bool:
    return system.machine.lower() in ("x86_64", "amd64")

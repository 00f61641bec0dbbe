"""Which chain does a board start from this partition, and how far can it be followed from here?

In: the files of the partition, a board, and both readings of config.txt. Out: a Route. Firmware
that starts Linux is followed to the end. What another program would do, as U-Boot, UEFI or a system
inside boot.img, is not: then nothing is said of it, neither good nor bad. Sources: Raspberry Pi
documentation, "boot_ramdisk" and "armstub"; pftf/RPi4; U-Boot's doc/develop/distro.rst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from imager.base.boards import Board
from imager.bootcheck.contents import Contents
from imager.bootcheck.formats import config
from imager.bootcheck.formats.kernel import inspect_kernel, is_uefi
from imager.bootcheck.route.needs import cheap
from imager.bootcheck.route.paths import SystemPaths
from imager.bootcheck.route.settings import BootSettings

BOOT_IMAGE = "boot.img"
BOOT_SCRIPT = "boot.scr"
RECOVERY = {"": "recovery.elf", "4": "recover4.elf"}
"""What the loader prefers to start*.elf, by the board's firmware: installers come with it."""
_UBOOT_NAME = re.compile(r"u-?boot", re.IGNORECASE)
_UEFI_NAME = re.compile(r"\.fd\Z|efi", re.IGNORECASE)
_LINUX_NAME = re.compile(r"kernel|linu[xz]|zimage|image", re.IGNORECASE)
_UEFI = cheap(is_uefi)
_MORE_THAN_ONE_VALUE = cheap(lambda data: len(set(data[:65536])) > 1)


class Chain(StrEnum):
    """What the firmware starts, or what is loaded in its place."""

    LINUX = "Linux"
    UBOOT = "U-Boot"
    UEFI = "UEFI"
    STUB = "a program in place of a kernel"
    OTHER = "a program that is not known here"
    RAMDISK = "a system of its own"
    RECOVERY = "an installer (NOOBS, PINN)"


@dataclass(frozen=True, slots=True)
class Route:
    """``chain`` is what is started, from the file ``path``; ``told`` is how the board comes there,
    one word or name after another."""

    chain: Chain
    path: str
    told: tuple[str, ...]
    followed: bool

    def __str__(self) -> str:
        return " → ".join(self.told)

    def to_json(self) -> dict[str, object]:
        """The form of ``inspect --json``."""
        return {"starts": self.chain, "steps": list(self.told), "followed": self.followed}


def route_of(
    contents: Contents,
    model: Board,
    settings: BootSettings,
    paths: SystemPaths,
    arrived: tuple[str, ...],
) -> Route:
    """The route of ``model`` from the partition ``contents``, which it reached by ``arrived``."""
    start = (*arrived, settings.pair[0]) if settings.pair else arrived
    ramdisk = not model.needs_bootcode and settings.loader.number("boot_ramdisk")
    if ramdisk and contents.entry(BOOT_IMAGE):
        told = (*arrived, BOOT_IMAGE)
        return Route(Chain.RAMDISK, BOOT_IMAGE, told, followed=False)
    recovery = RECOVERY.get(model.firmware or "") if settings.pair else None
    if recovery and contents.entry(recovery):
        return Route(Chain.RECOVERY, recovery, (*arrived, recovery), followed=False)
    stub = settings.firmware.value("armstub")
    if stub and contents.entry(stub):
        chain = _stub_chain(contents, stub, paths)
        if chain is not None:
            return Route(chain, stub, (*start, f"{stub} ({chain})"), followed=False)
    chain = _kernel_chain(contents, settings.firmware, paths)
    kernel = paths.kernel
    if chain is Chain.LINUX:
        return Route(chain, kernel, (*start, kernel), followed=True)
    told = (*start, f"{kernel} ({chain})")
    if chain is Chain.UBOOT and _is_alarm(contents):
        return Route(chain, kernel, (*told, BOOT_SCRIPT, "Image"), followed=True)
    return Route(chain, kernel, told, followed=False)


def _stub_chain(contents: Contents, stub: str, paths: SystemPaths) -> Chain | None:
    """What an armstub starts: None for a small one, after which the kernel is started."""
    if _UEFI_NAME.search(stub) or contents.about(stub, _UEFI):
        return Chain.UEFI
    return None if contents.entry(paths.kernel) else Chain.STUB


def _kernel_chain(contents: Contents, settings: config.Config, paths: SystemPaths) -> Chain:
    """What kind of program stands where the kernel is looked for."""
    path = paths.kernel
    kernel = contents.about(path, inspect_kernel)
    if kernel is None:
        named = contents.entry(path) is not None and _UBOOT_NAME.search(path)
        return Chain.UBOOT if named or _has_script(contents) else Chain.LINUX
    if kernel.loader:
        return Chain(kernel.loader)
    if kernel.bits is not None:
        return Chain.LINUX
    name = path.rpartition("/")[2]
    if _UBOOT_NAME.search(name) or _has_script(contents):
        return Chain.UBOOT
    if settings.value("kernel") and not _LINUX_NAME.search(name) and _is_program(contents, path):
        return Chain.UEFI if _UEFI_NAME.search(name) else Chain.OTHER
    return Chain.LINUX


def _is_program(contents: Contents, path: str) -> bool:
    """Whether the file holds more than one value all over, as a lost one does."""
    return bool(contents.about(path, _MORE_THAN_ONE_VALUE))


def _has_script(contents: Contents) -> bool:
    return contents.entry(BOOT_SCRIPT) is not None


def _is_alarm(contents: Contents) -> bool:
    """Whether U-Boot finds all it starts on this partition, as in the distribution's 64-bit
    release: kernel in Image, device trees in dtbs, and boot.scr, which names both."""
    folder = contents.volume.find("dtbs")
    is_there = contents.entry("Image") or (folder is not None and folder.is_dir)
    return _has_script(contents) and bool(is_there or "Image" in contents.expected)

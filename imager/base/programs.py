"""This program's own version, and the one table of the other programs that it runs.

In: a name, or a piece of work. Out: what a program is needed for and the packages it comes from.
``imager.base.run`` names the package of a program that is missing, work that must not begin in vain
asks for all its programs first, and ``picloud-image doctor`` looks through the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version


def tool_version() -> str:
    """The version of this program as installed; ``source`` when it runs from its source tree."""
    try:
        return version("picloud-image")
    except PackageNotFoundError:
        return "source"


class ToolUse(StrEnum):
    """What programs are needed for; the value is said to people."""

    COMPOSE = "composing golden images"
    NODE = "making a node's card"
    ADD = "adding packages to a release"
    SAVE = "packing or unpacking the image of a card"
    RESOLVE = "locking packages"
    MASTER = "asking the Salt master"
    DISKS = "knowing the cards in readers"


CARD_USES = (ToolUse.COMPOSE, ToolUse.NODE)
"""No card can be made without the programs for these."""


@dataclass(frozen=True, slots=True)
class DistroPackage:
    """The name of a tool's package on each distribution the documentation speaks of."""

    debian: str
    arch: str


@dataclass(frozen=True, slots=True)
class Tool:
    """One program. ``asked`` are the words that make it say its version, empty if none do."""

    name: str
    package: DistroPackage
    uses: tuple[ToolUse, ...] = ()
    asked: tuple[str, ...] = ()


_DOSFSTOOLS = DistroPackage("dosfstools", "dosfstools")
_MTOOLS = DistroPackage("mtools", "mtools")
_E2FSPROGS = DistroPackage("e2fsprogs", "e2fsprogs")
_PACMAN = DistroPackage("pacman-package-manager", "pacman")
_UTIL_LINUX = DistroPackage("util-linux", "util-linux")

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("mke2fs", _E2FSPROGS, (ToolUse.COMPOSE,), ("-V",)),
        Tool("debugfs", _E2FSPROGS, (ToolUse.COMPOSE, ToolUse.NODE), ("-V",)),
        Tool("e2fsck", _E2FSPROGS, (ToolUse.COMPOSE, ToolUse.NODE), ("-V",)),
        Tool("resize2fs", _E2FSPROGS, (ToolUse.NODE,)),
        Tool("tune2fs", _E2FSPROGS, (ToolUse.NODE,)),
        Tool("mkfs.vfat", _DOSFSTOOLS, (ToolUse.COMPOSE,)),
        Tool("fsck.vfat", _DOSFSTOOLS, (ToolUse.COMPOSE,)),
        Tool("mcopy", _MTOOLS, (ToolUse.COMPOSE, ToolUse.NODE), ("-V",)),
        Tool("mmd", _MTOOLS, (ToolUse.COMPOSE, ToolUse.NODE), ("-V",)),
        Tool("zstd", DistroPackage("zstd", "zstd"), (ToolUse.ADD, ToolUse.SAVE), ("-V",)),
        Tool("xz", DistroPackage("xz-utils", "xz"), (ToolUse.SAVE,), ("-V",)),
        Tool("gzip", DistroPackage("gzip", "gzip"), (ToolUse.SAVE,), ("-V",)),
        Tool("pacman", _PACMAN, (ToolUse.RESOLVE,), ("-V",)),
        Tool("vercmp", _PACMAN, (ToolUse.RESOLVE,)),
        Tool("prlimit", _UTIL_LINUX, (ToolUse.RESOLVE,), ("-V",)),
        Tool("ssh", DistroPackage("openssh-client", "openssh"), (ToolUse.MASTER,), ("-V",)),
        Tool("udevadm", DistroPackage("udev", "systemd"), (ToolUse.DISKS,), ("--version",)),
        Tool("blkid", _UTIL_LINUX, (ToolUse.DISKS,), ("-V",)),
        # Nothing needs these where root is at work, or nobody asked to be called back.
        Tool("sudo", DistroPackage("sudo", "sudo")),
        Tool("setpriv", _UTIL_LINUX),
        Tool("notify-send", DistroPackage("libnotify-bin", "libnotify")),
    )
}


def tools_for(*uses: ToolUse) -> tuple[str, ...]:
    """The names of all programs that ``uses`` need, in the order of the table."""
    return tuple(tool.name for tool in TOOLS.values() if set(tool.uses) & set(uses))


def install_words(*names: str) -> str:
    """How to install the programs ``names``, as far as the table knows them, on each
    distribution."""
    known = [TOOLS[name].package for name in names if name in TOOLS]
    if not known:  # a Python, by its path
        return "see that it is there, and that you may run it"
    debian = " ".join(sorted({package.debian for package in known}))
    arch = " ".join(sorted({package.arch for package in known}))
    return f"Debian, Ubuntu: apt install {debian} · Arch: pacman -S {arch}"

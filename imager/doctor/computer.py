"""This computer: who works here and what its kernel and udev can do.

In: the kernel's trees. Out: Checkups. Disks are looked at as ``picloud-image devices`` does, and
nothing is opened for writing.
"""

from __future__ import annotations

import grp
import os
import platform
from collections.abc import Iterator

from imager.base.ownership import user_name
from imager.base.programs import install_words
from imager.base.run import find_tool
from imager.card.host.disks import Disk, list_disks
from imager.card.host.sysfs import HostTrees
from imager.doctor.checkup import Checkup, missing, warned, well

_RIGHTS, _KERNEL = "permissions", "kernel"
_DISK_GROUP = "disk"


def right_checkups() -> Iterator[Checkup]:
    """Whether whoever runs this may write cards."""
    name = user_name(os.geteuid())
    if os.geteuid() == 0:
        yield well(_RIGHTS, "cards in readers", f"{name} may write them")
    elif _in_disk_group():
        yield well(_RIGHTS, "cards in readers", f"{name} may write them, by group {_DISK_GROUP}")
    else:
        to_do = "put sudo before commands that write a card; image files need no privileges"
        if find_tool("sudo") is None:
            to_do = (
                f"be root for commands that write a card, or install sudo: {install_words('sudo')}"
            )
        yield warned(_RIGHTS, "cards in readers", f"{name} may not write them", to_do)


def kernel_checkups(kernel: HostTrees) -> Iterator[Checkup]:
    """What of Linux the program relies on."""
    yield well(_KERNEL, "Linux", f"{platform.release()}, {platform.machine()}")
    yield _mounts(kernel)
    yield _memory_files()
    disks = list_disks((), kernel)
    yield _readers(disks)
    if disks:
        yield _media_count(disks)
        yield _direct(disks)
    yield _udev(kernel)


def _in_disk_group() -> bool:
    try:
        return grp.getgrnam(_DISK_GROUP).gr_gid in (os.getegid(), *os.getgroups())
    except KeyError:
        return False


def _mounts(kernel: HostTrees) -> Checkup:
    count = sum(1 for _ in kernel.mounts())
    if count:
        return well(_KERNEL, "mounts", f"{count}, so that a disk in use is known")
    found = f"{kernel.proc}/self/mountinfo says nothing, so no disk in use would be known"
    to_do = "mount /proc; picloud-image must see what this computer mounts"
    return missing(_KERNEL, "mounts", found, to_do)


def _memory_files() -> Checkup:
    try:
        os.close(os.memfd_create("picloud-image", os.MFD_CLOEXEC))
    except OSError as error:
        found = f"memfd_create(2): {error.strerror}, and cards are made in such files"
        to_do = "use a kernel, or a container, that allows memfd_create"
        return missing(_KERNEL, "files in memory", found, to_do)
    return well(_KERNEL, "files in memory", "memfd_create(2)")


def _readers(disks: tuple[Disk, ...]) -> Checkup:
    if not disks:
        to_do = "plug a card reader in; in a container, let it see /sys and /dev"
        return warned(_KERNEL, "disks", "none is to be seen", to_do)
    cards = sum(not disk.is_fixed and disk.has_medium for disk in disks)
    return well(_KERNEL, "disks", f"{len(disks)}, and a card or stick in {cards or 'none'} of them")


def _media_count(disks: tuple[Disk, ...]) -> Checkup:
    if any(disk.diskseq for disk in disks):
        return well(_KERNEL, "changed cards", "told apart by the kernel's count of media (diskseq)")
    found = "told apart by size and serial number only: this kernel does not count media (diskseq)"
    return warned(_KERNEL, "changed cards", found, "use Linux 5.15 or newer")


def _direct(disks: tuple[Disk, ...]) -> Checkup:
    """Whether a disk can be read past this computer's cache. Opened for reading, so that udev does
    not look at it again."""
    name = "direct I/O"
    for disk in disks:
        if not disk.has_medium:
            continue
        try:
            os.close(os.open(disk.node, os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC))
        except (PermissionError, FileNotFoundError):
            continue
        except OSError as error:
            to_do = "cards are read back all the same, and the receipt says through which cache"
            return warned(_KERNEL, name, f"{disk.node}: {error.strerror}", to_do)
        return well(_KERNEL, name, f"O_DIRECT, tried on {disk.node}")
    return well(
        _KERNEL, name, f"not tried: no disk here can be opened by {user_name(os.geteuid())}"
    )


def _udev(kernel: HostTrees) -> Checkup:
    if kernel.udev_runs:
        return well(_KERNEL, "udev", "runs")
    found = "does not run: card readers have no names for slots, and rack watch sees no card come"
    return warned(_KERNEL, "udev", found, "start systemd-udevd (or udevd)")

"""Cards as they are put in and taken out, each told once.

In: udev's events, which come after its rules have run, so that the links in /dev/disk are there.
Out: the disk as it is now. udev also speaks up when a program closes a disk it has written to, and
a reader's slots are disks without a medium long before a card is in them: what counts is that
another medium is there than before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyudev

from imager.base.errors import MissingTool
from imager.card.host.disks import Disk, disk_named, list_disks
from imager.card.host.sysfs import HostTrees

_Medium = tuple[int | None, int]


@dataclass(frozen=True, slots=True)
class Change:
    """The medium of the disk with the kernel name ``name`` changed; ``disk`` is None when there
    is none in it now."""

    name: str
    disk: Disk | None


class Arrivals:
    """What is in the computer's disks, kept up to date from udev's events; not for two threads."""

    def __init__(self, monitor: pyudev.Monitor, kernel: HostTrees) -> None:
        self._monitor, self._kernel = monitor, kernel
        self._media: dict[str, _Medium] = {}
        disks = [disk for disk in list_disks(kernel=kernel) if disk.has_medium]
        self.present = tuple(disk for disk in disks if not disk.is_fixed)
        """The cards that were in when watching began."""
        for disk in disks:
            self._media[disk.node.rpartition("/")[2]] = _medium(disk)

    def wait(self, seconds: float) -> Change | None:
        """The next change, waited for at most so long; None when there was none."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            device = self._monitor.poll(left)
            change = self._changed(device) if device is not None else None
            if change is not None:
                return change
        return None

    def _changed(self, device: pyudev.Device) -> Change | None:
        name = device.sys_name
        before = self._media.get(name)
        there = (self._kernel.sysfs / "class/block" / name).exists()
        disk = disk_named(name, kernel=self._kernel) if there else None
        if disk is not None and before != _medium(disk) and not _tells_of(device, disk):
            disk = None
        if disk is None or not disk.has_medium:
            self._media.pop(name, None)
            return Change(name, None) if before is not None else None
        self._media[name] = _medium(disk)
        return Change(name, disk) if before != _medium(disk) else None


@contextmanager
def arrivals(kernel: HostTrees | None = None) -> Iterator[Arrivals]:
    """Watch for cards; raises MissingTool where there is no udevd to tell of them."""
    kernel = kernel or HostTrees()
    if not kernel.udev_runs:
        raise MissingTool(
            "udevd does not run here, so nothing tells when a card is put in",
            hint="start it (systemd-udevd), or run this on the computer itself, not in a container",
        )
    # A context of its own: libudev's must not be shared with the threads that look at disks.
    monitor = pyudev.Monitor.from_netlink(pyudev.Context())
    monitor.filter_by("block", "disk")
    monitor.start()
    # Listening begins before looking: what comes between the two is then seen twice, not never.
    yield Arrivals(monitor, kernel)


def _tells_of(device: pyudev.Device, disk: Disk) -> bool:
    """Whether udev's event is of the medium that is in now, or of one before it.

    Where cards change fast an event is read when the next card is in, for which udev's rules have
    not run: its links are not there yet. Its own event follows. A kernel before 5.15 does not count
    media, and its events do not say.
    """
    said = device.properties.get("DISKSEQ")
    return said is None or disk.diskseq is None or int(said) == disk.diskseq


def _medium(disk: Disk) -> _Medium:
    return disk.diskseq, disk.size_bytes

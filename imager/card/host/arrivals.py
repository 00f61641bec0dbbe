"""Cards as they are put in and taken out, each told once.

In: udev's events, which come after its rules have run, so that the links in /dev/disk are there.
Out: the disk as it is now. udev also speaks up when a program closes a disk it has written to, and
a reader's slots are disks without a medium long before a card is in them: what counts is that
another medium is there than before.

Other disks come and go too, many times a second where somebody tests loop devices. All events that
are at hand are therefore heard first and kept by disk, and a disk is looked at once, however often
udev spoke of it: the events cannot pile up, whatever a look costs. An event can get lost, as when
udevd is restarted: now and then the kernel's own count of media is compared with what was told.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pyudev

from imager.base.errors import MissingTool
from imager.card.host.disks import Disk, disk_named, list_disks
from imager.card.host.sysfs import HostTrees, Medium

_COMPARE_SECONDS = 2.0
_SILENCE_SECONDS = 10.0
"""So long udev may be silent about a card after it was asked; then no event is waited for."""


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
        self._media = self._now()
        self._nameless: set[str] = set()
        self._heard: dict[str, int | None] = {}
        self._untold: dict[str, tuple[Medium, float]] = {}
        self._compare_at = time.monotonic() + _COMPARE_SECONDS
        disks = [disk for disk in list_disks(kernel=kernel) if disk.has_medium]
        self.present = tuple(disk for disk in disks if not disk.is_fixed)
        """The cards that were in when watching began."""
        for disk in disks:
            self._keep(disk.node.rpartition("/")[2], disk)

    def wait(self, seconds: float) -> Change | None:
        """The next change, waited for at most so long; None when there was none."""
        end = time.monotonic() + seconds
        while True:
            left = max(0.0, end - time.monotonic())
            self._hear(0.0 if self._heard else left)
            if time.monotonic() >= self._compare_at:
                self._compare()
            while self._heard:
                name = next(iter(self._heard))
                change = self._changed(name, self._heard.pop(name))
                if change is not None:
                    return change
            if time.monotonic() >= end:
                return None

    def _hear(self, seconds: float) -> None:
        """Wait so long for an event, and take in all that are there, the last of each disk."""
        try:
            device = self._monitor.poll(seconds)
            while device is not None:
                said = device.properties.get("DISKSEQ")
                self._heard[device.sys_name] = int(said) if said is not None else None
                device = self._monitor.poll(0)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # More events came than fit into the socket's buffer, and some are lost.
            self._compare_at = 0.0

    def _changed(self, name: str, said: int | None) -> Change | None:
        """What changed about a disk, ``said`` being the medium that udev spoke of.

        Where cards change fast an event is read when the next card is in, for which udev's rules
        have not run: its links are not there yet. Its own event follows. A kernel before 5.15 does
        not count media, and its events do not say.
        """
        before, now = self._media.get(name), self._kernel.medium(name)
        if now is not None and now == before and not self._has_got_its_name(name):
            return None
        disk = None
        if now is not None and (said is None or now[0] is None or said == now[0]):
            # One that cannot be looked at, perhaps because it goes away, ends no watch over others.
            with suppress(OSError):
                disk = disk_named(name, kernel=self._kernel)
        # It may be taken out, and another one put in, while it is looked at.
        if disk is None or not _medium(disk) == now == self._kernel.medium(name):
            self._media.pop(name, None)
            return Change(name, None) if before is not None else None
        self._keep(name, disk)
        return Change(name, disk)

    def _keep(self, name: str, disk: Disk) -> None:
        self._media[name] = _medium(disk)
        if disk.by_path:
            self._nameless.discard(name)
        else:
            self._nameless.add(name)

    def _has_got_its_name(self, name: str) -> bool:
        """Whether udev named a disk's slot only after the disk was told, as when watching began
        while its rules ran."""
        return name in self._nameless and bool(self._kernel.links(name, "by-path"))

    def _compare(self) -> None:
        """Find the changes that no event told of."""
        self._compare_at = time.monotonic() + _COMPARE_SECONDS
        media, untold = self._now(), self._untold
        self._untold = {}
        for name in media.keys() | self._media.keys():
            now = media.get(name)
            if now is None and name in self._media:
                self._heard.setdefault(name, None)
            elif now is not None and now != self._media.get(name):
                first, since = untold.get(name, (None, 0.0))
                if first != now:
                    since = time.monotonic()
                elif time.monotonic() - since < _SILENCE_SECONDS:
                    self._ask(name)
                else:
                    self._heard[name] = now[0]
                self._untold[name] = now, since

    def _ask(self, name: str) -> None:
        """Have udev speak of a disk again, its rules run anew; the system's administrator may."""
        with suppress(OSError):
            (self._kernel.folder(name) / "uevent").write_text("change")

    def _now(self) -> dict[str, Medium]:
        """What is in every disk that has a medium."""
        found = ((name, self._kernel.medium(name)) for name in self._kernel.disk_names())
        return {name: medium for name, medium in found if medium is not None}


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


def _medium(disk: Disk) -> Medium:
    return disk.diskseq, disk.size_bytes

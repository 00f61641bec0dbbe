"""Cards as they are put in and taken out; each change is reported once.

In: udev's events. udev sends one when its rules have run, so the links in /dev/disk exist by then.
Out: the disk as it is now. Not every event is a new card: udev also sends one when a program closes
a disk it wrote to, and an empty slot of a reader is a disk too. A card has come when the disk holds
another medium than before.

Other disks come and go as well, many times a second where loop devices are tested. So all waiting
events are read first, and only the last one of each disk is kept. Each disk is then looked at once,
and events cannot pile up however slow a look is. An event can get lost, for example while udevd
restarts. So every two seconds the kernel's count of media is compared with what was reported.
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
"""If udev sends no event for a card for so long, though it was asked to and has nothing else to do,
the card is reported without one."""
_BUSY_SECONDS = 200.0
"""The same for a udevd that says it is busy. It gives a rule up after 180 s (udevadm(8)), so one
that is busy for longer was killed. Before that, the links may be those of the medium before: the
card would be told as one in another slot."""


@dataclass(frozen=True, slots=True)
class Change:
    """The medium of the disk with the kernel name ``name`` changed; ``disk`` is None when there
    is none in it now."""

    name: str
    disk: Disk | None


class Arrivals:
    """Which medium is in each disk of this computer. Only one thread may use it."""

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
        """Wait for the next change, at most ``seconds``; None when nothing changed."""
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
        """Wait ``seconds`` for an event, then read all that are there; keep each disk's last."""
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
        """What changed about a disk; ``said`` is the DISKSEQ of the medium the event is about.

        Where cards change fast, the next card is in already when the event is read. udev's rules
        have not run for that card and its links do not exist yet, so it waits for its own event.
        A kernel before 5.15 does not count media; its events have no DISKSEQ.
        """
        before, now = self._media.get(name), self._kernel.medium(name)
        if now is not None and now == before and not self._has_got_its_name(name):
            return None
        disk = None
        if now is not None and (said is None or now[0] is None or said == now[0]):
            # A disk that cannot be read, perhaps because it was just removed, must not end the
            # watch over the others.
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
        """Whether a disk that was reported without links in by-path has one now. This happens when
        watching begins while udev's rules run."""
        return name in self._nameless and bool(self._kernel.links(name, "by-path"))

    def _compare(self) -> None:
        """Find the changes for which no event came."""
        self._compare_at = time.monotonic() + _COMPARE_SECONDS
        media, untold = self._now(), self._untold
        patience = _BUSY_SECONDS if self._kernel.udev_is_busy else _SILENCE_SECONDS
        self._untold = {}
        for name in media.keys() | self._media.keys():
            now = media.get(name)
            if now is None and name in self._media:
                self._heard.setdefault(name, None)
            elif now is not None and now != self._media.get(name):
                first, since = untold.get(name, (None, 0.0))
                if first != now:
                    since = time.monotonic()
                elif time.monotonic() - since < patience:
                    self._ask(name)
                else:
                    self._heard[name] = now[0]
                self._untold[name] = now, since

    def _ask(self, name: str) -> None:
        """Ask udev to run its rules for a disk again and send an event. Needs root."""
        with suppress(OSError):
            (self._kernel.folder(name) / "uevent").write_text("change")

    def _now(self) -> dict[str, Medium]:
        """What is in every disk that has a medium."""
        found = ((name, self._kernel.medium(name)) for name in self._kernel.disk_names())
        return {name: medium for name, medium in found if medium is not None}


@contextmanager
def arrivals(kernel: HostTrees | None = None) -> Iterator[Arrivals]:
    """Watch for cards; raises MissingTool where no udevd runs, which would send the events."""
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
    # Listening begins before the first look: a card that comes between the two is then seen twice.
    # The other way round it would be missed.
    yield Arrivals(monitor, kernel)


def _medium(disk: Disk) -> Medium:
    return disk.diskseq, disk.size_bytes

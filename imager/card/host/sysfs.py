"""What the kernel and udev say about block devices, read and nothing more.

In: sysfs, procfs and udev's database. Out: small facts by device number ("8:17"), never by name
prefix, because sda is a prefix of sdaa. The roots can be those of a made-up tree, so that tests
have LUKS, LVM, md and ZFS holders even where the kernel they run on has none.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyudev

from imager.base.run import find_tool, run
from imager.base.units import SECTOR_BYTES

Properties = Mapping[str, str]

Medium = tuple[int | None, int]
"""By this one medium is told from the next: the kernel's count of media (None before Linux 5.15)
and the size in bytes."""

_UDEVD = Path("/run/udev/control")
_UDEVD_QUEUE = Path("/run/udev/queue")
"""Is there while udevd has events whose rules have not run; udevadm(8) settle waits for its end."""
_udev_lock = threading.Lock()  # a libudev context must not be used by two threads at a time


@cache
def _udev() -> pyudev.Context:
    """The one context, because pyudev searches for libudev (with ldconfig and gcc) for each one."""
    return pyudev.Context()


def udev_properties(number: str) -> Properties:
    """Everything udev knows of the block device ``major:minor``. Empty when it knows nothing, when
    ``number`` is empty because the device has just gone, and when no udevd runs here, because its
    database is then out of date."""
    if not number or not _UDEVD.exists():
        return {}
    major, minor = (int(part) for part in number.split(":"))
    with _udev_lock:
        try:
            device = pyudev.Devices.from_device_number(_udev(), "block", os.makedev(major, minor))
            return {str(name): str(value) for name, value in device.properties.items()}
        except (pyudev.DeviceNotFoundError, ImportError):
            return {}


def blkid_properties(node: Path) -> Properties:
    """What blkid(8) finds on ``node``, under the names udev uses; for hosts without udevd.

    Status 2 is "nothing found", 8 "ambivalent", and also what an ordinary user gets.
    """
    if find_tool("blkid") is None or not os.access(node, os.R_OK):
        return {}
    said = run(["blkid", "-p", "-o", "udev", node], ok=(0, 2, 8)).stdout.decode(errors="replace")
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    number: str
    where: Path
    writable: bool
    """Whether the filesystem can be written to, through this mount or another one of it."""


@dataclass(frozen=True, slots=True)
class HostTrees:
    """The folders to read; the defaults are those of the computer this runs on."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    udev: Callable[[str], Properties] = udev_properties
    blkid: Callable[[Path], Properties] = blkid_properties

    @property
    def udev_runs(self) -> bool:
        """Whether udevd listens on its control socket."""
        return _UDEVD.exists()

    @property
    def udev_is_busy(self) -> bool:
        """Whether udevd has events left, so that what it says of a device may be out of date."""
        return _UDEVD_QUEUE.exists()

    def block_names(self) -> tuple[str, ...]:
        """Every block device and partition the kernel has, by its kernel name."""
        return _names_in(self.sysfs / "class/block")

    def disk_names(self) -> tuple[str, ...]:
        """The same without the partitions."""
        folder = self.sysfs / "class/block"
        names = self.block_names()
        return tuple(name for name in names if not (folder / name / "partition").exists())

    def medium(self, name: str) -> Medium | None:
        """What is in the disk with this kernel name; None where there is no medium, or no disk."""
        sectors, diskseq = self.attribute(name, "size"), self.attribute(name, "diskseq")
        size_bytes = int(sectors or 0) * SECTOR_BYTES
        return (int(diskseq or 0) or None, size_bytes) if size_bytes else None

    def folder(self, name: str) -> Path:
        """The device's own folder in sysfs; a partition's lies inside its disk's."""
        return _real(self.sysfs / "class/block" / name)

    def attribute(self, name: str, attribute: str) -> str:
        """The text of one sysfs attribute, stripped; empty when there is none."""
        try:
            text = (self.sysfs / "class/block" / name / attribute).read_bytes()
        except OSError:
            return ""
        return text.decode(errors="replace").strip("\0 \t\n")

    def number(self, name: str) -> str:
        """``major:minor`` of the device with this kernel name; empty when there is none."""
        return self.attribute(name, "dev")

    def serial(self, name: str) -> str:
        """The serial number udev or sysfs has for a disk; readers without one share their
        model's."""
        return self.udev(self.number(name)).get("ID_SERIAL_SHORT", "") or (
            self.attribute(name, "device/serial") or self.attribute(name, "serial")
        )

    def name_of(self, number: str) -> str | None:
        """The kernel name of ``major:minor``."""
        link = self.sysfs / "dev/block" / number
        if link.exists():
            return _real(link).name
        return next((name for name in self.block_names() if self.number(name) == number), None)

    def listed(self, name: str, folder: str) -> tuple[str, ...]:
        """The names in ``holders`` or ``slaves`` of a device."""
        return _names_in(self.folder(name) / folder)

    def partitions(self, name: str) -> tuple[str, ...]:
        """The kernel names of a disk's partitions, by number."""
        folder = self.folder(name)
        found = [part for part in _names_in(folder) if (folder / part / "partition").exists()]
        return tuple(sorted(found, key=lambda part: int(self.attribute(part, "partition") or 0)))

    def number_at(self, path: str | Path) -> str | None:
        """``major:minor`` of the block device at ``path``, through symlinks; else None."""
        try:
            real = Path(path).resolve()
            status = real.stat()
        except OSError:
            return None
        if stat.S_ISBLK(status.st_mode):
            return device_number(status.st_rdev)
        inside = real.is_relative_to(self.dev.resolve())
        return (self.number(real.name) or None) if inside else None

    def mounts(self) -> Iterator[Mount]:
        """Every mount this process can see, each with the number of a real block device.

        btrfs and others with several disks report a made-up number 0:N, so for those the number
        is the one of the source device.
        """
        for line in self._lines("self/mountinfo"):
            fields, _, tail = line.partition(" - ")
            words, more = fields.split(), tail.split()
            if len(words) < 5 or len(more) < 2:
                continue
            number, source = words[2], unescape(more[1])
            if number.startswith("0:") and source.startswith("/"):
                number = self.number_at(source) or number
            options = more[2].split(",") if len(more) > 2 else ()
            yield Mount(number, Path(unescape(words[4])), "ro" not in options)

    def swaps(self) -> Iterator[str]:
        """The device numbers of swap partitions in use (proc_swaps(5))."""
        for line in self._lines("swaps"):
            number = self.number_at(unescape(line.split()[0])) if line.split() else None
            if number is not None:
                yield number

    def btrfs_members(self) -> Iterator[tuple[str, str]]:
        """(kernel name, filesystem id) of every device of a mounted btrfs."""
        filesystems = self.sysfs / "fs/btrfs"
        for filesystem in _names_in(filesystems):
            for member in _names_in(filesystems / filesystem / "devices"):
                yield member, filesystem

    def zfs_pool_imported(self, pool: str) -> bool:
        """Whether the ZFS pool of this name is in use; ZFS leaves no holder in sysfs."""
        return bool(pool) and (self.proc / "spl/kstat/zfs" / pool).is_dir()

    def loops(self) -> Iterator[tuple[str, str]]:
        """(kernel name, path of the backing file) of every loop device in use."""
        for name in self.block_names():
            backing = self.attribute(name, "loop/backing_file")
            if backing:
                yield name, backing.removesuffix(" (deleted)")

    def properties(self, name: str) -> Properties:
        """udev's properties of a device, with blkid's findings where udev did not look."""
        known = self.udev(self.number(name))
        if "ID_FS_TYPE" in known or "ID_PART_TABLE_TYPE" in known or "ID_PATH" in known:
            return known
        return {**self.blkid(self.dev / name), **known}

    def links(self, name: str, folder: str) -> tuple[str, ...]:
        """The names under /dev/disk/``folder`` that point at this device."""
        base = self.dev / "disk" / folder
        links = (base / link for link in _names_in(base))
        return tuple(str(link) for link in links if _real(link).name == name)

    def _lines(self, name: str) -> list[str]:
        try:
            return (self.proc / name).read_text(errors="surrogateescape").splitlines()
        except OSError:
            return []


def _names_in(folder: Path) -> tuple[str, ...]:
    """The names in a folder, sorted. Empty when there is no such folder, also when it vanishes
    meanwhile, because a device can be taken out while it is looked at."""
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir()))
    except OSError:
        return ()


def _real(path: Path) -> Path:
    """``path`` with its symlinks followed. Path.resolve raises when a link vanishes while it is
    followed; then the path is returned as it is."""
    try:
        return path.resolve()
    except OSError:
        return path


def unescape(word: str) -> str:
    """Undo the octal escapes of blanks and backslashes in /proc (``\\040``)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def device_number(rdev: int) -> str:
    """``major:minor`` of a device number from stat(2)."""
    return f"{os.major(rdev)}:{os.minor(rdev)}"

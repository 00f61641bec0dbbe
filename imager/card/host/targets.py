"""What a path given as TARGET means: a disk, an image file to be, or neither.

In: a path as the person typed it. Out: a Target, after following symlinks exactly once, so that
every later step speaks of the same thing. Of a disk the first MiB is read, so that it is known
again. Nothing is opened for writing here.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from imager.base.durable import host_storage
from imager.base.errors import TargetRefused
from imager.card.host.disks import disk_named
from imager.card.host.first_mib import first_mib_at
from imager.card.host.image_file import ImageFile, state_of
from imager.card.host.sysfs import HostTrees, device_number
from imager.card.host.target import Limits, Refusal, RefusalCode, Target, TargetFacts


@dataclass(frozen=True, slots=True)
class Unsuitable(Target):
    """A path that can never be a target; ``reason`` says what it is, ``hint`` what to give."""

    noun = "no target"

    path: Path
    reason: str
    hint: str

    @property
    def node(self) -> str:
        """See Target."""
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        """See Target."""
        return 0

    @property
    def facts(self) -> TargetFacts:
        """See Target."""
        return TargetFacts(path=self.node, size_bytes=0, bus="")

    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        """See Target: that it is none."""
        del need_bytes, limits
        yield Refusal(RefusalCode.NOT_A_TARGET, self.reason, self.hint)

    def hold(self, size_bytes: int, limits: Limits, kernel: HostTrees) -> NoReturn:
        """See Target: it cannot be."""
        del size_bytes, limits, kernel
        raise TargetRefused(self.reason, hint=self.hint)


_LIST = "picloud-image devices lists the disks of this computer"
_NAME = "give a disk such as /dev/sdb, or a file whose name ends in .img"


def target_at(
    path: Path | str, watched: Iterable[Path] = (), kernel: HostTrees | None = None
) -> Target:
    """What lies at ``path``. ``watched`` are the folders that ``Disk.backs`` looks for. Raises
    HostStorage where this user may not even look."""
    kernel = kernel or HostTrees()
    given = Path(path)
    try:
        real = given.resolve()
        status = real.stat()
    except FileNotFoundError:
        return _absent(given, given.resolve(), kernel)
    except PermissionError:
        with host_storage(given):
            raise
    except (OSError, RuntimeError) as error:
        return Unsuitable(given, f"{given} cannot be looked at: {error}", _NAME)
    if stat.S_ISBLK(status.st_mode):
        return _block(given, device_number(status.st_rdev), watched, kernel)
    if stat.S_ISREG(status.st_mode):
        return _regular(given, real, status.st_size, kernel)
    if stat.S_ISDIR(status.st_mode):
        return Unsuitable(given, f"{given} is a folder, not a block device", _NAME)
    return Unsuitable(given, f"{given} is not a block device", _LIST)


def _block(given: Path, number: str, watched: Iterable[Path], kernel: HostTrees) -> Target:
    name = kernel.name_of(number)
    if name is None:
        return Unsuitable(given, f"{given} is a block device the kernel does not list", _LIST)
    folder = kernel.folder(name)
    if (folder / "partition").exists():
        disk = kernel.dev / folder.parent.name
        return Unsuitable(
            given, f"{given} is a partition of {disk}", f"give the whole disk: {disk}"
        )
    found = disk_named(name, watched, kernel)
    return found.shown_with(first_mib_at(found.node, found.size_bytes, found.logical_bytes))


def _absent(given: Path, real: Path, kernel: HostTrees) -> Target:
    if _among_devices(real, kernel):
        return Unsuitable(given, f"there is no device {given}", _LIST)
    if real.suffix != ".img":
        return Unsuitable(given, f"{given} does not exist and does not end in .img", _NAME)
    if not real.parent.is_dir():
        make = shlex.join(["mkdir", "-p", str(real.parent)])
        return Unsuitable(given, f"there is no folder {real.parent}", f"make it: {make}")
    return _image_file(real, exists=False, size_bytes=0, kernel=kernel)


def _regular(given: Path, real: Path, size_bytes: int, kernel: HostTrees) -> Target:
    if _among_devices(real, kernel):
        return Unsuitable(
            given,
            f"{given} is a plain file among the devices, left by some mistyped command",
            f"look at it, remove it, and give a disk; {_LIST}",
        )
    if real.suffix != ".img":
        return Unsuitable(given, f"{real} is a file that does not end in .img", _NAME)
    return _image_file(real, exists=True, size_bytes=size_bytes, kernel=kernel)


def _among_devices(real: Path, kernel: HostTrees) -> bool:
    """Whether a file at ``real`` would lie in /dev itself (devtmpfs, in memory); /dev/shm and
    other filesystems mounted below it are ordinary places."""
    dev = kernel.dev.resolve()
    if not real.is_relative_to(dev):
        return False
    parent = real.parent
    return not parent.is_dir() or parent.stat().st_dev == dev.stat().st_dev


def _image_file(real: Path, *, exists: bool, size_bytes: int, kernel: HostTrees) -> ImageFile:
    return ImageFile(
        path=real,
        exists=exists,
        size_bytes=size_bytes,
        folder_writable=os.access(real.parent, os.W_OK),
        loops=tuple(
            str(kernel.dev / name)
            # No loop device shows a file that is not there yet.
            for name, backing in (kernel.loops() if exists else ())
            if backing == str(real)
        ),
        state=state_of(real),
    )

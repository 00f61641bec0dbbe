"""Opens a disk for this program alone, and makes sure that it is still the one that was confirmed.

In: what was known of a disk when the person said yes. Out: a HeldTarget for as long as the
``with`` block lasts. O_EXCL on the whole disk keeps mounts and holders away, flock(2) keeps udev
from probing a half-written disk (systemd: "Locking Block Device Access"), and the identity is read
again from the open descriptor, because /dev/sdb may be another disk a second after the person said
yes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import TargetRefused
from imager.base.run import find_tool, run
from imager.card.host.disk_facts import DiskFacts
from imager.card.host.sysfs import HostTrees, device_number
from imager.card.host.target import HeldTarget
from imager.card.host.usage import uses_of
from imager.card.medium.raw import (
    BLKGETDISKSEQ,
    BLKGETSIZE64,
    BLKROGET,
    BLKSSZGET,
    Descriptor,
    ask,
)
from imager.card.medium.reopen import fresh_read

_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.1
NO_DIRECT = "direct I/O is not available; caches were flushed and dropped instead"
NO_LOCK = "the device cannot be locked; udev was not kept away"


@contextmanager
def held_disk(disk: DiskFacts, kernel: HostTrees) -> Iterator[HeldTarget]:
    """Open ``disk`` and lock it. After the block, wait until udev has finished with it.

    Raises TargetRefused when somebody uses it, when another disk is there now, or when it may
    not be opened.
    """
    held = False
    try:
        with _opened(disk, kernel) as (fd, direct):
            fallbacks = [] if direct else [NO_DIRECT]
            if not _locked(fd, disk):
                fallbacks.append(NO_LOCK)
            found = open_identity(fd, kernel)
            _require_same(disk, found)
            raw = Descriptor(fd, disk.node, found.size_bytes, found.logical_bytes)
            again = f"/proc/self/fd/{fd}"
            held = True
            yield HeldTarget(
                raw=raw,
                reopen=lambda: fresh_read(again, raw.name, raw.size_bytes, raw.block_bytes),
                keep=lambda: None,
                fallbacks=tuple(fallbacks),
            )
    finally:
        if held:
            settle(kernel)


def settle(kernel: HostTrees) -> None:
    """Wait up to 10 s until udev has finished with the released disk. Never call it while the disk
    is locked, because udev waits for the lock."""
    if kernel.udev_runs and find_tool("udevadm"):
        run(["udevadm", "settle", "--timeout=10"], ok=(0, 1))


@dataclass(frozen=True, slots=True)
class OpenIdentity:
    """What an open descriptor of a block device says it is."""

    number: str
    size_bytes: int
    logical_bytes: int
    read_only: bool
    diskseq: int | None
    serial: str


def open_identity(fd: int, kernel: HostTrees) -> OpenIdentity:
    """Ask the device behind ``fd`` itself, not its name, who it is."""
    number = device_number(os.fstat(fd).st_rdev)
    diskseq = None
    with suppress(OSError):
        diskseq = ask(fd, BLKGETDISKSEQ, "Q") or None
    name = kernel.name_of(number)
    return OpenIdentity(
        number=number,
        size_bytes=ask(fd, BLKGETSIZE64, "Q"),
        logical_bytes=ask(fd, BLKSSZGET),
        read_only=bool(ask(fd, BLKROGET)),
        diskseq=diskseq,
        serial=kernel.serial(name) if name else "",
    )


def identity_changes(confirmed: DiskFacts, found: OpenIdentity) -> tuple[str, ...]:
    """How the opened device differs from the confirmed disk; empty when it is the same."""
    pairs = (
        ("device number", confirmed.number, found.number),
        ("size in bytes", confirmed.size_bytes, found.size_bytes),
        ("medium count (diskseq)", confirmed.diskseq, found.diskseq),
        ("serial number", confirmed.serial, found.serial),
    )
    return tuple(f"{what}: {old} then, {new} now" for what, old, new in pairs if old != new)


def _require_same(disk: DiskFacts, found: OpenIdentity) -> None:
    changes = identity_changes(disk, found)
    if changes:
        raise TargetRefused(
            f"{disk.node} is no longer the disk that was confirmed",
            hint="a card or reader was exchanged; look again and start again",
            details=changes,
        )
    if found.read_only:
        raise TargetRefused(
            f"{disk.node} turned read-only",
            hint="check the lock on the card's edge; a worn-out card locks itself",
        )


@contextmanager
def _opened(disk: DiskFacts, kernel: HostTrees) -> Iterator[tuple[int, bool]]:
    """The disk open for us alone, and whether with direct I/O."""
    flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
    deadline = time.monotonic() + _PATIENCE_SECONDS
    direct = os.O_DIRECT
    while True:
        try:
            fd = os.open(disk.node, flags | direct)
            break
        except OSError as error:
            if error.errno == errno.EINVAL and direct:
                direct = 0
            elif error.errno == errno.EBUSY and time.monotonic() < deadline:
                # A desktop's prober may hold a fresh card for a moment.
                time.sleep(_RETRY_SECONDS)
            else:
                raise _not_opened(disk, error, kernel) from error
    try:
        yield fd, bool(direct)
    finally:
        os.close(fd)


def _not_opened(disk: DiskFacts, error: OSError, kernel: HostTrees) -> TargetRefused:
    if error.errno == errno.EBUSY:
        return TargetRefused(
            f"{disk.node} is in use by another program",
            hint="end what uses it (a desktop may have mounted the card), then try again",
            details=[*map(str, uses_of(disk.kernel_name, kernel)), *openers(disk.number)],
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return not_allowed(disk.node)
    return TargetRefused(
        f"{disk.node} cannot be opened: {os.strerror(error.errno or 0)}",
        hint="put the card in again, or try another reader",
    )


def not_allowed(node: str) -> TargetRefused:
    """The refusal for a disk that this user may not write to."""
    return TargetRefused(
        f"{node}: you may not write to this disk",
        hint="run the command with sudo, or join the group that owns the disk "
        "(docs/permissions.md)",
    )


def openers(number: str, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """``process 812 (parted) has it open``, for every other process we may look into."""
    found = []
    for folder in proc.glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        with suppress(OSError):
            if any(_is_device(link, number) for link in (folder / "fd").iterdir()):
                name = (folder / "comm").read_text(errors="replace").strip()
                found.append(f"process {folder.name} ({name}) has it open")
    return tuple(found)


def _is_device(link: Path, number: str) -> bool:
    with suppress(OSError):
        status = link.stat()
        return status.st_rdev != 0 and device_number(status.st_rdev) == number
    return False


def _locked(fd: int, disk: DiskFacts) -> bool:
    """Take the exclusive lock; False when locks do not work here.

    udev holds a shared lock while it probes, so this waits a little; whoever holds it longer is
    another program at work on the disk.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise TargetRefused(
                    f"{disk.node} is locked by another program",
                    hint="wait until it is done, or end it, then try again",
                    details=openers(disk.number),
                ) from error
            time.sleep(_RETRY_SECONDS)
        except OSError:
            return False

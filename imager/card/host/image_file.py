"""An image file as a target: written beside its name, given its name when it is proven.

In: a path and a size. Out: a HeldTarget over ``.NAME.partial`` in the same folder. A file
that has the name already stays as it is until the new image was read back, so nobody can take a
half-made image for a whole one. The file is private from birth, because a card holds its node's
keys, and belongs to whom the folder belongs.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from imager.base.durable import fsync_folder, how_to_be_allowed
from imager.base.errors import CardIOError, TargetRefused
from imager.base.ownership import give_to
from imager.base.units import KiB, format_size
from imager.card.host.private_file import open_private, removal
from imager.card.host.refusals import own_files
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import (
    HeldTarget,
    Limits,
    Refusal,
    RefusalCode,
    Target,
    TargetFacts,
)
from imager.card.medium.raw import Descriptor
from imager.card.medium.reopen import fresh_read
from imager.disk.extents import Extent

_HOLE_BYTES = 64 * KiB
_ZEROS = bytes(_HOLE_BYTES)
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SparseFile:
    """A RawCard over a file: zeros stay holes where it has holes, and are written elsewhere."""

    inner: Descriptor
    name: str = field(init=False)
    size_bytes: int = field(init=False)
    block_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        for attribute in ("name", "size_bytes", "block_bytes"):
            object.__setattr__(self, attribute, getattr(self.inner, attribute))

    def pread(self, offset: int, buffer: memoryview) -> int:
        """See RawCard."""
        return self.inner.pread(offset, buffer)

    def pwrite(self, offset: int, data: memoryview) -> int:
        """Write up to the next stretch of zeros, or skip such a stretch in a hole; a short write
        either way, which the caller's loop continues."""
        zeros, length = is_zero(data[:_HOLE_BYTES]), 0
        while length < len(data) and is_zero(data[length : length + _HOLE_BYTES]) == zeros:
            length += _HOLE_BYTES
        length = min(length, len(data))
        if zeros and self._is_hole(Extent(offset, length)):
            return length
        return self.inner.pwrite(offset, data[:length])

    def flush(self) -> None:
        """See RawCard."""
        self.inner.flush()

    def _is_hole(self, extent: Extent) -> bool:
        """Whether nothing but zeros is there. A filesystem that knows no holes says no."""
        try:
            return os.lseek(self.inner.fd, extent.offset, os.SEEK_DATA) >= extent.end
        except OSError as error:
            return error.errno == errno.ENXIO  # nothing but a hole is left


def is_zero(piece: memoryview) -> bool:
    """Whether ``piece`` (1 byte to 64 KiB) is all zeros."""
    return piece[0] == 0 and bytes(piece) == _ZEROS[: len(piece)]


FileState: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of content: another one was written anew."""


def state_of(path: Path) -> FileState | None:
    """The state of the file there; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class ImageFile(Target):
    """A file ending in ``.img`` that exists or may be made.

    ``size_bytes`` is its present size (0 when there is none), ``loops`` the loop devices that
    show its present content, ``state`` tells whether it is another one by now.
    """

    noun = "an image file"
    made_anew = True

    path: Path
    exists: bool
    size_bytes: int = field()  # else the property of Target would be its default
    folder_writable: bool
    loops: tuple[str, ...] = ()
    state: FileState | None = None

    @property
    def node(self) -> str:
        """See Target."""
        return str(self.path)

    @property
    def title(self) -> str:
        """See Target."""
        if not self.exists:
            return f"{self.path}: a new image file"
        return f"{self.path}: an image file of {format_size(self.size_bytes)}, to be replaced"

    @property
    def is_new(self) -> bool:
        """See Target."""
        return not self.exists

    @property
    def facts(self) -> TargetFacts:
        """See Target."""
        return TargetFacts(path=self.node, size_bytes=self.size_bytes, bus="file")

    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        """See Target. Whether there is room for it shows when it is held."""
        del need_bytes
        for folder in limits.ours:
            kept = (folder / "golden", folder / "releases")
            if any(self.path.is_relative_to(inner) for inner in kept):
                yield own_files(self.node, folder)
        for loop in self.loops:
            yield Refusal(
                RefusalCode.LOOP_ON_TOP,
                f"{loop} is attached to {self.path}",
                f"detach it: losetup -d {loop}",
            )
        if not self.folder_writable:
            yield Refusal(
                RefusalCode.READ_ONLY,
                f"the folder {self.path.parent} cannot be written",
                "choose a folder of your own",
            )

    @contextmanager
    def hold(self, size_bytes: int, limits: Limits, kernel: HostTrees) -> Iterator[HeldTarget]:
        """See Target: an empty file of ``size_bytes`` that becomes this one when kept, else is
        removed. TargetRefused when another run writes the same image, or has written it since
        it was shown, or when somebody put something else there; CardIOError when the folder's
        filesystem refuses (full, read-only, file too large)."""
        del limits, kernel
        partial = self.path.with_name(f".{self.path.name}.partial")
        block = _BLOCK_BYTES if size_bytes % _BLOCK_BYTES == 0 else 1
        try:
            fd = _open_alone(partial, self.path)
        except OSError as error:
            raise _file_error(self.path, "making the file", error) from error
        raw = Descriptor(fd, self.node, size_bytes, block)
        kept = False

        def keep() -> None:
            nonlocal kept
            try:
                os.fsync(fd)
                partial.replace(self.path)
                kept = True
                fsync_folder(self.path.parent)
            except OSError as error:
                raise _file_error(self.path, "giving the file its name", error) from error

        try:
            if state_of(self.path) != self.state:
                raise TargetRefused(
                    f"{self.path} is not what it was when it was shown: another run wrote it",
                    hint="if it may be overwritten all the same, run the same command again",
                )
            try:
                give_to(fd, self.path.parent.stat())
                os.ftruncate(fd, 0)
                os.fchmod(fd, 0o600)
                os.ftruncate(fd, size_bytes)
            except OSError as error:
                raise _file_error(self.path, "setting its size", error) from error
            again = f"/proc/self/fd/{fd}"
            yield HeldTarget(
                raw=SparseFile(raw),
                reopen=lambda: fresh_read(again, raw.name, size_bytes, block),
                keep=keep,
            )
        finally:
            if not kept:
                partial.unlink(missing_ok=True)
            os.close(fd)


def _file_error(path: Path, doing: str, error: OSError) -> CardIOError:
    """What this computer's own disk did not do: no card is to blame."""
    hint = (
        how_to_be_allowed()
        if isinstance(error, PermissionError)
        else "free some space, or choose a folder on another disk"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "choose a folder on an ordinary filesystem, such as ext4, xfs or btrfs"
    )
    return CardIOError(f"{path}: {doing} failed: {os.strerror(error.errno or 0)}", hint=hint)


def _open_alone(partial: Path, path: Path) -> int:
    """Open the partial file and lock it. If another run removed it meanwhile, begin again."""
    while True:
        fd = open_private(partial, os.O_RDWR | os.O_CREAT, _in_the_way)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if partial.exists() and partial.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except BlockingIOError as error:
            os.close(fd)
            raise TargetRefused(
                f"{path} is being written by another run",
                hint="wait until it is done, or give another name",
            ) from error
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _in_the_way(what: str, partial: Path) -> TargetRefused:
    """The error for what lies where a new image is made: what is written there could be read."""
    return TargetRefused(what, hint=f"choose another folder, or remove it: {removal(partial)}")

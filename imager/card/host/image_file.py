"""An image file as a target: written beside its name, given its name when it is proven.

In: a path and a size. Out: a HeldTarget over ``.NAME.partial`` in the same folder. What stands
under the name before stays as it is until the new image was read back, so nothing half-made is
ever taken for whole. The file is private from birth, because a card holds its node's keys.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.durable import fsync_folder
from imager.base.errors import TargetRefused
from imager.base.units import KiB, format_size
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
from imager.card.medium.raw import Descriptor, RawCard, card_error
from imager.card.medium.reopen import fresh_read

_HOLE_BYTES = 64 * KiB
_ZEROS = bytes(_HOLE_BYTES)
_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SparseFile:
    """A RawCard over a file that holds nothing but holes at first; zeros stay holes.

    Only for the first writing of a fresh file: zeros written over other bytes would be lost.
    """

    inner: RawCard
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
        """Write up to the next stretch of zeros, or skip such a stretch; a short write either
        way, which the caller's loop continues."""
        zeros, length = is_zero(data[:_HOLE_BYTES]), 0
        while length < len(data) and is_zero(data[length : length + _HOLE_BYTES]) == zeros:
            length += _HOLE_BYTES
        length = min(length, len(data))
        return length if zeros else self.inner.pwrite(offset, data[:length])

    def flush(self) -> None:
        """See RawCard."""
        self.inner.flush()


def is_zero(piece: memoryview) -> bool:
    """Whether ``piece`` (1 byte to 64 KiB) is all zeros."""
    return piece[0] == 0 and bytes(piece) == _ZEROS[: len(piece)]


@dataclass(frozen=True, slots=True)
class ImageFile(Target):
    """A file ending in ``.img`` that exists or may be made.

    ``size_bytes`` is its present size (0 when there is none), ``loops`` the loop devices that
    show its present content.
    """

    noun = "an image file"
    made_anew = True

    path: Path
    exists: bool
    size_bytes: int = field()  # else the property of Target would be its default
    folder_writable: bool
    loops: tuple[str, ...] = ()

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
        removed. TargetRefused when another run writes the same image, CardIOError when the
        folder's filesystem refuses (full, read-only, file too large)."""
        del limits, kernel
        partial = self.path.with_name(f".{self.path.name}.partial")
        block = _BLOCK_BYTES if size_bytes % _BLOCK_BYTES == 0 else 1
        nowhere = Descriptor(-1, self.node, size_bytes, block)
        try:
            fd = _open_alone(partial, self.path)
        except OSError as error:
            raise card_error(nowhere, "making the file", error) from error
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
                raise card_error(raw, "giving the file its name", error) from error

        try:
            try:
                os.ftruncate(fd, 0)
                os.fchmod(fd, 0o600)
                os.ftruncate(fd, size_bytes)
            except OSError as error:
                raise card_error(raw, "setting its size", error) from error
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


def _open_alone(partial: Path, path: Path) -> int:
    """Open the partial file and lock it; a file another run unlinked meanwhile is let go."""
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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

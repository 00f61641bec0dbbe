"""The card as bytes: all that writing and verifying need of it.

In: an open descriptor. Out: complete reads and complete writes at aligned offsets, or one error
that names the card, the byte, and what to do. ``RawCard`` is a protocol, so that tests can use a
card that returns wrong bytes, stops in the middle of a write, or disappears.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from imager.base.errors import CardIOError
from imager.base.units import SECTOR_BYTES, KiB

# <linux/fs.h>: _IO(0x12, n) and _IOR(0x12, n, type).
BLKROGET = 0x125E
BLKFLSBUF = 0x1261
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80001272 | struct.calcsize("N") << 16
BLKGETDISKSEQ = 0x80081280


SMALLER_BYTES = (64 * KiB, 4 * KiB)
"""A refused transfer is tried again in pieces of these sizes, to find the bad block."""


class RawCard(Protocol):
    """A card that can be read and written at offsets and lengths that are multiples of
    ``block_bytes``, from memory that is aligned likewise."""

    @property
    def name(self) -> str:
        """Its name in messages: ``/dev/sdb``, ``build/pi7.img``."""

    @property
    def size_bytes(self) -> int:
        """How many bytes it says it holds."""

    @property
    def block_bytes(self) -> int:
        """The alignment that it requires; 1 when it requires none."""

    def pread(self, offset: int, buffer: memoryview) -> int:
        """Read into ``buffer``; returns the number of bytes read, 0 at the end. Raises OSError."""

    def pwrite(self, offset: int, data: memoryview) -> int:
        """Write ``data``; returns the number of bytes written, perhaps not all. Raises OSError."""

    def flush(self) -> None:
        """Return when all that was written is on the card itself. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A RawCard over an open file descriptor.

    When a disk is pulled out, the kernel treats it as a disk of size 0: writes fail because there
    is no room, and reads return nothing (block/fops.c). Here both raise ENODEV instead.
    """

    fd: int
    name: str
    size_bytes: int
    block_bytes: int

    def pread(self, offset: int, buffer: memoryview) -> int:
        """See RawCard."""
        count = os.preadv(self.fd, [buffer], offset)
        if count == 0:
            self._require_present()
        return count

    def pwrite(self, offset: int, data: memoryview) -> int:
        """See RawCard."""
        try:
            return os.pwrite(self.fd, data, offset)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._require_present()
            raise

    def flush(self) -> None:
        """fdatasync(2), which also empties the device's own write cache."""
        os.fdatasync(self.fd)

    def _require_present(self) -> None:
        if stat.S_ISBLK(os.fstat(self.fd).st_mode) and ask(self.fd, BLKGETSIZE64, "Q") == 0:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def aligned_buffer(size_bytes: int) -> memoryview:
    """Memory of zeros that begins at a page border, as O_DIRECT requires (open(2))."""
    return memoryview(mmap.mmap(-1, size_bytes))


def write_fully(card: RawCard, offset: int, data: memoryview) -> None:
    """Write all of ``data`` at byte ``offset``, in several writes where the kernel takes only a
    part.

    Raises CardIOError with the byte at which the card refused.
    """
    while data:
        try:
            taken = card.pwrite(offset, data)
        except OSError as error:
            raise card_error(card, f"writing at byte {offset}", error, offset) from error
        # If the write ended inside a block, the whole block is written again: direct I/O must begin
        # at the start of a block.
        taken -= taken % card.block_bytes
        if taken == 0:
            raise CardIOError(
                f"{card.name}: the card takes no more bytes at byte {offset}",
                hint="it ends earlier than it says, or broke off; try another card or reader",
            )
        offset, data = offset + taken, data[taken:]


def write_stubbornly(
    card: RawCard, offset: int, data: memoryview, steps: Sequence[int] = SMALLER_BYTES
) -> bool:
    """As ``write_fully``; what is refused is tried again in smaller pieces. Returns whether that
    was needed.

    Raises CardIOError with the single block that the card refuses, or at once where trying again is
    useless. For direct I/O only: without it errors are reported later, by a flush.
    """
    try:
        write_fully(card, offset, data)
    except CardIOError as error:
        if not steps or not is_refusal(error):
            raise
        for start in range(0, len(data), steps[0]):
            piece = data[start : start + steps[0]]
            write_stubbornly(card, offset + start, piece, steps[1:])
        return True
    return False


def read_fully(card: RawCard, offset: int, buffer: memoryview) -> None:
    """Fill ``buffer`` from byte ``offset``; raises CardIOError with the byte that failed."""
    while buffer:
        try:
            count = card.pread(offset, buffer)
        except OSError as error:
            raise card_error(card, f"reading at byte {offset}", error, offset) from error
        count -= count % card.block_bytes
        if count == 0:
            raise CardIOError(
                f"{card.name}: the card ends at byte {offset}, before its size of "
                f"{card.size_bytes} bytes",
                hint="try another reader; if it says the same, the card is broken",
            )
        offset, buffer = offset + count, buffer[count:]


def read_stubbornly(
    card: RawCard,
    offset: int,
    buffer: memoryview,
    steps: Sequence[int] = (*SMALLER_BYTES, SECTOR_BYTES),
) -> None:
    """As ``read_fully``; what is refused is tried again in smaller pieces, and the CardIOError is
    that of the single block that the card refuses."""
    try:
        read_fully(card, offset, buffer)
    except CardIOError as error:
        smaller = [step for step in steps if card.block_bytes <= step < len(buffer)]
        if not smaller or not is_refusal(error):
            raise
        for start in range(0, len(buffer), smaller[0]):
            piece = buffer[start : start + smaller[0]]
            read_stubbornly(card, offset + start, piece, smaller[1:])


def flush(card: RawCard) -> None:
    """Flush ``card``; raises CardIOError when it could not store what was written before."""
    try:
        card.flush()
    except OSError as error:
        raise card_error(card, "storing what was written", error) from error


_AGAIN = "try again in another reader or port; if it fails again, throw the card away"
_VANISHED = "the card or reader is gone: put it back, look at cable and hub, and begin again"
_LOCKED = "the card locked itself, as worn-out cards do, or its lock slid: use another card"
_HINTS = {
    errno.ENOSPC: "there is no room left: free some, or choose another place",
    errno.EDQUOT: "your quota there is used up: free some room, or choose another place",
    errno.EROFS: _LOCKED,
    errno.EACCES: _LOCKED,
    errno.EPERM: _LOCKED,
    errno.ENODEV: _VANISHED,
    errno.ENXIO: _VANISHED,
    errno.ENOMEDIUM: _VANISHED,
    errno.ESHUTDOWN: _VANISHED,
}
_GONE = {number for number, hint in _HINTS.items() if hint is _VANISHED}
_OUR_MISTAKES = {errno.EINVAL, errno.EBADF, errno.EFAULT}


def card_error(card: RawCard, doing: str, error: OSError, offset: int | None = None) -> Exception:
    """The CardIOError for an OSError while ``doing`` something. An OSError that only a mistake of
    this program can cause is returned unchanged."""
    if error.errno in _OUR_MISTAKES:
        return error
    said = os.strerror(error.errno or errno.EIO)
    failed = CardIOError(
        f"{card.name}: {doing} failed: {said}", hint=_HINTS.get(error.errno or 0, _AGAIN)
    )
    failed.offset = offset
    return failed


def is_gone(error: CardIOError) -> bool:
    """Whether the whole card does not answer any more, so that it is useless to try other places.
    A card that ends before its size counts as gone too."""
    cause = error.__cause__
    return not isinstance(cause, OSError) or cause.errno in _GONE


def is_refusal(error: CardIOError) -> bool:
    """Whether the card refused this transfer, for a reason that may not apply to others."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno not in _HINTS


def ask(fd: int, request: int, kind: str = "i") -> int:
    """The number that an ioctl of <linux/fs.h> returns; ``kind`` is its type code as in
    ``array``."""
    answer = array.array(kind, [0])
    fcntl.ioctl(fd, request, answer)
    return answer[0]


def drop_cache(fd: int) -> bool:
    """Ask the kernel to drop its cached pages of this file; False when it may have kept some.

    posix_fadvise(2) is only a request; BLKFLSBUF does it for a block device and needs privileges.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        fcntl.ioctl(fd, BLKFLSBUF, 0)
    except OSError:
        return False
    return True

"""An ext4 filesystem as it will be when its journal is replayed, without writing to it.

In: a way to read a disk. Out: a reader that gives each block as its newest copy in the journal.
When a computer loses power, the newest state of a file is often only in the journal, and the block
where the file lies is older. The format is jbd2's (kernel,
Documentation/filesystems/ext4/journal.rst); numbers in it are big endian.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

from imager.base.units import align_down
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error, Ext4Unknown
from imager.disk.extents import Extent
from imager.disk.manifest import Reader

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5
_SUPERBLOCKS = (3, 4)
_64BIT, _CSUM_V2, _CSUM_V3 = 0x2, 0x8, 0x10
_KNOWN = 0x1 | _64BIT | 0x4 | _CSUM_V2 | _CSUM_V3
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8
_HEADER = struct.Struct(">III")


@dataclass(frozen=True, slots=True)
class _Tag:
    """Block ``target`` of the filesystem has a copy in the journal's block ``copy``."""

    target: int
    copy: int
    escaped: bool


@dataclass(slots=True)
class _Transaction:
    tags: list[_Tag] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)


def replayed(read: Reader, offset: int, budget: Budget | None = None) -> Reader:
    """``read`` of a disk with the filesystem at byte ``offset`` as it is after its journal is
    replayed; ``read`` itself where there is nothing to replay.

    Raises Ext4Error when filesystem or journal cannot be understood, OverBudget when the journal
    is longer than ``budget`` allows.
    """
    filesystem = Ext4.open(read, offset, budget)
    if not filesystem.needs_recovery:
        return read
    journal = _Journal(read, filesystem.journal_extents, filesystem.block_size, filesystem.budget)
    copies = journal.copies()
    size = filesystem.block_size

    def reading(start: int, length: int) -> bytes:
        data = bytearray(read(start, length))
        first = align_down(start - offset, size)
        for at in range(max(0, first), start + length - offset, size):
            tag = copies.get(at // size)
            if tag is not None:
                block = journal.content(tag)
                low, high = max(offset + at, start), min(offset + at + size, start + length)
                data[low - start : high - start] = block[low - offset - at : high - offset - at]
        return bytes(data)

    return reading


def require_journal(read: Reader, filesystem: Ext4) -> None:
    """Raise Ext4Error where ``filesystem`` keeps a journal that a kernel would refuse, and the
    whole filesystem with it."""
    if filesystem.has_journal:
        extents = filesystem.journal_extents
        if not extents:
            raise Ext4Error("the journal has no blocks")
        with suppress(Ext4Unknown):
            _Journal(read, extents, filesystem.block_size, filesystem.budget)


class _Journal:
    """The journal, read block after block; no step takes longer than the journal is long."""

    def __init__(
        self, read: Reader, extents: tuple[Extent, ...], block_size: int, budget: Budget
    ) -> None:
        self._read, self._size, self._budget = read, block_size, budget
        self._extents = extents
        counts = (part.length // block_size for part in extents)
        # Block number of the journal at which each of its pieces begins, and where the last ends.
        self._starts = [0, *accumulate(counts)]
        raw = self.block(0)
        magic, kind, _ = _HEADER.unpack_from(raw)
        geometry: tuple[int, ...] = struct.unpack_from(">IIIII", raw, 12)
        size, length, first, sequence, start = geometry
        (incompat,) = struct.unpack_from(">I", raw, 40)
        if magic != _MAGIC or kind not in _SUPERBLOCKS or size != block_size:
            raise Ext4Error("the journal does not begin with its superblock")
        if incompat & ~_KNOWN:
            raise Ext4Unknown(f"the journal uses features this reader does not know: {incompat:#x}")
        if not 0 < first < length <= self._starts[-1] or start >= length:
            raise Ext4Error("the journal's geometry is impossible")
        self._first, self._length = first, length
        self._sequence, self._start, self._incompat = sequence, start, incompat

    def block(self, number: int) -> bytes:
        """Block ``number`` of the journal."""
        if not 0 <= number < self._starts[-1]:
            raise Ext4Error(f"the journal has no block {number}")
        piece = bisect_right(self._starts, number) - 1
        inside = (number - self._starts[piece]) * self._size
        return self._read(self._extents[piece].offset + inside, self._size)

    def content(self, tag: _Tag) -> bytes:
        """The block that ``tag`` is a copy of."""
        data = self.block(tag.copy)
        return _MAGIC.to_bytes(4, "big") + data[4:] if tag.escaped else data

    def copies(self) -> dict[int, _Tag]:
        """Block of the filesystem -> its newest complete copy in the journal. Left out are blocks
        of which the journal says later that the copy must not be used (revoked)."""
        found: dict[int, _Tag] = {}
        for transaction in self._transactions():
            found.update((tag.target, tag) for tag in transaction.tags)
            # A block that was written again after its revocation is no longer in the list.
            for block in transaction.revoked:
                found.pop(block, None)
        return found

    def _transactions(self) -> Iterator[_Transaction]:
        """Every complete transaction, oldest first. The journal ends at the first block that does
        not carry the next sequence number."""
        position, sequence = self._start, self._sequence
        current, steps = _Transaction(), 0
        while position and steps < self._length:
            self._budget.step(10)
            raw = self.block(position)
            magic, kind, number = _HEADER.unpack_from(raw)
            if magic != _MAGIC or number != sequence & 0xFFFFFFFF:
                return
            taken = 1
            if kind == _DESCRIPTOR:
                for tag_number, (target, flags) in enumerate(self._tags(raw), 1):
                    self._budget.step(2)
                    self._budget.keep_pieces()
                    copy = self._after(position, tag_number)
                    current.tags.append(_Tag(target, copy, bool(flags & _ESCAPED)))
                    taken += 1
            elif kind == _REVOKE:
                revoked = self._revoked(raw)
                self._budget.keep_pieces(len(revoked))
                current.revoked += revoked
            elif kind == _COMMIT:
                yield current
                current, sequence = _Transaction(), sequence + 1
            else:
                return
            position, steps = self._after(position, taken), steps + taken

    def _after(self, position: int, count: int) -> int:
        past = position - self._first + count
        return self._first + past % (self._length - self._first)

    def _tags(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """(block, flags) of each tag of a descriptor block."""
        wide, v3 = self._incompat & _64BIT, self._incompat & _CSUM_V3
        size = 16 if v3 else 12 if wide else 8
        end = len(raw) - (4 if self._incompat & (_CSUM_V2 | _CSUM_V3) else 0)
        at = _HEADER.size
        while at + size <= end:
            if v3:
                low, flags, high = struct.unpack_from(">III", raw, at)
            else:
                low, _, flags = struct.unpack_from(">IHH", raw, at)
                (high,) = struct.unpack_from(">I", raw, at + 8) if wide else (0,)
            yield low | (high << 32 if wide else 0), flags
            if flags & _LAST:
                return
            at += size + (0 if flags & _SAME_UUID else 16)

    def _revoked(self, raw: bytes) -> list[int]:
        (used,) = struct.unpack_from(">I", raw, _HEADER.size)
        kind = ">Q" if self._incompat & _64BIT else ">I"
        width = struct.calcsize(kind)
        start = _HEADER.size + 4
        count = max(0, min(used, len(raw)) - start) // width
        return [block for (block,) in struct.iter_unpack(kind, raw[start : start + count * width])]

"""Which bytes of a whole disk count: what a copy of it must have, and what nobody reads.

In: a way to read a disk, and its size. Out: ranges of bytes by ascending place, each as soon as it
is known, and for each partition in words what was found. Of FAT and ext2, ext3 and ext4 the blocks
in use count; of everything else all bytes do: other filesystems, swap, RAID, LVM, encryption, what
is damaged or unknown, and what lies before and between partitions. What lies behind the last
partition is left to the caller (``InUse.behind``).

The ranges are asked for one by one, so that a disk image which is only just being unpacked can be
read through the same function: before a range is given, nothing is read but what tells it, and
nothing before an earlier range's end is read again. A way to read that cannot go so far ahead
raises NotAtHand, and then all of the partition counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

from imager.base.units import SECTOR_BYTES
from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4 import maps as ext4_maps
from imager.disk.ext4.format import (
    INCOMPAT_RECOVER,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_OFFSET,
    Ext4Error,
    parse_superblock,
)
from imager.disk.ext4.journal import replayed
from imager.disk.ext4.volume import Volume
from imager.disk.extents import Extent
from imager.disk.fat import maps as fat_maps
from imager.disk.fat.geometry import FatError, parse_geometry
from imager.disk.manifest import NotAtHand, Reader
from imager.disk.mbr import MbrError, Partition, parse
from imager.disk.padded import padded
from imager.disk.signature import signature_at
from imager.disk.table import EXTENDED, TYPE_PROTECTIVE, TablePartition, read_table

_MAPPED = ("ext", "FAT")
_MEMBER_MARKS = ((0, b"\xfc\x4e\x2b\xa9"), (4096, b"\xfc\x4e\x2b\xa9"), (536, b"LVM2 001"))
"""A member of a RAID or LVM may still have the mark of the filesystem that was there before."""


@dataclass(frozen=True, slots=True)
class Area:
    """A partition, or a disk that has none; ``name`` is ``p2``, or ``disk``.

    ``kind`` says what is in it, as ``signature`` calls it. ``used_bytes`` of ``extent`` count.
    ``note`` is a sentence about why it is all of them, or else empty. ``dirty`` says that a journal
    is to be replayed.
    """

    name: str
    extent: Extent
    kind: str
    used_bytes: int
    note: str = ""
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    extent: Extent
    note: str = ""


class InUse:
    """The bytes of one disk that count. The table of partitions is read at once, and the rest of
    what is said about the disk as ``ranges`` comes to it.

    ``size_bytes`` may be ``sys.maxsize`` where nobody knows the size yet; a range may then reach
    beyond the end. ``areas`` are those that ``ranges`` has left behind, ``note`` says why the disk
    has no partitions, if it has none. ``end`` is where the last partition ends; it moves on when
    ``ranges`` comes to a filesystem that is longer than its partition.
    """

    def __init__(self, read: Reader, size_bytes: int, budget: Budget | None = None) -> None:
        self._read = padded(read, size_bytes)
        self._budget = budget or Budget()
        self.size_bytes = size_bytes
        self.areas: list[Area] = []
        self.note = ""
        self.has_gpt = False
        self._containers_end = 0
        self._parts = _apart(self._partitions(), size_bytes)
        self.end = max((part.extent.end for part in self._parts), default=size_bytes)
        self.end = min(max(self.end, self._containers_end), size_bytes)

    @property
    def behind(self) -> Extent:
        """What lies behind the last partition; a GPT has its second copy at the end of that."""
        return Extent(self.end, self.size_bytes - self.end)

    def ranges(self) -> Iterator[Extent]:
        """The bytes before ``end`` that count, by ascending place; neighbours may touch. A range
        without bytes says that nothing else before it counts. Raises whatever the way to read
        raises, but NotAtHand."""
        position = 0
        for part in self._parts:
            yield from _whole(position, part.extent.offset)
            # The free end of the partition before may be longer than a stream can be held.
            yield Extent(part.extent.offset, 0)
            yield from self._of(part)
            position = part.extent.end
        yield from _whole(position, self.end)

    def _partitions(self) -> list[_Part]:
        whole = Extent(0, self.size_bytes)
        try:
            mbr = parse(self._read(0, SECTOR_BYTES))
        except MbrError as error:
            self.note = str(error)
            return [_Part("disk", whole)]
        except NotAtHand:
            self.note = "its first sector cannot be read"
            return [_Part("disk", whole, self.note)]
        if not mbr.partitions:
            self.note = "its table names no partition"
            return [_Part("disk", whole)]
        try:
            table = read_table(self._read, self.size_bytes)
        except NotAtHand:
            return [_Part(*_named(part), _untold(part.type_id)) for part in mbr.partitions]
        if table.gpt_fault:
            self.note = table.gpt_fault
            return [_Part("disk", whole, table.gpt_fault)]
        self.has_gpt = table.gpt is not None
        if not self.has_gpt:
            containers = (part for part in mbr.partitions if part.type_id in EXTENDED)
            self._containers_end = max((part.extent.end for part in containers), default=0)
        return [_Part(*_named(part)) for part in table.partitions]

    def _of(self, part: _Part) -> Iterator[Extent]:
        """The ranges of one partition, and then its Area."""
        position, used, note, dirty = part.extent.offset, 0, part.note, False
        kind = self._kind(part.extent)
        try:
            if not note:
                dirty, ranges = self._mapped(kind, part.extent)
                for extent in ranges:
                    yield extent
                    position, used = extent.end, used + extent.length
        except NotAtHand:
            note = "what is in use is told further on"
        except (Ext4Error, FatError, OverBudget) as error:
            note = str(error)
            self.end = max(self.end, min(self._own_end(kind, part.extent), self.size_bytes))
        if note:
            yield from _whole(position, part.extent.end)
            used += part.extent.end - position
        self.areas.append(Area(part.name, part.extent, kind, used, note, dirty))

    def _kind(self, extent: Extent) -> str:
        with suppress(NotAtHand):
            found = signature_at(self._read, extent.offset, extent.length)
            if found is not None:
                return found.kind
        return "unknown"

    def _own_end(self, kind: str, extent: Extent) -> int:
        """Where the filesystem in ``extent`` ends by what it says itself: the rest of one that is
        longer than its partition lies behind that."""
        with suppress(NotAtHand, Ext4Error, FatError):
            if kind.startswith("ext"):
                raw = self._read(extent.offset + SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
                found = parse_superblock(raw)
                return extent.offset + found.blocks_count * found.block_size
            if kind.startswith("FAT"):
                sector = self._read(extent.offset, SECTOR_BYTES)
                fat = parse_geometry(sector, extent.offset, sys.maxsize)
                return extent.offset + fat.total_sectors * fat.sector_bytes
        return extent.end

    def _mapped(self, kind: str, extent: Extent) -> tuple[bool, Iterator[Extent]]:
        """Whether a journal is to be replayed, and the ranges in use; all, where there is no map
        that can be read here."""
        if kind.startswith(_MAPPED) and not self._is_member(extent):
            if kind.startswith("ext"):
                return self._ext4(extent)
            place = extent.offset, extent.length
            return False, fat_maps.used_in_order(self._read, *place, self._budget)
        return False, _whole(extent.offset, extent.end)

    def _is_member(self, extent: Extent) -> bool:
        head = self._read(extent.offset, min(8192, extent.length))
        return any(head.startswith(mark, at) for at, mark in _MEMBER_MARKS)

    def _ext4(self, extent: Extent) -> tuple[bool, Iterator[Extent]]:
        """Whether the journal is to be replayed, and the blocks in use when it was: what the disk
        itself says of them may be older than the files."""
        volume = Volume(self._read, extent.offset, self._budget)
        dirty = bool(volume.superblock.incompat & INCOMPAT_RECOVER)
        if dirty:
            read = replayed(self._read, extent.offset, self._budget)
            volume = Volume(read, extent.offset, self._budget)
        end = extent.offset + volume.superblock.blocks_count * volume.superblock.block_size
        if end > extent.end:
            raise Ext4Error("the filesystem is larger than its partition")
        if not volume.superblock.checksum_fits:
            raise Ext4Error("the superblock does not fit its checksum")
        if volume.superblock.has_errors:
            raise Ext4Error("a system that used it met damage in it")
        if volume.damaged_groups:
            raise Ext4Error(f"the descriptor of group {volume.damaged_groups[0]} is damaged")
        # Behind the filesystem lies what names it: the end of a RAID's member, say.
        return dirty, chain(ext4_maps.used_in_order(volume), _whole(end, extent.end))


def _named(part: Partition | TablePartition) -> tuple[str, Extent]:
    return f"p{part.index}", part.extent


def _untold(type_id: int) -> str:
    """Why a partition has no map here whose own table could not be read; else nothing."""
    return "its partitions are told further on" if type_id in (*EXTENDED, TYPE_PROTECTIVE) else ""


def _whole(low: int, high: int) -> Iterator[Extent]:
    if high > low:
        yield Extent(low, high - low)


def _apart(parts: list[_Part], size_bytes: int) -> list[_Part]:
    """``parts`` by ascending place, within the disk; those that overlap are one, without a map."""
    found: list[_Part] = []
    for part in sorted(parts, key=lambda part: part.extent):
        name, low, high = part.name, part.extent.offset, min(part.extent.end, size_bytes)
        if low >= high:
            continue
        note = part.note or ("it ends behind the disk" if high < part.extent.end else "")
        if found and low < found[-1].extent.end:
            last = found.pop()
            low, high = last.extent.offset, max(high, last.extent.end)
            name, note = f"{last.name}+{name}", "they overlap"
        found.append(_Part(name, Extent(low, high - low), note))
    return found

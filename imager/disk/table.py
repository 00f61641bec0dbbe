"""Every partition of a disk, numbered and named as Linux does it, whatever table it has.

In: a way to read a disk, and its size. Out: a PartitionTable: MBR entries, the logical partitions
of an extended one, or those of a GPT. As in the kernel (block/partitions/msdos.c and efi.c) a GPT
counts as soon as the MBR has an entry of type EE, whatever else stands in the MBR.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from imager.base.units import SECTOR_BYTES
from imager.disk.extents import Extent
from imager.disk.gpt import Gpt, GptError, read_gpt, resized
from imager.disk.manifest import Reader
from imager.disk.mbr import Mbr, MbrError, Partition, entries, parse, with_end

TYPE_PROTECTIVE = 0xEE
EXTENDED = frozenset({0x05, 0x0F, 0x85})
_FIRST_LOGICAL = 5
_MOST_LOGICAL = 60
_USUAL = 2
_LONGEST_CHAIN = 100  # as many empty links as the kernel follows


@dataclass(frozen=True, slots=True)
class TablePartition:
    """One partition as Linux knows it; ``index`` is the number in its name, such as the 2 of
    ``mmcblk0p2``. ``partuuid`` is lower case, ``partlabel`` empty but in a GPT, ``type_id`` the
    byte of an MBR or the GUID of a GPT."""

    index: int
    extent: Extent
    partuuid: str
    type_id: int | str
    partlabel: str = ""


@dataclass(frozen=True)
class PartitionTable:
    """What a disk's table says. ``gpt`` is None where there is none or none that can be used, and
    ``gpt_fault`` then says why, if the MBR promises one."""

    mbr: Mbr
    logical: tuple[Partition, ...]
    gpt: Gpt | None
    gpt_fault: str = ""

    @cached_property
    def partitions(self) -> tuple[TablePartition, ...]:
        """Every partition that can hold a filesystem, by ascending number."""
        if self.gpt is not None:
            return tuple(
                TablePartition(part.index, part.extent, part.guid, part.type_guid, part.label)
                for part in self.gpt.partitions
            )
        return tuple(
            TablePartition(part.index, part.extent, self.mbr.partuuid(part.index), part.type_id)
            for part in (*self.mbr.partitions, *self.logical)
            if part.type_id not in EXTENDED
        )

    def partition(self, index: int) -> TablePartition | None:
        """Partition ``index``, or None."""
        return next((part for part in self.partitions if part.index == index), None)


def read_table(read: Reader, size_bytes: int) -> PartitionTable:
    """The table of a disk of ``size_bytes``; raises MbrError when its first sector is none."""
    mbr = parse(read(0, SECTOR_BYTES))
    gpt, fault = None, ""
    if any(part.type_id == TYPE_PROTECTIVE for part in mbr.partitions):
        try:
            gpt = read_gpt(read, size_bytes)
        except GptError as error:
            fault = str(error)
    logical = tuple(each.partition for each in _logical(read, mbr, size_bytes))
    return PartitionTable(mbr, logical, gpt, fault)


def ending_at(
    read: Reader, size_bytes: int, new_size_bytes: int, index: int, end_bytes: int
) -> list[tuple[int, bytes]]:
    """What to write where (byte, bytes), so that partition ``index`` of a disk of ``size_bytes``
    ends at byte ``end_bytes`` and its table fits a disk of ``new_size_bytes``.

    With a logical partition, which must be the last of its extended one, that ends there too.
    Raises MbrError and GptError as reading does, and GptError where a partition does not fit.
    """
    table = read_table(read, size_bytes)
    if table.gpt is not None:
        return resized(read, size_bytes, new_size_bytes, (index, end_bytes))
    changed: tuple[_Entry, ...] = (_Entry(0, index),)
    for logical in _logical(read, table.mbr, size_bytes):
        if logical.partition.index == index:
            changed = logical.entries
    return [
        (entry.sector * SECTOR_BYTES, with_end(sector, entry.number, end_bytes, entry.from_lba))
        for entry in changed
        for sector in (read(entry.sector * SECTOR_BYTES, SECTOR_BYTES),)
    ]


@dataclass(frozen=True, slots=True)
class _Entry:
    """Entry ``number`` of a sector with a table; it counts from sector ``from_lba``."""

    sector: int
    number: int
    from_lba: int = 0


@dataclass(frozen=True, slots=True)
class _Logical:
    """A logical partition, and ``entries`` which all say where it ends: that of the extended
    partition, that which leads to the sector before it, if one does, and its own."""

    partition: Partition
    entries: tuple[_Entry, ...]


def _logical(read: Reader, mbr: Mbr, size_bytes: int) -> Iterator[_Logical]:
    """The partitions inside extended ones. Each has a sector of its own before it, of which the
    first entry says where it lies from there, and another where the next such sector is, from the
    start of the extended partition."""
    index = _FIRST_LOGICAL
    for outer in mbr.partitions:
        at = outer.start_lba if outer.type_id in EXTENDED else 0
        links, led, room = 0, [_Entry(0, outer.index)], outer.sector_count
        while at and links < _LONGEST_CHAIN and index < _FIRST_LOGICAL + _MOST_LOGICAL:
            links += 1
            if (at + 1) * SECTOR_BYTES > size_bytes:
                break
            try:
                inner = entries(read(at * SECTOR_BYTES, SECTOR_BYTES))
            except MbrError:
                break
            here, at, leads, inside = at, 0, led[:1], room
            for entry in inner:
                if entry.type_id not in EXTENDED:
                    place = replace(entry, index=index, start_lba=here + entry.start_lba)
                    if not _is_meant(entry, place, outer, inside):
                        continue
                    yield _Logical(place, (*led, _Entry(here, entry.index, here)))
                    index += 1
                elif not at:
                    at, room = outer.start_lba + entry.start_lba, entry.sector_count
                    leads = [led[0], _Entry(here, entry.index, outer.start_lba)]
            if at == here:
                break
            led = leads


def _is_meant(entry: Partition, place: Partition, outer: Partition, room: int) -> bool:
    """Whether ``entry`` of a sector inside the extended partition ``outer`` means the partition
    ``place``. The third and fourth are of no use there, and hold anything: Linux takes them only
    where they fit into the ``room`` (sectors) that the entry which leads there gives."""
    is_inside = outer.extent.offset <= place.extent.offset and place.extent.end <= outer.extent.end
    return entry.index <= _USUAL or (is_inside and entry.start_lba + entry.sector_count <= room)

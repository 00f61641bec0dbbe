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
from imager.disk.mbr import Mbr, MbrError, Partition, parse, with_end

TYPE_PROTECTIVE = 0xEE
EXTENDED = frozenset({0x05, 0x0F, 0x85})
_FIRST_LOGICAL = 5
_MOST_LOGICAL = 60
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
    return PartitionTable(mbr, tuple(_logical(read, mbr, size_bytes)), gpt, fault)


def ending_at(
    read: Reader, size_bytes: int, new_size_bytes: int, index: int, end_bytes: int
) -> list[tuple[int, bytes]]:
    """What to write where (byte, bytes), so that partition ``index`` of a disk of ``size_bytes``
    ends at byte ``end_bytes`` and its table fits a disk of ``new_size_bytes``.

    For a GPT, or one of the four of an MBR. Raises MbrError and GptError as reading does, and
    GptError where a partition does not fit.
    """
    if read_table(read, size_bytes).gpt is None:
        return [(0, with_end(read(0, SECTOR_BYTES), index, end_bytes))]
    return resized(read, size_bytes, new_size_bytes, (index, end_bytes))


def _logical(read: Reader, mbr: Mbr, size_bytes: int) -> Iterator[Partition]:
    """The partitions inside extended ones. Each has a sector of its own before it, of which the
    first entry says where it lies from there, and another where the next such sector is, from the
    start of the extended partition."""
    index = _FIRST_LOGICAL
    for outer in mbr.partitions:
        at = outer.start_lba if outer.type_id in EXTENDED else 0
        links = 0
        while at and links < _LONGEST_CHAIN and index < _FIRST_LOGICAL + _MOST_LOGICAL:
            links += 1
            if (at + 1) * SECTOR_BYTES > size_bytes:
                break
            try:
                entries = parse(read(at * SECTOR_BYTES, SECTOR_BYTES)).partitions
            except MbrError:
                break
            here, at = at, 0
            for entry in entries:
                if entry.type_id in EXTENDED:
                    at = at or outer.start_lba + entry.start_lba
                else:
                    yield replace(entry, index=index, start_lba=here + entry.start_lba)
                    index += 1
            if at == here:
                break

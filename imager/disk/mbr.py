"""The master boot record: which partitions a disk has, in its first 512 bytes.

In: a layout and a disk id, or the first sector of a disk. Out: the sector, or what it says. Pure.
Addresses count sectors of 512 bytes, also on a disk that reports larger ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imager.base.units import SECTOR_BYTES
from imager.disk.extents import Extent
from imager.disk.layout import Layout

TYPE_FAT32_LBA = 0x0C
TYPE_LINUX = 0x83

MAX_DISK_BYTES = (1 << 32) * SECTOR_BYTES
"""The largest disk that a master boot record can describe: 2 TiB."""
_TABLE_OFFSET = 446
_DISK_ID_OFFSET = 440
_ENTRY = struct.Struct("<B3sB3sII")
_SIGNATURE = b"\x55\xaa"
_CHS_PAST_THE_END = b"\xfe\xff\xff"  # "look at the LBA fields": what sfdisk writes past 8 GB
_BOOTABLE = 0x80


class MbrError(ValueError):
    """The sector is no usable master boot record."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of the table; ``index`` counts from 1, as in ``sda1``.

    ``start_lba`` and ``sector_count`` are in sectors of 512 bytes; ``extent`` is in bytes.
    """

    index: int
    type_id: int
    bootable: bool
    start_lba: int
    sector_count: int

    @property
    def extent(self) -> Extent:
        """Where the partition lies, in bytes."""
        return Extent(self.start_lba * SECTOR_BYTES, self.sector_count * SECTOR_BYTES)


@dataclass(frozen=True, slots=True)
class Mbr:
    """A partition table: the id of the disk (32 bits) and the entries in use, in table order.

    In use is what has sectors, whatever its type: so Linux counts, and a type of 00 hides a
    partition from nobody but boot loaders.
    """

    disk_id: int
    partitions: tuple[Partition, ...]

    def partuuid(self, index: int) -> str:
        """The PARTUUID that Linux gives partition ``index``, such as ``1a2b3c4d-02``."""
        return f"{self.disk_id:08x}-{index:02x}"

    def partition(self, index: int) -> Partition | None:
        """Entry ``index`` (from 1), or None when it is not in use."""
        return next((part for part in self.partitions if part.index == index), None)


def encode(layout: Layout, disk_id: int) -> bytes:
    """The first sector (512 bytes) of a disk laid out as ``layout``: a FAT32 and a Linux partition.

    Neither is marked active, a mark that only the BIOS of a PC looks at. Raises MbrError for a
    disk of more than 2 TiB.
    """
    sector = bytearray(SECTOR_BYTES)
    struct.pack_into("<I", sector, _DISK_ID_OFFSET, disk_id)
    for number, (type_id, extent) in enumerate(
        ((TYPE_FAT32_LBA, layout.boot), (TYPE_LINUX, layout.root))
    ):
        start, count = extent.offset // SECTOR_BYTES, extent.length // SECTOR_BYTES
        if start + count > MAX_DISK_BYTES // SECTOR_BYTES:
            raise MbrError("a master boot record cannot describe a disk past 2 TiB")
        _ENTRY.pack_into(
            sector,
            _TABLE_OFFSET + number * _ENTRY.size,
            0,
            _chs(start),
            type_id,
            _chs(start + count - 1),
            start,
            count,
        )
    sector[510:512] = _SIGNATURE
    return bytes(sector)


def with_end(sector: bytes, index: int, end_bytes: int, from_lba: int = 0) -> bytes:
    """``sector`` with partition ``index`` (1 to 4) ending at byte ``end_bytes`` of the disk. An
    entry inside an extended partition counts from sector ``from_lba``."""
    changed = bytearray(sector)
    at = _TABLE_OFFSET + (index - 1) * _ENTRY.size
    status, first, type_id, _, start, _ = _ENTRY.unpack_from(sector, at)
    end = end_bytes // SECTOR_BYTES
    count = end - from_lba - start
    _ENTRY.pack_into(changed, at, status, first, type_id, _chs(end - 1), start, count)
    return bytes(changed)


def parse(sector: bytes) -> Mbr:
    """The partition table in ``sector``, the first 512 bytes of a disk.

    Raises MbrError when they are no partition table. That partitions overlap or reach past the
    end of the disk is no error here: the table is returned as it is.
    """
    partitions = entries(sector)
    for number in range(4):
        status = sector[_TABLE_OFFSET + number * _ENTRY.size]
        if status not in (0, _BOOTABLE):
            raise MbrError(f"entry {number + 1} begins with {status:#04x}: no partition table")
    (disk_id,) = struct.unpack_from("<I", sector, _DISK_ID_OFFSET)
    return Mbr(disk_id, partitions)


def entries(sector: bytes) -> tuple[Partition, ...]:
    """The entries in use in a ``sector`` with a table, as one inside an extended partition: there
    Linux asks for the mark at its end only (parse_extended in block/partitions/msdos.c), whatever
    byte an entry begins with. Raises MbrError where there is no such mark."""
    if len(sector) < SECTOR_BYTES:
        raise MbrError(f"the sector is {len(sector)} bytes long, not {SECTOR_BYTES}")
    if sector[510:512] != _SIGNATURE:
        raise MbrError("bytes 510 and 511 are not 55 AA: there is no partition table")
    found = []
    for number in range(4):
        status, _, type_id, _, start, count = _ENTRY.unpack_from(
            sector, _TABLE_OFFSET + number * _ENTRY.size
        )
        if count:
            found.append(Partition(number + 1, type_id, status == _BOOTABLE, start, count))
    return tuple(found)


def _chs(lba: int) -> bytes:
    """Sector number ``lba`` as cylinder, head and sector, the old form of address, for 255 heads
    and 63 sectors per track."""
    cylinder, rest = divmod(lba, 255 * 63)
    if cylinder > 1023:
        return _CHS_PAST_THE_END
    head, sector = divmod(rest, 63)
    return bytes((head, sector + 1 | cylinder >> 8 << 6, cylinder & 0xFF))

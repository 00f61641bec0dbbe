"""The boot sector of a FAT filesystem: where its tables, root directory and clusters lie.

In: the first sector of a partition. Out: a Geometry with absolute byte addresses, or FatError when
this is no FAT at all. Nothing in the sector is believed that the partition's size contradicts.
Field offsets are those of Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imager.base.units import SECTOR_BYTES, MiB
from imager.disk.extents import Extent

FAT12_BELOW = 4085
FAT16_BELOW = 65525
"""Nothing but the number of clusters decides whether a FAT is FAT12, FAT16 or FAT32 (fatgen103,
"FAT Type Determination")."""

MAX_TABLE_BYTES = 20 * MiB
"""A FAT larger than this (5 million clusters) is not read: no boot partition needs it."""


class FatError(ValueError):
    """These bytes are no FAT filesystem; the message says what about them is wrong."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Everything the boot sector says; ``offset`` and all addresses are bytes from the disk's
    start, sizes are bytes unless named otherwise."""

    offset: int
    length: int
    kind: int
    sector_bytes: int
    sectors_per_cluster: int
    reserved_sectors: int
    table_count: int
    table_sectors: int
    root_entries: int
    total_sectors: int
    cluster_count: int
    root_cluster: int
    backup_sector: int
    active_table: int
    volume_id: int
    label: str
    dirty: bool

    @property
    def cluster_bytes(self) -> int:
        return self.sectors_per_cluster * self.sector_bytes

    def table(self, number: int) -> Extent:
        """The FAT copy ``number``, counted from 0."""
        size = self.table_sectors * self.sector_bytes
        return Extent(self.offset + self.reserved_sectors * self.sector_bytes + number * size, size)

    @property
    def fixed_root(self) -> Extent:
        """The root directory of FAT12 and FAT16; empty for FAT32."""
        end = self.table(self.table_count).offset
        size = self.root_entries * 32
        return Extent(end, -(-size // self.sector_bytes) * self.sector_bytes)

    def clusters(self, first: int, count: int) -> Extent:
        """``count`` clusters from cluster ``first`` (the first data cluster is number 2)."""
        size = self.cluster_bytes
        return Extent(self.fixed_root.end + (first - 2) * size, count * size)

    @property
    def readable_clusters(self) -> int:
        """How many clusters lie inside the partition and have an entry in the table."""
        room = (self.offset + self.length - self.fixed_root.end) // self.cluster_bytes
        entries = self.table_sectors * self.sector_bytes * 8 // self.kind - 2
        return max(0, min(self.cluster_count, room, entries))


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise FatError(f"not a FAT filesystem: {why}")


def _power_of_two(value: int, low: int, high: int) -> bool:
    return low <= value <= high and value & (value - 1) == 0


def parse_geometry(sector: bytes, offset: int, length: int) -> Geometry:
    """The geometry in ``sector``, the first 512 bytes of a partition of ``length`` bytes that
    begins at byte ``offset`` of the disk. Raises FatError."""
    _require(len(sector) >= SECTOR_BYTES, "the partition is shorter than one sector")
    _require(any(sector), "its first sector is all zeros")
    for magic, name in ((b"EXFAT   ", "exFAT"), (b"NTFS    ", "NTFS")):
        _require(sector[3:11] != magic, f"it is {name}")
    _require(sector[510:512] == b"\x55\xaa", "its first sector does not end in 55 AA")
    (sector_bytes, per_cluster, reserved, tables, root_entries, total16, media, table16) = (
        struct.unpack_from("<HBHBHHBH", sector, 11)
    )
    total32, table32 = struct.unpack_from("<II", sector, 32)
    _require(_power_of_two(sector_bytes, 512, 4096), f"a sector of {sector_bytes} bytes")
    _require(_power_of_two(per_cluster, 1, 128), f"{per_cluster} sectors per cluster")
    _require(reserved > 0, "no reserved sector")
    _require(tables in (1, 2), f"{tables} file allocation tables")
    _require(media == 0xF0 or media >= 0xF8, f"media byte {media:#04x}")
    total, wide = total16 or total32, table16 == 0
    table_sectors = table32 if wide else table16
    _require(total > 0 and table_sectors > 0, "a size of zero")
    _require(wide or root_entries > 0, "no root directory")
    root_sectors = -(-root_entries * 32 // sector_bytes)
    data_sector = reserved + tables * table_sectors + root_sectors
    _require(data_sector * sector_bytes <= length, "its tables do not fit into the partition")
    cluster_count = (total - data_sector) // per_cluster
    _require(cluster_count > 0, "no room for files")
    kind = 32 if wide else 12 if cluster_count < FAT12_BELOW else 16
    table_bytes = min(table_sectors * sector_bytes, (cluster_count + 2) * kind // 8)
    _require(table_bytes <= MAX_TABLE_BYTES, f"a table of {table_bytes} bytes")
    extended = 64 if wide else 36
    flags, root_cluster, backup = _fat32_fields(sector) if wide else (0, 0, 0)
    signed = sector[extended + 2] in (0x28, 0x29)
    return Geometry(
        offset=offset,
        length=length,
        kind=kind,
        sector_bytes=sector_bytes,
        sectors_per_cluster=per_cluster,
        reserved_sectors=reserved,
        table_count=tables,
        table_sectors=table_sectors,
        root_entries=root_entries,
        total_sectors=total,
        cluster_count=cluster_count,
        root_cluster=root_cluster,
        backup_sector=backup if backup < reserved else 0,
        active_table=flags & 0x0F if flags & 0x80 and flags & 0x0F < tables else 0,
        volume_id=struct.unpack_from("<I", sector, extended + 3)[0] if signed else 0,
        label=sector[extended + 7 : extended + 18].decode("cp437").rstrip() if signed else "",
        dirty=bool(sector[extended + 1] & 0x01),
    )


def _fat32_fields(sector: bytes) -> tuple[int, int, int]:
    """(ext_flags, root cluster, backup boot sector), which only FAT32 has."""
    flags, _version, root_cluster, _info, backup = struct.unpack_from("<HHIHH", sector, 40)
    return flags, root_cluster, backup

"""The boot sector of a FAT: every field at its place, and at the edge of what may be.

The sectors are built by hand from Microsoft's fatgen103 and share no code with the reader.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from imager.base.units import MiB
from imager.disk.extents import Extent
from imager.disk.fat.geometry import FatError, Geometry, parse_geometry

OFFSET = 8 * MiB
FIELDS = {
    "bytes": (11, 2),
    "per_cluster": (13, 1),
    "reserved": (14, 2),
    "tables": (16, 1),
    "root_entries": (17, 2),
    "total16": (19, 2),
    "media": (21, 1),
    "table16": (22, 2),
    "total32": (32, 4),
    "table32": (36, 4),
    "flags": (40, 2),
    "root_cluster": (44, 4),
    "backup": (50, 2),
    "end": (510, 2),
}
WIDE = {
    "bytes": 512,
    "per_cluster": 2,
    "reserved": 32,
    "tables": 2,
    "media": 0xF8,
    "total32": 32 + 2 * 550 + 2 * 70_000 + 1,
    "table32": 550,
    "flags": 0x40,
    "root_cluster": 5,
    "backup": 6,
    "end": 0xAA55,
}
NARROW = {
    "bytes": 512,
    "per_cluster": 1,
    "reserved": 1,
    "tables": 2,
    "root_entries": 17,
    "total16": 1 + 2 * 12 + 2 + 4084,
    "media": 0xF0,
    "table16": 12,
    "end": 0xAA55,
}
LENGTH = 160_000 * 512


def sector(base: dict[str, int], at: dict[int, bytes] | None = None, **fields: int) -> bytes:
    data = bytearray(512)
    for name, value in {**base, **fields}.items():
        offset, size = FIELDS[name]
        data[offset : offset + size] = value.to_bytes(size, "little")
    for offset, piece in (at or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def wide(at: dict[int, bytes] | None = None, length: int = LENGTH, **fields: int) -> Geometry:
    return parse_geometry(sector(WIDE, at, **fields), OFFSET, length)


def narrow(at: dict[int, bytes] | None = None, length: int = LENGTH, **fields: int) -> Geometry:
    return parse_geometry(sector(NARROW, at, **fields), OFFSET, length)


def test_every_field_of_fat32_is_at_its_place() -> None:
    names = {66: b"\x29" + bytes.fromhex("d4c3b2a1") + b"PICLOUD    ", 65: b"\1"}
    found = wide(names)
    assert found == Geometry(
        offset=OFFSET,
        length=LENGTH,
        kind=32,
        sector_bytes=512,
        sectors_per_cluster=2,
        reserved_sectors=32,
        table_count=2,
        table_sectors=550,
        root_entries=0,
        total_sectors=141_133,
        cluster_count=70_000,
        root_cluster=5,
        backup_sector=6,
        active_table=0,
        volume_id=0xA1B2C3D4,
        label="PICLOUD",
        dirty=True,
    )
    assert found.cluster_bytes == 1024
    assert found.table(0) == Extent(OFFSET + 32 * 512, 550 * 512)
    assert found.table(1) == Extent(OFFSET + 582 * 512, 550 * 512)
    assert found.fixed_root == Extent(OFFSET + 1132 * 512, 0)
    assert found.clusters(2, 3) == Extent(OFFSET + 1132 * 512, 3 * 1024)
    assert found.clusters(7, 1) == Extent(OFFSET + 1132 * 512 + 5 * 1024, 1024)


def test_every_field_of_fat12_is_at_its_place() -> None:
    found = narrow({38: b"\x28" + bytes.fromhex("d4c3b2a1") + b"BOOT       ", 37: b"\2"})
    assert (found.kind, found.cluster_count, found.root_entries) == (12, 4084, 17)
    assert (found.volume_id, found.label, found.dirty) == (0xA1B2C3D4, "BOOT", False)
    assert (found.root_cluster, found.backup_sector, found.active_table) == (0, 0, 0)
    assert found.fixed_root == Extent(OFFSET + 25 * 512, 1024), "17 records fill two sectors"
    assert found.clusters(2, 1) == Extent(OFFSET + 27 * 512, 512)
    assert narrow({37: b"\1"}).dirty


def test_a_table_may_be_one_sector() -> None:
    found = narrow(table16=1)
    assert (found.kind, found.table_sectors, found.readable_clusters) == (16, 1, 254)


@pytest.mark.parametrize("signature", [b"\x27", b"\x2a", b"\0"])
def test_without_its_mark_there_is_no_name(signature: bytes) -> None:
    found = wide({66: signature + b"\1\2\3\4PICLOUD    "})
    assert (found.volume_id, found.label) == (0, "")


@pytest.mark.parametrize(("more", "kind"), [(0, 12), (1, 16), (60_000 - 4085, 16)])
def test_the_number_of_clusters_tells_fat12_from_fat16(more: int, kind: int) -> None:
    found = narrow(total16=NARROW["total16"] + more, table16=12)
    assert (found.kind, found.cluster_count) == (kind, 4084 + more)
    long = narrow(total16=0, total32=NARROW["total16"] + more)
    assert replace(long, total_sectors=found.total_sectors) == found


@pytest.mark.parametrize(
    ("length", "table32", "readable"),
    [
        (LENGTH, 550, 70_000),
        (LENGTH, 547, 70_000),
        (LENGTH, 546, 546 * 128 - 2),
        (1132 * 512 + 1000 * 1024, 550, 1000),
        (1132 * 512 + 1000 * 1024 - 1, 550, 999),
        (1132 * 512, 550, 0),
    ],
)
def test_clusters_beyond_table_or_partition_cannot_be_read(
    length: int, table32: int, readable: int
) -> None:
    total = 32 + 2 * table32 + 2 * 70_000
    found = wide(length=length, table32=table32, total32=total)
    assert found.cluster_count == 70_000
    assert found.readable_clusters == readable


@pytest.mark.parametrize(
    ("flags", "active"), [(0x80, 0), (0x81, 1), (0x82, 0), (0x01, 0), (0xF1, 1), (0x0F, 0)]
)
def test_the_table_in_use_is_believed_where_there_is_such_a_table(flags: int, active: int) -> None:
    assert wide(flags=flags).active_table == active


@pytest.mark.parametrize(("backup", "believed"), [(1, 1), (31, 31), (32, 0), (0xFFFF, 0), (0, 0)])
def test_a_backup_lies_in_the_reserved_sectors(backup: int, believed: int) -> None:
    assert wide(backup=backup).backup_sector == believed


@pytest.mark.parametrize(
    "fields",
    [
        {"bytes": 4096},
        {"per_cluster": 128, "total32": 1132 + 128 * 500},
        {"per_cluster": 1},
        {"tables": 1},
        {"reserved": 9},
        {"media": 0xF0},
        {"media": 0xFF},
    ],
)
def test_sectors_at_the_edge_of_what_may_be(fields: dict[str, int]) -> None:
    found = wide(None, 1 << 30, **fields)
    assert found.cluster_count > 0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"bytes": 256}, "a sector of 256 bytes"),
        ({"bytes": 8192}, "a sector of 8192 bytes"),
        ({"bytes": 513}, "a sector of 513 bytes"),
        ({"per_cluster": 0}, "0 sectors per cluster"),
        ({"per_cluster": 3}, "3 sectors per cluster"),
        ({"per_cluster": 129}, "129 sectors per cluster"),
        ({"reserved": 0}, "no reserved sector"),
        ({"tables": 0}, "0 file allocation tables"),
        ({"tables": 3}, "3 file allocation tables"),
        ({"media": 0xF1}, "media byte 0xf1"),
        ({"media": 0xF7}, "media byte 0xf7"),
        ({"media": 0}, "media byte 0x00"),
        ({"total32": 0}, "a size of zero"),
        ({"table32": 0}, "a size of zero"),
        ({"total32": 1133}, "no room for files"),
        ({"end": 0}, "does not end in 55 AA"),
        ({"table32": 40961, "total32": 32 + 2 * 40961 + 2 * 5_242_879}, "a table of 20971524"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(fields: dict[str, int], why: str) -> None:
    with pytest.raises(FatError, match=why):
        wide(None, 1 << 40, **fields)


def test_the_largest_table_that_is_read() -> None:
    found = wide(length=1 << 40, table32=40961, total32=32 + 2 * 40961 + 2 * 5_242_878)
    assert found.cluster_count == 5_242_878
    large = wide(length=1 << 40, table32=50_000, total32=32 + 2 * 50_000 + 2)
    assert large.cluster_count == 1, "what no cluster needs of a table is not read"


def test_other_refusals() -> None:
    with pytest.raises(FatError, match="no root directory"):
        narrow(root_entries=0)
    assert narrow(root_entries=1).fixed_root.length == 512
    with pytest.raises(FatError, match="do not fit into the partition"):
        wide(length=1132 * 512 - 1)
    with pytest.raises(FatError, match="shorter than one sector"):
        parse_geometry(sector(WIDE)[:511], OFFSET, LENGTH)
    with pytest.raises(FatError, match="all zeros"):
        parse_geometry(bytes(512), OFFSET, LENGTH)
    for name, magic in (("exFAT", b"EXFAT   "), ("NTFS", b"NTFS    ")):
        with pytest.raises(FatError, match=f"it is {name}"):
            wide({3: magic})

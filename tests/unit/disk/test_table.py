"""Every partition of every kind of table, as sfdisk made it and as it says."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.run import run
from imager.base.units import SECTOR_BYTES, MiB
from imager.disk.mbr import MbrError
from imager.disk.padded import padded
from imager.disk.table import PartitionTable, read_table

SIZE = 64 * MiB
DOS = """label: dos
label-id: 0x1a2b3c4d
start=2048, size=2048, type=c
start=4096, size=100000, type=5
start=106496, size=2048, type=82
start=6144, size=2048, type=83
start=10240, size=4096, type=83
start=20480, size=8192, type=c
"""
GPT = """label: gpt
label-id: AAAAAAAA-0000-4000-8000-000000000001
start=2048, size=2048, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name="boot"
5: start=4096, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root fs"
"""


def made(folder: Path, script: str) -> Path:
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    run(["sfdisk", "--quiet", image], stdin=script.encode())
    return image


def poke(image: Path, at: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(data)


def table_of(image: Path) -> PartitionTable:
    data = image.read_bytes()
    return read_table(lambda at, n: data[at : at + n], len(data))


def listed(image: Path) -> list[tuple[int, int, int]]:
    """What sfdisk says: number, first sector, sectors; without extended partitions."""
    found = json.loads(run(["sfdisk", "--json", image]).stdout)["partitiontable"]["partitions"]
    return [
        (int(one["node"].removeprefix(str(image))), one["start"], one["size"])
        for one in found
        if one["type"] not in ("5", "f", "85")
    ]


@pytest.mark.parametrize("script", [DOS, GPT, DOS.replace("type=5", "type=f")])
def test_partitions_are_numbered_as_sfdisk_does(tmp_path: Path, script: str) -> None:
    image = made(tmp_path, script)
    table = table_of(image)
    assert [
        (p.index, p.extent.offset // SECTOR_BYTES, p.extent.length // SECTOR_BYTES)
        for p in table.partitions
    ] == listed(image)
    assert len({p.partuuid for p in table.partitions}) == len(table.partitions)


NO_TYPE = (446 + 32 + 4, 446 + 16 + 4, 4096 * 512 + 446 + 4)


@pytest.mark.parametrize("at", NO_TYPE, ids=("primary", "extended", "logical"))
def test_a_partition_of_type_00_is_one_to_sfdisk_too(tmp_path: Path, at: int) -> None:
    image = made(tmp_path, DOS)
    poke(image, at, b"\0")
    found = table_of(image).partitions
    assert [(p.index, p.extent.offset // 512, p.extent.length // 512) for p in found] == listed(
        image
    )
    assert len([part for part in found if not part.type_id]) == 1


@pytest.mark.parametrize("kind", [0, 0x83])
@pytest.mark.parametrize(
    ("start", "count", "counts"),
    [(100, 500, True), (100, 500_000, False), (100, 99_900, True), (100, 99_901, False)],
)
def test_more_entries_before_a_logical_partition_count_where_they_fit(
    tmp_path: Path, kind: int, start: int, count: int, counts: bool
) -> None:
    """Linux's own rule, and that of libblkid, which partx shows: there may be anything."""
    image = made(tmp_path, DOS)
    poke(image, 4096 * 512 + 446 + 32, struct.pack("<IIII", 0, kind, start, count))
    told = run(["partx", "-g", "-r", "-o", "NR,START,SECTORS,TYPE", image]).stdout.decode()
    rows = [line.split() for line in told.splitlines()]
    assert [
        (p.index, p.extent.offset // 512, p.extent.length // 512)
        for p in table_of(image).partitions
    ] == [(int(row[0]), int(row[1]), int(row[2])) for row in rows if row[3] != "0x5"]
    assert any(row[2] == str(count) for row in rows) == counts


@pytest.mark.parametrize("entry", range(4))
@pytest.mark.parametrize("status", [0x80, 0x01, 0xFF])
def test_what_an_entry_begins_with_counts_in_the_first_sector_only(
    tmp_path: Path, entry: int, status: int
) -> None:
    """Linux's own rule, and that of libblkid: the chain of logical partitions goes on."""
    image = made(tmp_path, DOS)
    before = table_of(image).partitions
    poke(image, 4096 * 512 + 446 + 16 * entry, bytes([status]))
    told = run(["partx", "-g", "-r", "-o", "NR,TYPE", image]).stdout.decode()
    rows = [line.split() for line in told.splitlines()]
    assert [part.index for part in before] == [int(row[0]) for row in rows if row[1] != "0x5"]
    assert table_of(image).partitions == before


def test_logical_partitions_have_the_kernels_partuuid(tmp_path: Path) -> None:
    table = table_of(made(tmp_path, DOS))
    assert [p.partuuid for p in table.partitions if p.index > 4] == [
        "1a2b3c4d-05", "1a2b3c4d-06", "1a2b3c4d-07",
    ]  # fmt: skip


def test_a_gpt_names_its_partitions(tmp_path: Path) -> None:
    image = made(tmp_path, GPT)
    table = table_of(image)
    assert [p.partlabel for p in table.partitions] == ["boot", "root fs"]
    uuids = json.loads(run(["sfdisk", "--json", image]).stdout)["partitiontable"]["partitions"]
    assert [p.partuuid for p in table.partitions] == [one["uuid"].lower() for one in uuids]


def test_a_damaged_gpt_is_read_from_its_copy_at_the_end(tmp_path: Path) -> None:
    image = made(tmp_path, GPT)
    whole = table_of(image)
    with image.open("r+b") as file:
        file.seek(SECTOR_BYTES + 60)
        file.write(b"\xff")
    assert table_of(image).partitions == whole.partitions
    with image.open("r+b") as file:
        file.seek(SIZE - SECTOR_BYTES)
        file.write(bytes(SECTOR_BYTES))
    broken = table_of(image)
    assert broken.gpt is None
    assert "checksum" in broken.gpt_fault
    assert [p.type_id for p in broken.partitions] == [0xEE]


def test_a_gpt_without_a_promise_in_the_mbr_does_not_count(tmp_path: Path) -> None:
    image = made(tmp_path, GPT)
    with image.open("r+b") as file:
        file.seek(446 + 4)
        file.write(b"\x0c")
    assert [p.index for p in table_of(image).partitions] == [1]


def test_a_chain_of_logical_partitions_that_bites_its_tail_ends(tmp_path: Path) -> None:
    image = made(tmp_path, DOS)
    data = bytearray(image.read_bytes())
    first = 4096 * SECTOR_BYTES
    data[first + 446 + 16 + 8 : first + 446 + 16 + 12] = bytes(4)
    table = read_table(lambda at, n: bytes(data[at : at + n]), len(data))
    assert [p.index for p in table.partitions] == [1, 3, 5]


@given(st.binary(max_size=64), st.binary(max_size=92), st.binary(max_size=64))
def test_any_bytes_are_a_table_or_refused(entries: bytes, header: bytes, extended: bytes) -> None:
    sector = bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"
    disk = sector + header.ljust(512, b"\0") + bytes(446) + extended.ljust(64, b"\0") + b"\x55\xaa"
    try:
        table = read_table(padded(lambda at, n: disk[at : at + n], len(disk)), len(disk))
    except MbrError:
        return
    assert len(table.partitions) < 70

"""What looking at an ext4 costs is paid for, piece by piece, and as much on every computer."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from imager.disk.budget import Budget
from imager.disk.ext4.directory import names_in, require_checksums
from imager.disk.ext4.filesystem import Ext4
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.maps import metadata
from imager.disk.ext4.volume import Volume
from tests.unit.disk.ext4.test_blocks import GROUPS
from tests.unit.disk.ext4.test_maps import FILE, FOLDER, JOURNAL, extents, volume, with_inodes

READ = 10
"""One reading of the disk, however much it is."""
ALL = GROUPS * (READ + 100 + 64 // 4 + READ)
"""All inodes: a bitmap, then a table of 64, for each group."""
INDEX = READ + 1 + 1024 // 128
NAMES = 64
FOLDER_READ = READ + 1 + READ + 2048 // 512
"""Its inode, its one piece, its two blocks."""


@pytest.fixture(scope="module")
def data() -> bytearray:
    """A folder of two blocks with 64 names, a journal, a file, and one with a node of extents."""
    made = with_inodes(
        i2=(FOLDER, extents(0, (0, 2, 9000)), 0),
        i8=JOURNAL,
        i12=(FILE, extents(0, (0, 3, 9100)), 0),
        i13=(FILE, extents(1, (0, 0, 9200)), 0),
    )
    made[9200 * 1024 : 9200 * 1024 + 60] = extents(0, (0, 3, 9300))
    struct.pack_into("<I", made, 1024 + 100, 0x401)  # checksums, of which none is right
    struct.pack_into("<I", made, 1000 * 1024 + 256 + 4, 2048)
    for block in (9000, 9001):
        for number in range(NAMES // 2):
            name = struct.pack("<IHBB8s", 12 + number, 32, 8, 1, b"file-%03d" % number)
            at = block * 1024 + 32 * number
            made[at : at + len(name)] = name
    return made


def cost(data: bytearray, do: Callable[[Volume], object]) -> int:
    found = volume(data)
    before, _ = found.budget.spent
    do(found)
    return found.budget.spent[0] - before


def test_opening_it_costs_two_readings_and_something_for_each_group(data: bytearray) -> None:
    assert volume(data).budget.spent[0] == 2 * READ + GROUPS * (5 + 32 // 8)


def file_map(found: Volume) -> object:
    return found.map_of(found.inode(13))


def names(found: Volume) -> object:
    assert len(list(names_in(found, 2))) == NAMES
    return found


@pytest.mark.parametrize(
    ("do", "steps"),
    [
        (lambda found: found.inode(12), READ),
        (lambda found: list(found.raw_inodes()), ALL),
        (file_map, READ + INDEX + 1),
        (names, FOLDER_READ + NAMES),
        (metadata, ALL + 4 + INDEX + READ + 4),
        (lambda found: list(Ext4(found).files()), ALL + INDEX + 2),
        (lambda found: Ext4(found).damaged_inodes({12}), ALL + 256 // 8),
        (lambda found: list(Ext4(found).numbers()), READ + ALL + 3 + FOLDER_READ + NAMES),
    ],
    ids=["inode", "inodes", "map", "names", "metadata", "files", "damaged", "numbers"],
)
def test_each_way_to_look_is_paid_for(
    data: bytearray, do: Callable[[Volume], object], steps: int
) -> None:
    assert cost(data, do) == steps


def test_a_block_of_names_is_paid_for_before_its_checksum_is_reckoned(data: bytearray) -> None:
    def look(found: Volume) -> None:
        with pytest.raises(Ext4Error, match="block 0 of a directory"):
            require_checksums(found, 2)

    assert cost(data, look) == 2 * READ + FOLDER_READ + 1024 // 8


def test_it_is_the_purse_that_was_given(data: bytearray) -> None:
    whole, purse = bytes(data), Budget()
    Ext4.open(lambda at, length: whole[at : at + length], 0, purse)
    assert purse.spent[0] >= 600

"""Which blocks are in use, on an ext4 built by hand: what is left out here is never written."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable

import pytest

from imager.disk.budget import Budget, OverBudget, ReadLimits
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.maps import journal, metadata, used
from imager.disk.ext4.volume import Volume
from imager.disk.extents import Extent, ExtentMap
from tests.unit.disk.ext4.test_blocks import GROUPS, disk

POWERS = (0, 1, 3, 5, 7, 9, 25, 27, 49)
"""The groups with a copy of the superblock: powers of 3, 5 and 7."""
OFFSET = 4096
ZEROED, NO_INODES, NO_BLOCKS = 4, 1, 2


def volume(data: bytearray, limits: ReadLimits | None = None) -> Volume:
    """The filesystem in ``data``, which begins 4 KiB behind the start of the disk."""
    whole = bytes(OFFSET) + data
    budget = Budget(limits) if limits else None
    return Volume(lambda offset, length: whole[offset : offset + length], OFFSET, budget)


def blocks(*runs: tuple[int, int]) -> ExtentMap:
    return ExtentMap(Extent(OFFSET + start * 1024, count * 1024) for start, count in runs)


def first(group: int) -> int:
    return 1 + 256 * group


def fixed(groups: Iterable[int], copies: int) -> ExtentMap:
    """Boot block, bitmaps and tables of all, and in ``groups`` so many blocks from the first."""
    own = [(8 * n + 200, 2) for n in range(GROUPS)] + [(40 * n + 1000, 16) for n in range(GROUPS)]
    return blocks((0, 1), *own, *((first(group), copies) for group in groups))


def test_what_no_bitmap_need_list_is_in_use() -> None:
    """A superblock, three blocks of descriptors, two kept free for more of them."""
    assert used(volume(disk(reserved_gdt=2))) == fixed(POWERS, 6)


def test_each_bitmap_is_one_block() -> None:
    """In every other group here the one of inodes lies behind the one of blocks."""
    data = disk(reserved_gdt=2)
    struct.pack_into("<II", data, 2048 + 32 * 3, 9500, 9600)
    moved = fixed(POWERS, 6) - blocks((8 * 3 + 200, 2)) | blocks((9500, 1), (9600, 1))
    assert used(volume(data)) == moved


def test_a_copy_in_the_last_group_ends_with_the_filesystem() -> None:
    found = used(volume(disk(reserved_gdt=120, ro_compat=0)))
    assert found == fixed(range(GROUPS - 1), 124) | blocks((first(64), 100))


@pytest.mark.parametrize(("ro_compat", "groups"), [(1, POWERS), (0, range(GROUPS))])
def test_descriptors_of_meta_bg_lie_in_three_groups_of_each_32(
    ro_compat: int, groups: Iterable[int]
) -> None:
    data = disk(incompat=0x50, first_meta_bg=1, compat=0, reserved_gdt=0, ro_compat=ro_compat)
    if not ro_compat:  # then they lie behind the copy of the superblock
        for group in (32, 64):
            at = first(group) * 1024
            data[at + 1024 : at + 2048] = data[at : at + 1024]
    descriptors = blocks(*((first(n) + 1 - ro_compat, 1) for n in (32, 33, 63, 64)))
    assert used(volume(data)) == fixed(groups, 2) | descriptors


def test_ends_of_tables_that_were_never_used_are_not_in_use() -> None:
    """31 inodes of 256 bytes need 8 of 16 blocks. A table that was filled with zeros counts."""
    data = disk(ro_compat=0x11, reserved_gdt=0, journal=0)
    for group, flags, unused in ((5, 0, 33), (6, ZEROED, 33), (7, NO_INODES, 0), (8, NO_BLOCKS, 0)):
        at = 2048 + 32 * group
        struct.pack_into("<H", data, at + 18, flags)
        struct.pack_into("<H", data, at + 28, unused)
    for group in (8, 10):
        data[(8 * group + 200) * 1024] = 0b00111000
        struct.pack_into("<H", data, 2048 + 32 * group + 12, 253)
    data[(8 * 64 + 200) * 1024 : (8 * 64 + 200) * 1024 + 32] = b"\xff" * 32
    struct.pack_into("<H", data, 2048 + 32 * 64 + 12, 0)
    dropped = blocks((40 * 5 + 1000 + 8, 8), (40 * 7 + 1000, 16))
    listed = blocks((first(10) + 3, 3), (first(64), 100))
    assert used(volume(data)) == (fixed(POWERS, 4) - dropped) | listed
    assert metadata(volume(data)) & dropped == ExtentMap()


def extents(depth: int, *found: tuple[int, int, int]) -> bytes:
    """The map in an inode: (logical, count, physical), or below depth 0 (logical, _, block)."""
    node = struct.pack("<HHHHI", 0xF30A, len(found), 4, depth, 0)
    for logical, count, physical in found:
        pack = struct.pack("<IHHI", logical, count, 0, physical)
        node += pack if depth == 0 else struct.pack("<IIHH", logical, physical, 0, 0)
    return node.ljust(60, b"\0")


def with_inodes(**options: tuple[int, bytes, int]) -> bytearray:
    """A disk with these inodes in group 0: i12=(mode, map, block of attributes)."""
    data = disk(reserved_gdt=0)
    for name, (mode, block, attributes) in options.items():
        number = int(name[1:]) - 1
        data[201 * 1024 + number // 8] |= 1 << number % 8
        at = 1000 * 1024 + number * 256
        struct.pack_into("<H", data, at, mode)
        struct.pack_into("<I", data, at + 32, 0x80000)  # it has extents
        data[at + 40 : at + 100] = block
        struct.pack_into("<I", data, at + 104, attributes & 0xFFFFFFFF)
        struct.pack_into("<H", data, at + 118, attributes >> 32)
    return data


FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
JOURNAL = (FILE, extents(0, (0, 2, 9500), (2, 1, 9600)), 0)


def test_all_but_the_content_of_files_is_metadata() -> None:
    data = with_inodes(
        i2=(FOLDER, extents(0, (0, 2, 9000)), 0),
        i8=JOURNAL,
        i12=(FILE, extents(0, (0, 3, 9100)), 9400),
        i13=(FILE, extents(1, (0, 0, 9200)), 0),
        i14=(stat.S_IFIFO | 0o644, extents(0, (0, 3, 9700)), 0),
    )
    data[9200 * 1024 : 9200 * 1024 + 60] = extents(0, (0, 3, 9300))
    assert metadata(volume(data)) == fixed(POWERS, 4) | blocks(
        (9000, 2), (9400, 1), (9200, 1), (9500, 1)
    )
    assert journal(volume(data)) == blocks((9500, 2), (9600, 1))
    assert journal(volume(disk(journal=0))) == ExtentMap()


def test_attributes_outside_the_filesystem_are_damage() -> None:
    last = with_inodes(i8=JOURNAL, i12=(FILE, extents(0), 16484))
    assert metadata(volume(last)).covers(Extent(OFFSET + 16484 * 1024, 1024))
    for block in (16485, 1 << 32):
        data = with_inodes(i8=JOURNAL, i12=(FILE, extents(0), block))
        with pytest.raises(Ext4Error, match=f"block {block} "):
            metadata(volume(data))


def test_a_journal_that_is_no_file_is_damage() -> None:
    with pytest.raises(Ext4Error, match="the journal's inode is not a file"):
        journal(volume(with_inodes(i8=(FOLDER, extents(0), 0))))


def test_a_folder_in_many_pieces_is_paid_for() -> None:
    pieces = extents(0, (0, 1, 9000), (1, 1, 9002), (2, 1, 9004))
    data = with_inodes(i2=(FOLDER, pieces, 0), i8=JOURNAL)
    metadata(volume(data, ReadLimits(pieces=3)))
    with pytest.raises(OverBudget, match="more than 2 pieces"):
        metadata(volume(data, ReadLimits(pieces=2)))

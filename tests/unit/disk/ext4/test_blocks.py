"""Blocks, groups and maps of an ext4 whose superblock is built by hand."""

from __future__ import annotations

import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4 import volume
from imager.disk.ext4.checksum import _crc16
from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.format import EXTENTS_FL, Ext4Error, parse_inode
from imager.disk.ext4.maps import metadata
from imager.disk.ext4.volume import BlockMap, Piece, Volume
from imager.disk.extents import Extent
from tests.unit.disk.ext4.test_format import UUID, raw_inode, raw_superblock

GROUPS = 65


def disk(**changes: int) -> bytearray:
    """65 groups of 256 blocks of 1 KiB; the bitmaps of group n are blocks 8n + 200 and the next,
    and its descriptor says so wherever it may lie."""
    usual = {"per_group": 256, "inodes": GROUPS * 64} | changes
    data = bytearray(1024) + raw_superblock(**usual) + bytes(16483 * 1024)
    moved = usual["first_meta_bg"] if usual.get("incompat", 0) & 0x10 else GROUPS
    for group in range(GROUPS):
        places = 8 * group + 200, 8 * group + 201, 40 * group + 1000
        descriptor = struct.pack("<IIIH", *places, 256 if group < GROUPS - 1 else 100)
        block = 2 + group // 32
        if group // 32 >= moved:
            block = 1 + group // 32 * 32 * 256
        at = block * 1024 + group % 32 * 32
        data[at : at + len(descriptor)] = descriptor
    return data


def made(**changes: int) -> Volume:
    data = disk(**changes)
    return Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)


def test_descriptors_lie_behind_the_superblock() -> None:
    found = made()
    assert (found.descriptor_blocks, found.plain_descriptor_blocks) == (3, 3)
    assert [group.block_bitmap for group in found.groups] == list(range(200, 720, 8))


def test_or_with_meta_bg_in_the_groups_they_describe() -> None:
    found = made(incompat=0x50, first_meta_bg=1, compat=0)
    assert (found.descriptor_blocks, found.plain_descriptor_blocks) == (3, 1)
    blocks = [found.meta_group_descriptor_block(index) for index in (1, 2)]
    assert blocks == [1 + 32 * 256, 1 + 64 * 256]
    assert [group.inode_bitmap for group in found.groups] == list(range(201, 721, 8))
    assert made(incompat=0x50, first_meta_bg=9, compat=0).plain_descriptor_blocks == 3


def test_blocks_outside_are_not_read() -> None:
    found = made()
    assert found.blocks(16484) == bytes(1024)
    assert len(found.blocks(1, 3)) == 3 * 1024
    for start, count in ((16485, 1), (16484, 2), (0, 1)):
        with pytest.raises(Ext4Error, match="outside the filesystem"):
            found.blocks(start, count)


def test_a_disk_that_ends_inside_is_told_of() -> None:
    data = bytes(disk())
    with pytest.raises(Ext4Error, match="before byte 5120"):
        Volume(lambda offset, length: data[offset : min(offset + length, 5119)], 0)


def test_a_descriptor_that_does_not_fit_its_checksum_is_noted() -> None:
    """The older one, of CRC-16, which has a known answer; without the feature there is none."""
    assert _crc16(b"123456789") == 0x4B37
    assert made().damaged_groups == []
    data = disk(ro_compat=0x11)
    for group in range(GROUPS):
        at = 2048 + 32 * group
        covered = UUID.bytes + struct.pack("<I", group) + bytes(data[at : at + 30])
        struct.pack_into("<H", data, at + 30, _crc16(covered))
    for damaged in ([], [3], [3, 64]):
        for group in damaged:
            data[2048 + 32 * group + 12] ^= 1  # how many blocks are free
        found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
        assert found.damaged_groups == damaged
        for group in damaged:
            data[2048 + 32 * group + 12] ^= 1


def test_a_bitmap_has_as_many_free_blocks_as_its_descriptor_says() -> None:
    """The last group has 100 blocks; what its bitmap says of others does not count."""
    data = disk()
    for group, byte, free, fits in ((3, 7, 253, True), (3, 3, 253, False), (64, 7, 97, True)):
        at = (8 * group + 200) * 1024
        data[at], data[at + 20] = byte, 0xFF * (group == 64)
        struct.pack_into("<H", data, 2048 + 32 * group + 12, free)
        found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
        if fits:
            assert (found.block_bitmap(group) or b"")[0] == byte
        else:
            with pytest.raises(Ext4Error, match=f"group {group} does not fit its count"):
                found.block_bitmap(group)


def test_a_bitmap_that_does_not_fit_its_checksum_is_not_believed() -> None:
    """32 bytes count, for 256 blocks; a short descriptor has 16 bits of the checksum."""
    data, at = disk(ro_compat=0x401), (8 * 3 + 200) * 1024
    data[at], data[at + 32] = 7, 9
    value = crc32c(bytes(data[at : at + 32]), crc32c(UUID.bytes))
    struct.pack_into("<H", data, 2048 + 32 * 3 + 24, value & 0xFFFF)
    struct.pack_into("<H", data, 2048 + 32 * 3 + 12, 253)
    for place, fits in ((None, True), (0, False), (31, False), (32, True)):
        if place is not None:
            data[at + place] ^= 1
        found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
        if fits:
            assert (found.block_bitmap(3) or b"")[:1] == b"\7"
        else:
            with pytest.raises(Ext4Error, match="block bitmap of group 3 does not fit"):
                found.block_bitmap(3)
        if place is not None:
            data[at + place] ^= 1


@pytest.mark.parametrize(("depth", "whole"), [(0, True), (1, False), (2, False)])
def test_a_node_of_the_wrong_depth_is_damage(depth: int, whole: bool) -> None:
    """The blocks below a root of depth 1 are of depth 0."""
    data = disk()
    node = struct.pack("<HHHHIIHHI", 0xF30A, 1, 4, depth, 0, 0, 1, 0, 5000)
    data[3000 * 1024 : 3000 * 1024 + len(node)] = node
    root = struct.pack("<HHHHIIIHH", 0xF30A, 1, 4, 1, 0, 0, 3000, 0, 0).ljust(60, b"\0")
    inode = replace(parse_inode(raw_inode()), flags=EXTENTS_FL, block=root)
    found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
    if whole:
        assert found.map_of(inode).pieces == [Piece(0, 5000, 1)]
        return
    with pytest.raises(Ext4Error, match="wrong depth"):
        found.map_of(inode)


def test_the_content_of_a_file_has_zeros_where_nothing_was_written() -> None:
    """One block; a hole; two that were reserved; one of which only 100 bytes are the file's."""
    data = disk()
    for block in (5000, 5010, 5011, 5020, 5021):
        data[block * 1024 : (block + 1) * 1024] = struct.pack("<I", block) * 256
    node = struct.pack("<HHHHI", 0xF30A, 4, 4, 0, 0)
    for logical, length, block in ((0, 1, 5000), (2, 32768 + 2, 5010), (5, 2, 5020), (9, 1, 5030)):
        node += struct.pack("<IHHI", logical, length, 0, block)
    size = 5 * 1024 + 100
    inode = replace(
        parse_inode(raw_inode()), flags=EXTENTS_FL, block=node.ljust(60, b"\0"), size_bytes=size
    )
    found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
    content = struct.pack("<I", 5000) * 256 + bytes(4 * 1024) + struct.pack("<I", 5020) * 25
    assert found.data(inode, limit_bytes=size) == content
    assert b"".join(found.data_in_pieces(inode)) == content
    assert [len(piece) for piece in found.data_in_pieces(inode)] == [1024, 4096, 100]
    with pytest.raises(Ext4Error, match=f"{size} bytes are more than {size - 1}"):
        found.data(inode, limit_bytes=size - 1)


def test_inodes_are_counted_from_1() -> None:
    found = made()
    for number in (1, 64, 65, GROUPS * 64):
        assert found.inode(number).mode == 0
    for number in (-1, 0, GROUPS * 64 + 1):
        with pytest.raises(Ext4Error, match=f"inode {number} does not exist"):
            found.inode(number)


def test_a_map_without_extents_has_three_levels() -> None:
    """Blocks 0 to 11 in the inode, 256 of one block of 1 KiB, 256 of those, 256 of those."""
    data = disk()

    def point(block: int, *pointers: tuple[int, int]) -> None:
        for index, to in pointers:
            struct.pack_into("<I", data, block * 1024 + 4 * index, to)

    point(3000, (0, 5001), (255, 5002))
    point(3001, (1, 3002), (255, 3003))
    point(3002, (2, 5003))
    point(3003, (255, 5004))
    point(3004, (1, 3005))
    point(3005, (2, 3006))
    point(3006, (3, 5005))
    inode = parse_inode(raw_inode())
    block = struct.pack("<15I", 5000, *[0] * 10, 4999, 3000, 3001, 3004)
    found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0).map_of(
        replace(inode, flags=0xFFFFFFFF ^ EXTENTS_FL, block=block)
    )
    two, three = 12 + 256, 12 + 256 + 256**2
    assert found.pieces == [
        Piece(0, 5000, 1),
        Piece(11, 4999, 1),
        Piece(12, 5001, 1),
        Piece(12 + 255, 5002, 1),
        Piece(two + 256 + 2, 5003, 1),
        Piece(two + 255 * 256 + 255, 5004, 1),
        Piece(three + 256**2 + 2 * 256 + 3, 5005, 1),
    ]
    assert found.index_blocks == set(range(3000, 3007))


def test_the_resize_inode_has_one_block_of_its_own() -> None:
    """What that block points at has its fixed place, and is not followed."""
    data = disk(journal=0)
    inode = 1000 * 1024 + 6 * 256
    data[201 * 1024] = 1 << 6
    data[16484 * 1024 : 16485 * 1024] = b"\xff" * 1024
    struct.pack_into("<H", data, inode, stat.S_IFREG | 0o600)
    for block in (16484, 16485):
        struct.pack_into("<I", data, inode + 40 + 4 * 13, block)
        found = Volume(lambda offset, length: bytes(data[offset : offset + length]), 0)
        if block == 16484:
            assert metadata(found).covers(Extent(block * 1024, 1024))
        else:
            with pytest.raises(Ext4Error, match="outside the filesystem"):
                metadata(found)


def test_pieces_in_a_row_are_one() -> None:
    found, budget = BlockMap(), Budget()
    for piece in (
        Piece(0, 10, 2),
        Piece(2, 12, 1),
        Piece(3, 14, 1),
        Piece(5, 15, 1),
        Piece(6, 16, 1, written=False),
        Piece(7, 17, 2, written=False),
    ):
        found.add(piece, budget)
    assert found.pieces == [
        Piece(0, 10, 3),
        Piece(3, 14, 1),
        Piece(5, 15, 1),
        Piece(6, 16, 3, written=False),
    ]
    for logical in (8, 6, 0):
        with pytest.raises(Ext4Error, match="out of order"):
            found.add(Piece(logical, 99, 1), budget)


def test_a_file_in_too_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[4] / "docs/security.md").read_text()
    assert f"({volume._MOST_PIECES:,} of one file)" in page
    monkeypatch.setattr(volume, "_MOST_PIECES", 2)
    found, budget = BlockMap(), Budget()
    for number in range(2):
        found.add(Piece(number, 10 * number + 1, 1), budget)
    found.add(Piece(2, 12, 1), budget)
    with pytest.raises(OverBudget, match="more than 2 pieces"):
        found.add(Piece(3, 99, 1), budget)
    assert found.pieces == [Piece(0, 1, 1), Piece(1, 11, 2)]

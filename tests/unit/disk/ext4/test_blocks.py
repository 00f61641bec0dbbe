"""Blocks, groups and maps of an ext4 whose superblock is built by hand."""

from __future__ import annotations

import struct

import pytest

from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4 import volume
from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.volume import BlockMap, Piece, Volume
from tests.unit.disk.ext4.test_format import raw_superblock

GROUPS = 65


def disk(**changes: int) -> bytearray:
    """65 groups of 256 blocks of 1 KiB; the bitmaps of group n are blocks 8n + 200 and the next,
    and its descriptor says so wherever it may lie."""
    usual = {"per_group": 256, "inodes": GROUPS * 64} | changes
    data = bytearray(1024) + raw_superblock(**usual) + bytes(16483 * 1024)
    moved = usual["first_meta_bg"] if usual.get("incompat", 0) & 0x10 else GROUPS
    for group in range(GROUPS):
        descriptor = struct.pack("<III", 8 * group + 200, 8 * group + 201, 40 * group + 1000)
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
    monkeypatch.setattr(volume, "_MOST_PIECES", 2)
    found, budget = BlockMap(), Budget()
    for number in range(2):
        found.add(Piece(number, 10 * number + 1, 1), budget)
    found.add(Piece(2, 12, 1), budget)
    with pytest.raises(OverBudget, match="more than 2 pieces"):
        found.add(Piece(3, 99, 1), budget)
    assert found.pieces == [Piece(0, 1, 1), Piece(1, 11, 2)]

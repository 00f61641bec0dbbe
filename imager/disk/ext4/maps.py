"""Which bytes of a disk an ext4 filesystem uses, for its metadata, its journal and in all.

In: a Volume. Out: byte ranges of the disk. Some blocks are marked as used that no kernel ever
reads; those are left out: see ``unused_tables``.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

from imager.base.units import MiB
from imager.disk.ext4.format import (
    EXTENTS_FL,
    INODE_ZEROED,
    Ext4Error,
    check_blocks,
    parse_inode,
)
from imager.disk.ext4.volume import RESIZE_INODE, Volume, bits
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import NotAtHand

_RUN = re.compile("1+")
_NO_INDEX_DEPTH = 0
_KEPT_BYTES = 32 * MiB
_RUN_STEPS = 4

Run = tuple[int, int]
"""(first block, number of blocks)."""


def used(volume: Volume) -> ExtentMap:
    """Every block the filesystem uses, without the ends of inode tables that were never used."""
    return ExtentMap(used_in_order(volume))


def used_in_order(volume: Volume) -> Iterator[Extent]:
    """``used``, group after group by ascending byte; neighbours may touch. A range without bytes
    ends each group: all before it has been told.

    A group's bitmap is read before the first range of the group is given. A bitmap that lies in an
    earlier group, as flex_bg has it, is read when its place is reached, and kept: whoever reads a
    disk from start to end never has to go back. Of a group whose bitmap is NotAtHand all counts: a
    filesystem that was made larger may have it far behind. Raises Ext4Error for a bitmap that does
    not fit its checksum.
    """
    fixed = _on_disk(volume, _fixed(volume))
    unused = _on_disk(volume, unused_tables(volume))
    bitmaps = _Bitmaps(volume)
    for number, own in enumerate(_group_extents(volume)):
        try:
            allocated = _extents(volume, bitmaps.runs(number))
            used_here = ExtentMap(chain(allocated, fixed.within(own.offset, own.length)))
        except NotAtHand:
            used_here = ExtentMap([own])
        unused_here = ExtentMap(unused.within(own.offset, own.length))
        for extent in used_here - unused_here if unused_here else used_here:
            yield from bitmaps.passing(extent)
        yield Extent(own.end, 0)


def metadata(volume: Volume) -> ExtentMap:
    """Every block that is not the content of a file: superblocks, descriptors, bitmaps, inode
    tables in use, directories, symbolic links, block maps, attributes, the journal's superblock."""
    fixed = _on_disk(volume, _fixed(volume)) - _on_disk(volume, unused_tables(volume))
    return fixed | _on_disk(volume, _of_inodes(volume))


def journal(volume: Volume) -> ExtentMap:
    """The whole journal; empty when the filesystem has none or keeps it on another disk."""
    return _on_disk(volume, journal_runs(volume))


def unused_tables(volume: Volume) -> Iterator[Run]:
    """The ends of inode tables that no program reads.

    They lie behind the inodes that the group's descriptor calls used, and they are not marked as
    zeroed: the kernel fills them with zeros by itself after the first mount.
    """
    superblock = volume.superblock
    size, block_size = superblock.inode_size, superblock.block_size
    total = -(-superblock.inodes_per_group * size // block_size)
    for number, group in enumerate(volume.groups):
        if not group.flags & INODE_ZEROED:
            in_use = -(-volume.inodes_set_up(number) * size // block_size)
            yield group.inode_table + in_use, total - in_use


def _on_disk(volume: Volume, runs: Iterator[Run] | list[Run]) -> ExtentMap:
    return ExtentMap(_extents(volume, runs))


def _extents(volume: Volume, runs: Iterable[Run]) -> Iterator[Extent]:
    size = volume.superblock.block_size
    return (Extent(volume.offset + start * size, count * size) for start, count in runs)


def _group_extents(volume: Volume) -> Iterator[Extent]:
    """The bytes of each group; the first begins where the filesystem does."""
    superblock, low = volume.superblock, volume.offset
    for number in range(superblock.group_count):
        end = superblock.first_block(number) + superblock.blocks_in(number)
        high = volume.offset + end * superblock.block_size
        yield Extent(low, high - low)
        low = high


class _Bitmaps:
    """The block bitmaps, read by ascending place, as far as the groups in turn need it."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._waiting = sorted(
            ((group.block_bitmap, number) for number, group in enumerate(volume.groups)),
            reverse=True,
        )
        self._told = -1
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0

    def runs(self, number: int) -> Iterator[Run]:
        """The runs of used blocks in group ``number``; to be asked for in ascending order."""
        superblock, budget = self._volume.superblock, self._volume.budget
        first, count = superblock.first_block(number), superblock.blocks_in(number)
        self._told = number
        bitmap = self._kept.pop(number, None)
        if bitmap is None:
            # It lies behind its group, or there was no room to keep it.
            bitmap = self._volume.block_bitmap(number) or b""
        else:
            self._kept_bytes -= len(bitmap)
        for match in _RUN.finditer(bits(bitmap, count) if bitmap else ""):
            budget.step(_RUN_STEPS)
            yield first + match.start(), match.end() - match.start()

    def passing(self, extent: Extent) -> Iterator[Extent]:
        """``extent``, in parts: each bitmap of a later group is read when the parts reach it."""
        low, size = extent.offset, self._volume.superblock.block_size
        while self._waiting:
            place = self._volume.offset + self._waiting[-1][0] * size
            if place >= extent.end:
                break
            number = self._waiting.pop()[1]
            if number > self._told:
                if place > low:
                    yield Extent(low, place - low)
                    low = place
                with suppress(NotAtHand):
                    self._keep(number)
        yield Extent(low, extent.end - low)

    def _keep(self, number: int) -> None:
        if self._kept_bytes < _KEPT_BYTES:
            bitmap = self._volume.block_bitmap(number) or b""
            self._kept[number] = bitmap
            self._kept_bytes += len(bitmap)


def _fixed(volume: Volume) -> Iterator[Run]:
    """The blocks whose place follows from the geometry alone: superblocks, descriptors, bitmaps,
    inode tables. A bitmap that was never written does not list them."""
    superblock = volume.superblock
    table_blocks = -(-superblock.inodes_per_group * superblock.inode_size // superblock.block_size)
    behind = volume.plain_descriptor_blocks + superblock.reserved_gdt_blocks
    yield 0, 1  # the boot block and, in 4 KiB blocks, the superblock
    for number, group in enumerate(volume.groups):
        if superblock.has_backup(number):
            yield _clipped(volume, superblock.first_block(number), 1 + behind)
        yield group.block_bitmap, 1
        yield group.inode_bitmap, 1
        yield group.inode_table, table_blocks
    for index in range(volume.plain_descriptor_blocks, volume.descriptor_blocks):
        per_block = superblock.block_size // superblock.desc_size
        # meta_bg keeps a copy in the second and in the last group of each group of groups.
        for number in (index * per_block, index * per_block + 1, (index + 1) * per_block - 1):
            if number < superblock.group_count:
                yield superblock.first_block(number) + superblock.has_backup(number), 1


def _clipped(volume: Volume, start: int, count: int) -> Run:
    return start, min(count, volume.superblock.blocks_count - start)


# Four fields tell whether an inode owns blocks of metadata: its mode, flags, the first entry of its
# block map, and its attribute block. To read only these takes 0.5 s for 25,000 inodes at most.
_GLANCE = struct.Struct("<H30xI4xHHHH52x4xI10xH")


def _of_inodes(volume: Volume) -> Iterator[Run]:
    for number, raw in volume.raw_inodes():
        volume.budget.step()
        mode, flags, _, _, _, depth, acl_low, acl_high = _GLANCE.unpack_from(raw)
        if acl_low or acl_high:
            check_blocks(acl_low | acl_high << 32, 1, volume.superblock)
            yield acl_low | acl_high << 32, 1
        if stat.S_ISREG(mode) and flags & EXTENTS_FL and depth == _NO_INDEX_DEPTH:
            continue
        if number == RESIZE_INODE:
            yield from _resize_block(volume, raw)
            continue
        inode = parse_inode(raw)
        if not inode.has_map:
            continue
        found = volume.map_of(inode)
        volume.budget.keep_pieces(len(found.index_blocks) + len(found.pieces))
        yield from ((block, 1) for block in sorted(found.index_blocks))
        if not stat.S_ISREG(mode):
            yield from ((piece.physical, piece.count) for piece in found.pieces)
    yield from ((start, 1) for start, _ in journal_runs(volume)[:1])


def _resize_block(volume: Volume, raw: bytes) -> Iterator[Run]:
    """The one block of the resize inode whose place is not fixed; those it points at are in
    ``_fixed``."""
    (double_indirect,) = struct.unpack_from("<I", raw, 40 + 13 * 4)
    if double_indirect:
        check_blocks(double_indirect, 1, volume.superblock)
        yield double_indirect, 1


def journal_runs(volume: Volume) -> list[Run]:
    """The journal's blocks in the order of the journal; empty as for ``journal``."""
    number = volume.superblock.journal_inum
    if not number:
        return []
    inode = volume.inode(number)
    if not stat.S_ISREG(inode.mode):
        raise Ext4Error("the journal's inode is not a file")
    return [(piece.physical, piece.count) for piece in volume.map_of(inode).pieces]

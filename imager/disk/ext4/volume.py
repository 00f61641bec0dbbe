"""An ext4 filesystem as blocks: descriptors, bitmaps, inode tables, the map of each inode.

In: a way to read a disk and the byte where the filesystem begins. Out: where everything lies, as
block numbers. Paths are found in ``filesystem``; ``maps`` tells which blocks are in use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, compress, islice, pairwise

from imager.base.units import MiB
from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4.checksum import bitmap_fits, descriptor_fits
from imager.disk.ext4.format import (
    BLOCK_UNINIT,
    EXTENTS_FL,
    INCOMPAT_META_BG,
    INODE_UNINIT,
    RO_COMPAT_GDT_CSUM,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_OFFSET,
    Ext4Error,
    GroupDescriptor,
    RawInode,
    Superblock,
    check_blocks,
    parse_extent_header,
    parse_group,
    parse_inode,
    parse_superblock,
)
from imager.disk.manifest import Reader

RESIZE_INODE = 7
_MOST_PIECES = 100_000
_READ_STEPS = 10
_LONGEST_EXTENT = 32768  # a longer length marks blocks that were reserved but never written


@dataclass(frozen=True, slots=True)
class Piece:
    """``count`` blocks of a file from its block ``logical``, stored from block ``physical``."""

    logical: int
    physical: int
    count: int
    written: bool = True


@dataclass(slots=True)
class BlockMap:
    """Where a file's data lies (``pieces``), and which blocks hold that map itself."""

    pieces: list[Piece] = field(default_factory=list)
    index_blocks: set[int] = field(default_factory=set)

    def add(self, piece: Piece, budget: Budget) -> None:
        """Append ``piece``. Raises Ext4Error for one that lies before the last one in the file,
        as only a damaged map has it."""
        budget.step()
        if self.pieces:
            last = self.pieces[-1]
            if piece.logical < last.logical + last.count:
                raise Ext4Error("a file's blocks are mapped out of order")
            if _continues(last, piece):
                self.pieces[-1] = replace(last, count=last.count + piece.count)
                return
        if len(self.pieces) >= _MOST_PIECES:
            raise OverBudget(f"a file lies in more than {_MOST_PIECES} pieces")
        self.pieces.append(piece)


def _continues(last: Piece, piece: Piece) -> bool:
    return (
        last.written == piece.written
        and last.logical + last.count == piece.logical
        and last.physical + last.count == piece.physical
    )


class Volume:
    """The blocks and inodes of one filesystem; every method raises Ext4Error for damage, and
    OverBudget for what costs more to look at than ``budget`` allows."""

    def __init__(self, read: Reader, offset: int, budget: Budget | None = None) -> None:
        self._read = read
        self.budget = (budget or Budget()).share()
        self.offset = offset
        self.superblock: Superblock = parse_superblock(
            self._bytes(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
        )
        self.damaged_groups: list[int] = []
        """Groups of which the descriptor does not fit its checksum."""
        self.groups: tuple[GroupDescriptor, ...] = tuple(self._read_groups())

    def _bytes(self, position: int, length: int) -> bytes:
        self.budget.step(_READ_STEPS)
        data = self._read(self.offset + position, length)
        if len(data) != length:
            raise Ext4Error(f"the disk ends inside the filesystem, before byte {position + length}")
        return data

    def blocks(self, start: int, count: int = 1) -> bytes:
        """The bytes of ``count`` blocks from block ``start``."""
        check_blocks(start, count, self.superblock)
        size = self.superblock.block_size
        return self._bytes(start * size, count * size)

    @property
    def descriptor_blocks(self) -> int:
        """How many blocks the whole table of group descriptors takes."""
        per_block = self.superblock.block_size // self.superblock.desc_size
        return -(-self.superblock.group_count // per_block)

    @property
    def plain_descriptor_blocks(self) -> int:
        """How many blocks of descriptors lie behind each superblock: all, unless the feature
        meta_bg moved some."""
        if self.superblock.incompat & INCOMPAT_META_BG:
            return min(self.descriptor_blocks, self.superblock.first_meta_bg)
        return self.descriptor_blocks

    def _read_groups(self) -> Iterator[GroupDescriptor]:
        superblock = self.superblock
        plain = self.plain_descriptor_blocks
        table = bytearray()
        if plain:
            table += self.blocks(superblock.first_data_block + 1, plain)
        for index in range(plain, self.descriptor_blocks):
            table += self.blocks(self.meta_group_descriptor_block(index))
        # The older checksum is worked out byte by byte here.
        summed = superblock.desc_size >> (0 if superblock.ro_compat & RO_COMPAT_GDT_CSUM else 3)
        self.budget.step((5 + summed) * superblock.group_count)
        for number in range(superblock.group_count):
            start = number * superblock.desc_size
            raw = bytes(table[start : start + superblock.desc_size])
            if not descriptor_fits(raw, number, superblock):
                self.damaged_groups.append(number)
            yield parse_group(raw, superblock)

    def meta_group_descriptor_block(self, index: int) -> int:
        """The block in which descriptor block ``index`` lies with meta_bg: at the start of the
        groups that it describes."""
        group = index * (self.superblock.block_size // self.superblock.desc_size)
        return self.superblock.first_block(group) + self.superblock.has_backup(group)

    def block_bitmap(self, group: int) -> bytes | None:
        """The bitmap of ``group``, a bit for each block, lowest first; None when it was never
        written, and then nothing but metadata lies in the group. Raises Ext4Error for one that
        does not fit its checksum, or the number of free blocks in its descriptor."""
        descriptor = self.groups[group]
        if descriptor.flags & BLOCK_UNINIT:
            return None
        bitmap = self.blocks(descriptor.block_bitmap)
        self.budget.step(len(bitmap) >> 4)
        if not bitmap_fits(bitmap, descriptor.bitmap_checksum, self.superblock):
            raise Ext4Error(f"the block bitmap of group {group} does not fit its checksum")
        count = self.superblock.blocks_in(group)
        own = int.from_bytes(bitmap, "little") & (1 << count) - 1
        if count - own.bit_count() != descriptor.free_blocks:
            raise Ext4Error(f"the block bitmap of group {group} does not fit its count of blocks")
        return bitmap

    def inodes_set_up(self, group: int) -> int:
        """How many inodes at the start of the group's table were ever used; the rest of the table
        may hold anything."""
        descriptor = self.groups[group]
        if descriptor.flags & INODE_UNINIT:
            return 0
        return self.superblock.inodes_per_group - descriptor.itable_unused

    def raw_inodes(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of every inode in use, read a whole table at a time."""
        self._require_own_tables()
        for group in range(len(self.groups)):
            count = self.inodes_set_up(group)
            if not count:
                continue
            self.budget.step(100 + (count >> 2))
            bitmap = bits(self.blocks(self.groups[group].inode_bitmap), count)
            yield from compress(self._table_of(group, count), map(int, bitmap))

    def _table_of(self, group: int, count: int) -> Iterator[tuple[int, bytes]]:
        """The first ``count`` inodes of a group's table with their numbers, 1 MiB at a time."""
        superblock = self.superblock
        size, at_once = superblock.inode_size, MiB // superblock.block_size
        start = self.groups[group].inode_table
        end = start + -(-count * size // superblock.block_size)
        tables = (self.blocks(at, min(at_once, end - at)) for at in range(start, end, at_once))
        records = chain.from_iterable(struct.iter_unpack(f"{size}s", table) for table in tables)
        first = group * superblock.inodes_per_group + 1
        return ((number, record) for number, (record,) in enumerate(islice(records, count), first))

    def _require_own_tables(self) -> None:
        """Two groups with one table would make a small disk as long to read as a large one."""
        superblock = self.superblock
        size = superblock.inodes_per_group * superblock.inode_size
        blocks = -(-size // superblock.block_size)
        starts = sorted(group.inode_table for group in self.groups)
        if any(low + blocks > high for low, high in pairwise(starts)):
            raise Ext4Error("two groups share one inode table")

    def inode(self, number: int) -> RawInode:
        """The inode ``number``, counted from 1."""
        return parse_inode(self.inode_bytes(number))

    def inode_bytes(self, number: int) -> bytes:
        """The inode ``number`` as it is stored."""
        superblock = self.superblock
        if not 1 <= number <= superblock.inodes_count:
            raise Ext4Error(f"inode {number} does not exist")
        group, index = divmod(number - 1, superblock.inodes_per_group)
        byte = index * superblock.inode_size
        block = self.groups[group].inode_table + byte // superblock.block_size
        start = byte % superblock.block_size
        return self.blocks(block)[start : start + superblock.inode_size]

    def map_of(self, inode: RawInode) -> BlockMap:
        """Where the data of ``inode`` lies; empty for an inode without data, such as a device."""
        found = BlockMap()
        if inode.has_map:
            if inode.flags & EXTENTS_FL:
                self._walk_extents(inode.block, found, None)
            else:
                self._walk_indirect(inode.block, found)
        return found

    def _add(self, piece: Piece, found: BlockMap) -> None:
        check_blocks(piece.physical, piece.count, self.superblock)
        found.add(piece, self.budget)

    def _walk_extents(self, node: bytes, found: BlockMap, expected_depth: int | None) -> None:
        entries, depth = parse_extent_header(node)
        if expected_depth is not None and depth != expected_depth:
            raise Ext4Error("an extent tree has a node of the wrong depth")
        for index in range(entries):
            at = 12 + 12 * index
            if depth == 0:
                logical, length, high, low = struct.unpack_from("<IHHI", node, at)
                written = length <= _LONGEST_EXTENT
                count = length if written else length - _LONGEST_EXTENT
                if not count:
                    raise Ext4Error("an extent is empty")
                self._add(Piece(logical, high << 32 | low, count, written), found)
            else:
                _, low, high = struct.unpack_from("<IIH", node, at)
                child = self._index_block(high << 32 | low, found)
                self._walk_extents(child, found, depth - 1)

    def _walk_indirect(self, block: bytes, found: BlockMap) -> None:
        pointers = struct.unpack("<15I", block)
        per_block = self.superblock.block_size // 4
        self._add_pointers(pointers[:12], 0, found)
        logical = 12
        for level in (1, 2, 3):
            if pointers[11 + level]:
                self._walk_pointers(pointers[11 + level], level, logical, found)
            logical += per_block**level

    def _walk_pointers(self, block: int, level: int, logical: int, found: BlockMap) -> None:
        per_block = self.superblock.block_size // 4
        pointers = struct.unpack(f"<{per_block}I", self._index_block(block, found))
        if level == 1:
            self._add_pointers(pointers, logical, found)
            return
        for index, pointer in enumerate(pointers):
            if pointer:
                start = logical + index * per_block ** (level - 1)
                self._walk_pointers(pointer, level - 1, start, found)

    def _add_pointers(self, pointers: tuple[int, ...], logical: int, found: BlockMap) -> None:
        for index, physical in enumerate(pointers, logical):
            if physical:
                self._add(Piece(index, physical, 1), found)

    def _index_block(self, block: int, found: BlockMap) -> bytes:
        # Without this a damaged tree that points back at itself would be followed for ever.
        if block in found.index_blocks:
            raise Ext4Error(f"block {block} is in a file's block map twice")
        self.budget.step(1 + (self.superblock.block_size >> 7))
        found.index_blocks.add(block)
        return self.blocks(block)

    def data(self, inode: RawInode, *, limit_bytes: int) -> bytes:
        """The content of a file or long symbolic link, holes as zeros."""
        if inode.size_bytes > limit_bytes:
            raise Ext4Error(f"{inode.size_bytes} bytes are more than {limit_bytes} expected here")
        content = bytearray(inode.size_bytes)
        size = self.superblock.block_size
        for piece in self.map_of(inode).pieces:
            start = piece.logical * size
            length = min(piece.count * size, inode.size_bytes - start)
            if piece.written and length > 0:
                blocks = self.blocks(piece.physical, -(-length // size))
                content[start : start + length] = blocks[:length]
        return bytes(content)

    def data_in_pieces(self, inode: RawInode) -> Iterator[bytes]:
        """The content of a file, at most 1 MiB at a time, holes as zeros."""
        size, done = self.superblock.block_size, 0
        for piece in self.map_of(inode).pieces:
            start = min(piece.logical * size, inode.size_bytes)
            end = min(start + piece.count * size, inode.size_bytes)
            if not piece.written or start == end:
                continue
            yield from self._zeros(start - done)
            for at in range(start, end, MiB):
                length = min(MiB, end - at)
                first = piece.physical + (at - start) // size
                self.budget.read_content(length)
                yield self.blocks(first, -(-length // size))[:length]
            done = end
        yield from self._zeros(inode.size_bytes - done)

    def _zeros(self, length: int) -> Iterator[bytes]:
        for done in range(0, length, MiB):
            piece = min(MiB, length - done)
            self.budget.unpack(piece)
            yield bytes(piece)


def bits(bitmap: bytes, count: int) -> str:
    """The first ``count`` bits, lowest first, as a text of 0 and 1, which is fast to search."""
    return f"{int.from_bytes(bitmap, 'little'):0{8 * len(bitmap)}b}"[::-1][:count]

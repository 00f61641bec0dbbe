"""The on-disk structures of ext4, parsed from bytes.

In: bytes of a superblock, a group descriptor, an inode, an extent node, a directory block. Out:
values, or Ext4Error that says what is wrong. Pure. The bytes may come from anywhere, so no number
in them is believed unchecked. Offsets follow the kernel's Documentation/filesystems/ext4.
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from imager.disk.ext4.crc32c import crc32c

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_BYTES = 1024

COMPAT_HAS_JOURNAL = 0x4
COMPAT_RESIZE_INODE = 0x10
COMPAT_SPARSE_SUPER2 = 0x200
INCOMPAT_RECOVER = 0x4
INCOMPAT_META_BG = 0x10
INCOMPAT_64BIT = 0x80
INCOMPAT_CSUM_SEED = 0x2000
RO_COMPAT_SPARSE_SUPER = 0x1
RO_COMPAT_GDT_CSUM = 0x10
RO_COMPAT_BIGALLOC = 0x200
RO_COMPAT_METADATA_CSUM = 0x400

# filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, csum_seed, largedir
_KNOWN_INCOMPAT = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000 | 0x4000
_MAX_GROUPS = 65536  # 8 TiB in blocks of 4 KiB

INODE_UNINIT = 0x1
BLOCK_UNINIT = 0x2
INODE_ZEROED = 0x4

EXTENTS_FL = 0x80000
INODE_BASE_BYTES = 128
_EXTENT_MAGIC = 0xF30A


class Ext4Error(ValueError):
    """The bytes are no ext4 filesystem, a damaged one, or one with a feature that is unknown
    here; the message says which."""


class Ext4Unknown(Ext4Error):
    """A filesystem with a feature that is unknown here, which a kernel may well know."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """The fields of the superblock that say where things are; counts are in blocks unless the
    name says otherwise."""

    inodes_count: int
    blocks_count: int
    first_data_block: int
    block_size: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    desc_size: int
    reserved_gdt_blocks: int
    first_meta_bg: int
    journal_inum: int
    compat: int
    incompat: int
    ro_compat: int
    uuid: uuid.UUID
    label: str
    backup_groups: tuple[int, int]
    mount_count: int
    mounted_at: int
    checksum_seed: int
    checksum_fits: bool
    has_errors: bool  # a kernel met damage, and nobody has mended it since then

    @property
    def group_count(self) -> int:
        return -(-(self.blocks_count - self.first_data_block) // self.blocks_per_group)

    @property
    def has_group_checksums(self) -> bool:
        """Whether the UNINIT flags and itable_unused of group descriptors mean anything."""
        return bool(self.ro_compat & (RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM))

    def has_backup(self, group: int) -> bool:
        """Whether ``group`` holds a superblock (the first one or a copy)."""
        if group == 0:
            return True
        if self.compat & COMPAT_SPARSE_SUPER2:
            return group in self.backup_groups
        if not self.ro_compat & RO_COMPAT_SPARSE_SUPER or group == 1:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def first_block(self, group: int) -> int:
        return self.first_data_block + group * self.blocks_per_group

    def blocks_in(self, group: int) -> int:
        """Blocks in ``group``; the last one may be short."""
        return min(self.blocks_per_group, self.blocks_count - self.first_block(group))


def _is_power(value: int, base: int) -> bool:
    while value % base == 0:
        value //= base
    return value == 1


def parse_superblock(raw: bytes) -> Superblock:
    """Parse the 1024 bytes found 1024 bytes into the filesystem. Raises Ext4Error, as do all of
    these."""
    if len(raw) < SUPERBLOCK_BYTES:
        raise Ext4Error("the superblock is cut short")
    if raw[56:58] != b"\x53\xef":
        raise Ext4Error("no ext4 filesystem here: the magic number at byte 1080 is missing")
    inodes, blocks_lo = struct.unpack_from("<II", raw, 0)
    first_data, log_block_size = struct.unpack_from("<II", raw, 20)
    blocks_per_group, _, inodes_per_group = struct.unpack_from("<III", raw, 32)
    (revision,) = struct.unpack_from("<I", raw, 76)
    (inode_size,) = struct.unpack_from("<H", raw, 88)
    compat, incompat, ro_compat = struct.unpack_from("<III", raw, 92)
    (reserved_gdt,) = struct.unpack_from("<H", raw, 206)
    (journal_inum,) = struct.unpack_from("<I", raw, 224)
    (desc_size,) = struct.unpack_from("<H", raw, 254)
    (first_meta_bg,) = struct.unpack_from("<I", raw, 260)
    (blocks_hi,) = struct.unpack_from("<I", raw, 336)
    wide = bool(incompat & INCOMPAT_64BIT)
    if log_block_size > 2:
        raise Ext4Unknown(f"a block size of 1024 << {log_block_size} is more than a page of 4096")
    parsed = Superblock(
        inodes_count=inodes,
        blocks_count=blocks_lo | (blocks_hi << 32 if wide else 0),
        first_data_block=first_data,
        block_size=1024 << log_block_size,
        blocks_per_group=blocks_per_group,
        inodes_per_group=inodes_per_group,
        inode_size=inode_size if revision else INODE_BASE_BYTES,
        desc_size=desc_size if wide else 32,
        reserved_gdt_blocks=reserved_gdt if compat & COMPAT_RESIZE_INODE else 0,
        first_meta_bg=first_meta_bg,
        journal_inum=journal_inum,
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        uuid=uuid.UUID(bytes=raw[104:120]),
        label=raw[120:136].split(b"\0")[0].decode("utf-8", "replace"),
        backup_groups=struct.unpack_from("<II", raw, 588),
        mount_count=struct.unpack_from("<H", raw, 52)[0],
        mounted_at=struct.unpack_from("<I", raw, 44)[0],
        checksum_seed=_checksum_seed(raw, incompat),
        checksum_fits=not ro_compat & RO_COMPAT_METADATA_CSUM
        or crc32c(raw[:1020]) == int.from_bytes(raw[1020:1024], "little"),
        has_errors=bool(raw[58] & 2),
    )
    _check_superblock(parsed)
    return parsed


def _checksum_seed(raw: bytes, incompat: int) -> int:
    """The value that every checksum of the filesystem starts from: stored, or made of its UUID."""
    if incompat & INCOMPAT_CSUM_SEED:
        (stored,) = struct.unpack_from("<I", raw, 624)
        return int(stored)
    return crc32c(raw[104:120])


def _check_superblock(found: Superblock) -> None:
    if unknown := found.incompat & ~_KNOWN_INCOMPAT:
        raise Ext4Unknown(f"the filesystem uses features this reader does not know: {unknown:#x}")
    if found.ro_compat & RO_COMPAT_BIGALLOC:
        raise Ext4Unknown("the filesystem uses bigalloc, which this reader does not know")
    bits = 8 * found.block_size
    inode_sizes = [1 << shift for shift in range(7, 13)]
    faults = (
        not 0 < found.blocks_per_group <= bits,
        not 0 < found.inodes_per_group <= bits,
        found.first_data_block != (found.block_size == 1024),
        found.inode_size not in inode_sizes or found.inode_size > found.block_size,
        found.desc_size not in (32, 64, 128),
        found.blocks_count <= found.first_data_block,
    )
    if any(faults):
        raise Ext4Error("the superblock's geometry is impossible")
    if found.group_count > _MAX_GROUPS:
        raise Ext4Error(f"{found.group_count} block groups are more than any disk has")
    if found.inodes_count != found.group_count * found.inodes_per_group:
        raise Ext4Error("the superblock's inode count does not fit its groups")
    if found.reserved_gdt_blocks > found.block_size // 4:
        raise Ext4Error("the superblock reserves more descriptor blocks than there can be")


@dataclass(frozen=True, slots=True)
class GroupDescriptor:
    """Where one group keeps its bitmaps and inode table (block numbers)."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    itable_unused: int
    flags: int
    bitmap_checksum: int
    free_blocks: int


def parse_group(raw: bytes, superblock: Superblock) -> GroupDescriptor:
    """Parse one group descriptor of ``superblock.desc_size`` bytes."""
    block_bitmap, inode_bitmap, inode_table = struct.unpack_from("<III", raw, 0)
    free, _, _, flags = struct.unpack_from("<4H", raw, 12)
    (checksum,) = struct.unpack_from("<H", raw, 24)
    (unused,) = struct.unpack_from("<H", raw, 28)
    if superblock.desc_size >= 64:
        high = struct.unpack_from("<III", raw, 32)
        block_bitmap |= high[0] << 32
        inode_bitmap |= high[1] << 32
        inode_table |= high[2] << 32
        free |= struct.unpack_from("<H", raw, 44)[0] << 16
        unused |= struct.unpack_from("<H", raw, 50)[0] << 16
        checksum |= struct.unpack_from("<H", raw, 56)[0] << 16
    if not superblock.has_group_checksums:
        flags = unused = 0
    if unused > superblock.inodes_per_group:
        raise Ext4Error("a group descriptor has more unused inodes than inodes")
    table_blocks = -(-superblock.inodes_per_group * superblock.inode_size // superblock.block_size)
    for start, count in ((block_bitmap, 1), (inode_bitmap, 1), (inode_table, table_blocks)):
        check_blocks(start, count, superblock)
    return GroupDescriptor(block_bitmap, inode_bitmap, inode_table, unused, flags, checksum, free)


def check_blocks(start: int, count: int, superblock: Superblock) -> None:
    """Raise Ext4Error unless ``count`` blocks from ``start`` lie inside the filesystem."""
    if start < superblock.first_data_block or start + count > superblock.blocks_count:
        raise Ext4Error(f"block {start} (+{count}) lies outside the filesystem")


@dataclass(frozen=True, slots=True)
class RawInode:
    """One inode as it is stored. Times are nanoseconds since 1970; ``block`` is the field of 60
    bytes that says where the data lies."""

    mode: int
    uid: int
    gid: int
    size_bytes: int
    links: int
    flags: int
    atime_ns: int
    ctime_ns: int
    mtime_ns: int
    crtime_ns: int
    block: bytes
    xattr_block: int
    inline_xattrs: bytes

    @property
    def has_map(self) -> bool:
        """Whether ``block`` says where data lies (not for devices and short symbolic links)."""
        if stat.S_ISLNK(self.mode):
            return self.size_bytes >= len(self.block)
        return stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode)


_INODE = struct.Struct("<HHIIIIIHHIII60sIIIIHHHH")
_INODE_EXTRA = struct.Struct("<HHIIIII")


def parse_inode(raw: bytes) -> RawInode:
    """Parse one inode of the superblock's inode size."""
    (mode, uid, size, atime, ctime, mtime, _, gid, links, _, flags, _, block, _, acl) = (
        fields := _INODE.unpack_from(raw)
    )[:15]
    size_high, _, _, acl_high, uid_high, gid_high = fields[15:]
    extra_size, ctime_x, mtime_x, atime_x, crtime, crtime_x = 0, 0, 0, 0, 0, 0
    if len(raw) > INODE_BASE_BYTES:
        extra_size = struct.unpack_from("<H", raw, INODE_BASE_BYTES)[0]
        if extra_size >= _INODE_EXTRA.size:
            _, _, ctime_x, mtime_x, atime_x, crtime, crtime_x = _INODE_EXTRA.unpack_from(
                raw, INODE_BASE_BYTES
            )
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        size |= size_high << 32
    return RawInode(
        mode=mode,
        uid=uid | uid_high << 16,
        gid=gid | gid_high << 16,
        size_bytes=size,
        links=links,
        flags=flags,
        atime_ns=_time_ns(atime, atime_x),
        ctime_ns=_time_ns(ctime, ctime_x),
        mtime_ns=_time_ns(mtime, mtime_x),
        crtime_ns=_time_ns(crtime, crtime_x),
        block=block,
        xattr_block=acl | acl_high << 32,
        inline_xattrs=raw[INODE_BASE_BYTES + extra_size :] if extra_size else b"",
    )


def _time_ns(seconds: int, extra: int) -> int:
    signed = seconds - (1 << 32) if seconds >= 1 << 31 else seconds
    return (signed + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)


def device_number(block: bytes) -> tuple[int, int]:
    """(major, minor) of a device node, from the 60 bytes of its inode's map."""
    old, new = struct.unpack_from("<II", block)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def parse_extent_header(raw: bytes) -> tuple[int, int]:
    """(number of entries, depth) of an extent node."""
    magic, entries, _, depth = struct.unpack_from("<HHHH", raw)
    if magic != _EXTENT_MAGIC:
        raise Ext4Error("an extent node does not begin with its magic number")
    if depth > 5 or 12 + 12 * entries > len(raw):
        raise Ext4Error("an extent node's header is impossible")
    return entries, depth


def parse_directory_block(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Each (name, inode number) in one directory block, htree nodes and checksums left out."""
    position = 0
    while position + 8 <= len(raw):
        inode, length, name_length = struct.unpack_from("<IHB", raw, position)
        if length < 8 or length % 4 or position + length > len(raw) or 8 + name_length > length:
            raise Ext4Error("a directory entry has an impossible length")
        if inode:
            name = raw[position + 8 : position + 8 + name_length]
            if not name or b"/" in name or b"\0" in name:
                raise Ext4Error("a directory entry has an impossible name")
            yield name, inode
        position += length

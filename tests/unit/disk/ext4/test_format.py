"""The structures of ext4, built by hand from the kernel's documentation, field by field.

tests/image/test_ext4_reader.py has those that mke2fs makes.
"""

from __future__ import annotations

import stat
import struct
import uuid

import pytest

from imager.disk.ext4 import format
from imager.disk.ext4.checksum import inode_checksum_fits
from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.format import (
    Ext4Error,
    Ext4Unknown,
    GroupDescriptor,
    RawInode,
    Superblock,
    check_blocks,
    device_number,
    parse_directory_block,
    parse_extent_header,
    parse_group,
    parse_inode,
    parse_superblock,
)

FLAGS = ("COMPAT_", "INCOMPAT_", "RO_COMPAT_", "INODE_UNINIT", "BLOCK_UNINIT", "INODE_ZEROED")
UUID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
FIELDS = {
    "inodes": (0, "<I", 3 * 64),
    "blocks": (4, "<I", 1 + 2 * 8192 + 100),
    "first_data": (20, "<I", 1),
    "log_block": (24, "<I", 0),
    "per_group": (32, "<I", 8192),
    "inodes_per_group": (40, "<I", 64),
    "mounted_at": (44, "<I", 0),
    "mount_count": (52, "<H", 0),
    "magic": (56, "<H", 0xEF53),
    "state": (58, "<H", 1),
    "revision": (76, "<I", 1),
    "inode_size": (88, "<H", 256),
    "compat": (92, "<I", 0x10),
    "incompat": (96, "<I", 0x40),
    "ro_compat": (100, "<I", 0x1),
    "reserved_gdt": (206, "<H", 256),
    "journal": (224, "<I", 8),
    "desc_size": (254, "<H", 64),
    "first_meta_bg": (260, "<I", 7),
    "blocks_high": (336, "<I", 5),
    "backup_low": (588, "<I", 1),
    "backup_high": (592, "<I", 2),
    "seed": (624, "<I", 0x12345678),
    "checksum": (1020, "<I", 0),
}


def raw_superblock(**changes: int) -> bytearray:
    raw = bytearray(1024)
    raw[104:120], raw[120:136] = UUID.bytes, b"root".ljust(16, b"\0")
    for name, (at, kind, usual) in FIELDS.items():
        struct.pack_into(kind, raw, at, changes.pop(name, usual))
    assert not changes
    return raw


def superblock(**changes: int) -> Superblock:
    return parse_superblock(bytes(raw_superblock(**changes)))


def test_every_field_of_a_superblock_is_at_its_place() -> None:
    found = superblock(mount_count=3, mounted_at=4)
    assert found == Superblock(
        inodes_count=192,
        blocks_count=16485,
        first_data_block=1,
        block_size=1024,
        blocks_per_group=8192,
        inodes_per_group=64,
        inode_size=256,
        desc_size=32,
        reserved_gdt_blocks=256,
        first_meta_bg=7,
        journal_inum=8,
        compat=0x10,
        incompat=0x40,
        ro_compat=0x1,
        uuid=UUID,
        label="root",
        backup_groups=(1, 2),
        mount_count=3,
        mounted_at=4,
        checksum_seed=crc32c(UUID.bytes),
        checksum_fits=True,
        has_errors=False,
    )
    assert superblock(state=3).has_errors
    assert (found.group_count, found.has_group_checksums) == (3, False)
    assert [found.first_block(group) for group in range(3)] == [1, 8193, 16385]
    assert [found.blocks_in(group) for group in range(3)] == [8192, 8192, 100]


def test_what_a_feature_changes() -> None:
    first = superblock(revision=0, inode_size=77, compat=0, incompat=0x2040)
    assert (first.inode_size, first.reserved_gdt_blocks) == (128, 0)
    assert first.checksum_seed == 0x12345678
    for flag in (0x10, 0x400):
        assert superblock(ro_compat=flag).has_group_checksums
    large = {"incompat": 0xC0, "blocks": 1, "blocks_high": 1, "per_group": 32768}
    with pytest.raises(Ext4Error, match="131073 block groups are more than"):
        superblock(**large, first_data=0, log_block=2)


def test_each_flag_is_one_bit() -> None:
    flags = {name: value for name, value in vars(format).items() if name.startswith(FLAGS)}
    assert len(flags) == 14
    assert {name for name, value in flags.items() if value.bit_count() != 1} == set()


def test_a_label_of_sixteen_letters_has_no_end_mark() -> None:
    raw = raw_superblock()
    raw[120:136] = b"sixteen letters!"
    assert parse_superblock(bytes(raw)).label == "sixteen letters!"


@pytest.mark.parametrize("bit", range(32))
def test_each_feature_is_known_or_refused(bit: int) -> None:
    """Known: filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, csum_seed, largedir."""
    if bit in (1, 2, 4, 6, 7, 8, 9, 13, 14):
        assert superblock(incompat=1 << bit, blocks_high=0).incompat == 1 << bit
        return
    with pytest.raises(Ext4Unknown, match=f"does not know: {1 << bit:#x}"):
        superblock(incompat=1 << bit)


def test_a_superblock_with_a_checksum_fits_it_or_not() -> None:
    raw = raw_superblock(ro_compat=0x401)
    assert not parse_superblock(bytes(raw)).checksum_fits
    struct.pack_into("<I", raw, 1020, crc32c(raw[:1020]))
    assert parse_superblock(bytes(raw)).checksum_fits


@pytest.mark.parametrize(
    "changes",
    [
        {"per_group": 1, "blocks": 4, "inodes": 3 * 64},
        {"inodes_per_group": 1, "inodes": 3},
        {"inodes_per_group": 8192, "inodes": 3 * 8192},
        {"inode_size": 128},
        {"inode_size": 1024},
        {"inode_size": 4096, "first_data": 0, "log_block": 2, "blocks": 3 * 8192},
        {"desc_size": 64, "incompat": 0xC0, "blocks_high": 0},
        {"desc_size": 128, "incompat": 0xC0, "blocks_high": 0},
        {"blocks": 2, "inodes": 64},
        {"first_data": 0, "log_block": 2, "blocks": 3 * 8192},
    ],
)
def test_geometry_at_the_edge_of_what_may_be(changes: dict[str, int]) -> None:
    assert superblock(**changes).group_count in (1, 3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"magic": 0xEF54}, "magic number at byte 1080"),
        ({"log_block": 3, "first_data": 0}, "1024 << 3"),
        ({"incompat": 0x8040}, "does not know: 0x8000"),
        ({"incompat": 0x1}, "does not know: 0x1"),
        ({"ro_compat": 0x200}, "bigalloc"),
        ({"per_group": 0}, "geometry"),
        ({"per_group": 8193}, "geometry"),
        ({"inodes_per_group": 0, "inodes": 0}, "geometry"),
        ({"inodes_per_group": 8193, "inodes": 3 * 8193}, "geometry"),
        ({"first_data": 0}, "geometry"),
        ({"first_data": 1, "log_block": 2}, "geometry"),
        ({"inode_size": 64}, "geometry"),
        ({"inode_size": 192}, "geometry"),
        ({"inode_size": 2048}, "geometry"),
        ({"desc_size": 32, "incompat": 0xC0, "desc_size_": 0}, "geometry"),
        ({"blocks": 1, "inodes": 0}, "geometry"),
        ({"inodes": 3 * 64 + 1}, "inode count"),
        ({"reserved_gdt": 257}, "reserves more descriptor blocks"),
        ({"per_group": 1, "blocks": 65538, "inodes": 65537 * 64}, "65537 block groups"),
    ],
)
def test_a_superblock_that_cannot_be_is_refused(changes: dict[str, int], why: str) -> None:
    if changes.pop("desc_size_", None) is not None:
        changes |= {"desc_size": 63, "blocks_high": 0}
    with pytest.raises(Ext4Error, match=why):
        superblock(**changes)


def test_the_most_groups_and_a_superblock_cut_short() -> None:
    assert superblock(per_group=1, blocks=65537, inodes=65536 * 64).group_count == 65536
    with pytest.raises(Ext4Error, match="cut short"):
        parse_superblock(bytes(raw_superblock()[:1023]))


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81]),
        ({"ro_compat": 0}, list(range(82))),
        ({"compat": 0x200}, [0, 1, 2]),
        ({"compat": 0xFFFFFDEF}, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81]),
    ],
)
def test_which_groups_have_a_copy_of_the_superblock(
    changes: dict[str, int], groups: list[int]
) -> None:
    found = superblock(**changes)
    assert [group for group in range(82) if found.has_backup(group)] == groups


def raw_group(**changes: int) -> bytes:
    usual = {"block": 3, "inode": 4, "table": 5, "flags": 7, "unused": 9, "free": 6}
    usual |= {
        "block_high": 0,
        "inode_high": 0,
        "table_high": 0,
        "unused_high": 0,
        "checksum_high": 0,
        "free_high": 0,
    }
    usual |= changes
    raw = bytearray(64)
    struct.pack_into("<III", raw, 0, usual["block"], usual["inode"], usual["table"])
    struct.pack_into("<H", raw, 12, usual["free"])
    struct.pack_into("<H", raw, 18, usual["flags"])
    struct.pack_into("<H", raw, 28, usual["unused"])
    struct.pack_into("<III", raw, 32, *(usual[f"{name}_high"] for name in FIRST_OF_GROUP))
    struct.pack_into("<H", raw, 44, usual["free_high"])
    struct.pack_into("<H", raw, 50, usual["unused_high"])
    struct.pack_into("<H", raw, 24, 0xBEEF)
    struct.pack_into("<H", raw, 56, usual["checksum_high"])
    return bytes(raw)


FIRST_OF_GROUP = ("block", "inode", "table")


def test_every_field_of_a_group_descriptor_is_at_its_place() -> None:
    checked = superblock(ro_compat=0x11)
    assert parse_group(raw_group(), checked) == GroupDescriptor(3, 4, 5, 9, 7, 0xBEEF, 6)
    assert parse_group(raw_group(), superblock()) == GroupDescriptor(3, 4, 5, 0, 0, 0xBEEF, 6)
    assert parse_group(raw_group(unused=64), checked).itable_unused == 64
    ignored = raw_group(block_high=1, inode_high=1, table_high=1, unused_high=1)
    assert parse_group(ignored, checked) == GroupDescriptor(3, 4, 5, 9, 7, 0xBEEF, 6)
    with pytest.raises(Ext4Error, match="more unused inodes"):
        parse_group(raw_group(unused=65), checked)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("block_high", f"block {3 + (1 << 32)} "),
        ("inode_high", f"block {4 + (1 << 32)} "),
        ("table_high", f"block {5 + (1 << 32)} "),
        ("unused_high", "more unused inodes"),
    ],
)
def test_upper_halves_count_in_a_long_descriptor(name: str, why: str) -> None:
    wide = superblock(ro_compat=0x11, incompat=0xC0, blocks_high=0)
    assert parse_group(raw_group(), wide) == GroupDescriptor(3, 4, 5, 9, 7, 0xBEEF, 6)
    assert parse_group(raw_group(checksum_high=2), wide).bitmap_checksum == 0x2BEEF
    assert parse_group(raw_group(free_high=2), wide).free_blocks == 0x20006
    with pytest.raises(Ext4Error, match=why):
        parse_group(raw_group(**{name: 1}), wide)


def test_blocks_lie_inside_the_filesystem() -> None:
    found = superblock()
    check_blocks(1, 16484, found)
    check_blocks(16484, 1, found)
    for start, count in ((0, 1), (1, 16485), (16485, 1)):
        with pytest.raises(Ext4Error, match="outside the filesystem"):
            check_blocks(start, count, found)
    for name in ("block", "inode"):
        assert parse_group(raw_group(**{name: 16484}), found)
        with pytest.raises(Ext4Error, match="outside"):
            parse_group(raw_group(**{name: 16485}), found)
    table = 16485 - 64 * 256 // 1024
    assert parse_group(raw_group(table=table), found).inode_table == table
    with pytest.raises(Ext4Error, match="outside"):
        parse_group(raw_group(table=table + 1), found)


def raw_inode(mode: int = stat.S_IFREG | 0o644, *, size: int = 256, extra: int = 32) -> bytes:
    raw = bytearray(size)
    struct.pack_into("<HHIIIIIHHIII", raw, 0, mode, 1, 2, 3, 4, 5, 99, 6, 7, 99, 8, 99)
    raw[40:100] = bytes(range(60))
    struct.pack_into("<IIIIHHHH", raw, 100, 99, 9, 10, 99, 99, 11, 12, 13)
    if size > 128:
        struct.pack_into("<HHIIIII", raw, 128, extra, 99, 0x51, 0x62, 0x43, 14, 0x70)
    return bytes(raw)


def test_every_field_of_an_inode_is_at_its_place() -> None:
    found = parse_inode(raw_inode())
    second = 10**9
    assert found == RawInode(
        mode=stat.S_IFREG | 0o644,
        uid=1 | 12 << 16,
        gid=6 | 13 << 16,
        size_bytes=2 | 10 << 32,
        links=7,
        flags=8,
        atime_ns=(3 + (3 << 32)) * second + 0x10,
        ctime_ns=(4 + (1 << 32)) * second + 0x14,
        mtime_ns=(5 + (2 << 32)) * second + 0x18,
        crtime_ns=14 * second + 0x1C,
        block=bytes(range(60)),
        xattr_block=9 | 11 << 32,
        inline_xattrs=bytes(96),
    )


@pytest.mark.parametrize(("size", "extra"), [(128, 0), (256, 0), (256, 23)])
def test_an_inode_without_further_fields_has_whole_seconds(size: int, extra: int) -> None:
    found = parse_inode(raw_inode(size=size, extra=extra))
    assert (found.atime_ns, found.crtime_ns) == (3 * 10**9, 0)
    assert (found.ctime_ns, found.mtime_ns) == (4 * 10**9, 5 * 10**9)
    assert len(found.inline_xattrs) == (128 - extra if extra else 0)
    assert parse_inode(raw_inode(extra=24)).crtime_ns == 14 * 10**9 + 0x1C


def test_times_before_1970_and_kinds_with_a_size_in_32_bits() -> None:
    raw = bytearray(raw_inode(stat.S_IFLNK | 0o777, size=128))
    struct.pack_into("<I", raw, 8, 0x80000000)
    struct.pack_into("<I", raw, 16, 0x7FFFFFFF)
    found = parse_inode(bytes(raw))
    assert (found.atime_ns, found.mtime_ns) == (-(1 << 31) * 10**9, ((1 << 31) - 1) * 10**9)
    assert found.size_bytes == 2
    assert parse_inode(raw_inode(stat.S_IFDIR | 0o755)).size_bytes == 2 | 10 << 32


@pytest.mark.parametrize(
    ("mode", "size", "has_map"),
    [
        (stat.S_IFREG, 0, True),
        (stat.S_IFDIR, 0, True),
        (stat.S_IFLNK, 59, False),
        (stat.S_IFLNK, 60, True),
        (stat.S_IFCHR, 0, False),
        (stat.S_IFIFO, 100, False),
    ],
)
def test_which_inodes_have_a_map(mode: int, size: int, has_map: bool) -> None:
    raw = bytearray(raw_inode(mode, size=128))
    struct.pack_into("<I", raw, 4, size)
    assert parse_inode(bytes(raw)).has_map is has_map


@pytest.mark.parametrize(
    ("old", "new", "numbers"),
    [
        (0x0501, 0, (5, 1)),
        (0x1FFFF, 0, (255, 255)),
        (0, 0x00112345, (0x123, 0x145)),
        (0, 0xFFFFFFFF, (0xFFF, 0xFFFFF)),
    ],
)
def test_device_numbers_are_old_or_new(old: int, new: int, numbers: tuple[int, int]) -> None:
    assert device_number(struct.pack("<II", old, new).ljust(60, b"\0")) == numbers


def test_extent_nodes() -> None:
    def header(magic: int, entries: int, depth: int, size: int = 60) -> bytes:
        return struct.pack("<HHHH", magic, entries, 4, depth).ljust(size, b"\0")

    assert parse_extent_header(header(0xF30A, 4, 5)) == (4, 5)
    assert parse_extent_header(header(0xF30A, 0, 0)) == (0, 0)
    for raw, why in (
        (header(0xF30B, 1, 0), "magic number"),
        (header(0xF30A, 5, 0), "impossible"),
        (header(0xF30A, 1, 6), "impossible"),
    ):
        with pytest.raises(Ext4Error, match=why):
            parse_extent_header(raw)


def entry(inode: int, name: bytes, length: int | None = None, said: int | None = None) -> bytes:
    whole = (8 + len(name) + 3) & ~3 if length is None else length
    head = struct.pack("<IHBB", inode, whole, len(name) if said is None else said, 1)
    return (head + name).ljust(max(whole, 8), b"\0")


def test_directory_entries() -> None:
    block = entry(12, b"a") + entry(0, b"gone") + entry(13, b"abcd", 24) + entry(14, b"")[:0]
    assert list(parse_directory_block(block)) == [(b"a", 12), (b"abcd", 13)]
    assert list(parse_directory_block(block + b"\1" * 7)) == [(b"a", 12), (b"abcd", 13)]
    full = entry(15, b"x" * 4, 12)
    assert list(parse_directory_block(full)) == [(b"xxxx", 15)]


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (entry(12, b"a", 4), "length"),
        (entry(12, b"abc", 13) + bytes(8), "length"),
        (entry(12, b"a", 12)[:10], "length"),
        (entry(12, b"abcde", 12), "length"),
        (entry(12, b""), "name"),
        (entry(12, b"a/b"), "name"),
        (entry(12, b"a\0b"), "name"),
    ],
)
def test_a_directory_entry_that_cannot_be(block: bytes, why: str) -> None:
    with pytest.raises(Ext4Error, match=f"impossible {why}"):
        list(parse_directory_block(block))


@pytest.mark.parametrize(("size", "extra"), [(128, 0), (256, 2), (256, 4), (256, 32)])
def test_an_inodes_checksum_is_over_all_of_it_but_itself(size: int, extra: int) -> None:
    """Its upper half is there only where the further fields reach to it."""
    raw = bytearray(raw_inode(size=size, extra=extra))
    high = size > 128 and extra >= 4
    raw[124:126] = bytes(2)
    if high:
        raw[130:132] = bytes(2)
    start = crc32c(struct.pack("<I", 12) + bytes(raw[100:104]), 0x1234)
    value = crc32c(raw, start)
    struct.pack_into("<H", raw, 124, value & 0xFFFF)
    if high:
        struct.pack_into("<H", raw, 130, value >> 16)
    assert inode_checksum_fits(bytes(raw), 12, 0x1234)
    assert not inode_checksum_fits(bytes(raw), 13, 0x1234)
    assert not inode_checksum_fits(bytes(raw), 12, 0x1235)
    places = [0, 99, 100, 123, 124, 125, 126, 127, *((130, 131, 255) if high else ())]
    for at in places:
        spoilt = bytearray(raw)
        spoilt[at] ^= 1
        assert not inode_checksum_fits(bytes(spoilt), 12, 0x1234), at

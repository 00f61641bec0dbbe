"""Extended attributes, as mke2fs and the kernel lay them down, and such as no file has."""

from __future__ import annotations

import struct

import pytest

from imager.disk.ext4.format import Ext4Error
from imager.disk.ext4.xattrs import parse_inline_xattrs, parse_xattr_block


def xattr(index: int, name: bytes, offset: int, size: int, inode: int = 0) -> bytes:
    head = struct.pack("<BBHIII", len(name), index, offset, inode, size, 0)
    return (head + name).ljust((16 + len(name) + 3) & ~3, b"\0")


def in_inode(entries: bytes, values: bytes, size: int = 96) -> bytes:
    raw = bytearray(struct.pack("<I", 0xEA020000) + entries.ljust(size - 4, b"\0"))
    raw[size - len(values) :] = values
    return bytes(raw)


def test_attributes_of_an_inode_and_of_a_block() -> None:
    entries = xattr(1, b"note", 90, 2) + xattr(6, b"cap", 86, 4)
    assert parse_inline_xattrs(in_inode(entries, b"CAPSno")) == {
        "user.note": b"no",
        "security.cap": b"CAPS",
    }
    for index, prefix in ((1, "user"), (4, "trusted"), (6, "security"), (7, "system")):
        assert parse_inline_xattrs(in_inode(xattr(index, b"n", 90, 2), b"no")) == {
            f"{prefix}.n": b"no"
        }
    richacl = in_inode(xattr(8, b"", 90, 2), b"no")
    assert parse_inline_xattrs(richacl) == {"system.richacl": b"no"}
    other_magic = b"\1" + in_inode(entries, b"CAPSno")[1:]
    for raw in (b"", b"\0\0\2", bytes(96), other_magic):
        assert parse_inline_xattrs(raw) == {}
    block = bytearray(1024)
    block[:4] = struct.pack("<I", 0xEA020000)
    block[32 : 32 + 20] = xattr(4, b"name", 1020, 4)
    block[1020:] = b"abcd"
    assert parse_xattr_block(bytes(block)) == {"trusted.name": b"abcd"}
    with pytest.raises(Ext4Error, match="magic number"):
        parse_xattr_block(bytes(1024))


@pytest.mark.parametrize(
    "entries",
    [
        xattr(5, b"name", 90, 2),
        xattr(1, b"name", 90, 2, inode=9),
        xattr(1, b"name", 90, 3),
        xattr(2, b"", 90, 2),
    ],
)
def test_attributes_that_cannot_be(entries: bytes) -> None:
    with pytest.raises(Ext4Error, match="malformed"):
        parse_inline_xattrs(in_inode(entries, b"no"))


def test_an_attribute_cut_short() -> None:
    whole = struct.pack("<I", 0xEA020000) + xattr(1, b"", 16, 0)
    for rest in range(8):
        assert parse_inline_xattrs(whole + bytes(rest)) == {"user.": b""}
    with pytest.raises(Ext4Error, match="cut short"):
        parse_inline_xattrs(whole[:-1])


@pytest.mark.parametrize(("index", "name"), [(2, "access"), (3, "default")])
def test_an_access_control_list_gets_the_ids_it_lacks(index: int, name: str) -> None:
    """On the disk: user::rwx, user:5:r--, group::r-x, group:6:-w-, mask::rwx, other::---"""
    stored = bytes.fromhex(
        "010000000100070002000400050000000400050008000200060000001000070020000000"
    )
    seen = bytes.fromhex(
        "02000000" "01000700ffffffff" "0200040005000000" "04000500ffffffff" "0800020006000000"
        "10000700ffffffff" "20000000ffffffff"
    )  # fmt: skip
    raw = in_inode(xattr(index, b"", 92 - len(stored), len(stored)), stored)
    assert parse_inline_xattrs(raw) == {f"system.posix_acl_{name}": seen}
    empty = in_inode(xattr(index, b"", 88, 4), stored[:4])
    assert parse_inline_xattrs(empty) == {f"system.posix_acl_{name}": seen[:4]}
    for spoilt, why in ((b"\2" + stored[1:], "malformed"), (stored[:-1], "cut short")):
        with pytest.raises(Ext4Error, match=why):
            parse_inline_xattrs(in_inode(xattr(2, b"", 92 - len(spoilt), len(spoilt)), spoilt))

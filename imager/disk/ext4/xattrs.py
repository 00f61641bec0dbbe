"""Extended attributes of a file of ext4, parsed from bytes.

In: the space behind an inode's fixed fields, or an attribute block. Out: the attributes by their
full names, as getxattr(2) gives them, or Ext4Error that says what is wrong. Pure.
"""

from __future__ import annotations

import struct

from imager.disk.ext4.format import Ext4Error

_XATTR_MAGIC = 0xEA020000
_XATTR_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
    8: "system.richacl",
}
_ACL_INDEXES = (2, 3)


def parse_inline_xattrs(raw: bytes) -> dict[str, bytes]:
    """The attributes in the space behind an inode's fixed fields."""
    if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != _XATTR_MAGIC:
        return {}
    return _parse_xattrs(raw, first=4, values_from=4)


def parse_xattr_block(raw: bytes) -> dict[str, bytes]:
    """The attributes in an attribute block."""
    if struct.unpack_from("<I", raw)[0] != _XATTR_MAGIC:
        raise Ext4Error("an attribute block does not begin with its magic number")
    return _parse_xattrs(raw, first=32, values_from=0)


def _parse_xattrs(raw: bytes, *, first: int, values_from: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    position = first
    while position + 4 <= len(raw) and raw[position : position + 4] != bytes(4):
        if position + 16 > len(raw):
            raise Ext4Error("an extended attribute is cut short")
        name_length, index, offset, inode, size, _ = struct.unpack_from("<BBHIII", raw, position)
        name = raw[position + 16 : position + 16 + name_length]
        start = values_from + offset
        if index not in _XATTR_PREFIXES or inode or start + size > len(raw):
            raise Ext4Error("an extended attribute is malformed")
        value = raw[start : start + size]
        key = _XATTR_PREFIXES[index] + name.decode("utf-8", "surrogateescape")
        found[key] = _acl_as_seen_by_programs(value) if index in _ACL_INDEXES else value
        position += (16 + name_length + 3) & ~3
    return found


def _acl_as_seen_by_programs(disk: bytes) -> bytes:
    """An access control list in the form getxattr(2) gives: version 2, with an id in each entry.
    On the disk it is version 1, where only entries for named users (2) and groups (8) have an
    id."""
    if len(disk) < 4 or disk[:4] != b"\1\0\0\0":
        raise Ext4Error("an access control list is malformed")
    entries = [b"\2\0\0\0"]
    position = 4
    while position < len(disk):
        size = 8 if disk[position : position + 2] in (b"\2\0", b"\10\0") else 4
        if position + size > len(disk):
            raise Ext4Error("an access control list is cut short")
        entries.append(disk[position : position + size].ljust(8, b"\xff"))
        position += size
    return b"".join(entries)

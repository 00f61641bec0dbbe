"""Access control lists: from the text in archives to the bytes that a filesystem stores.

In: ``user::rwx,user:1000:r-x,group::r-x,mask::rwx,other::---`` (acl(5); star adds the number as a
fourth field). Out: the extended attribute of linux/posix_acl_xattr.h. Pure.
"""

from __future__ import annotations

import re
import struct

_VERSION = 2
_NO_ID = 0xFFFFFFFF
_TAGS = {
    ("user", False): 0x01,
    ("user", True): 0x02,
    ("group", False): 0x04,
    ("group", True): 0x08,
    ("mask", False): 0x10,
    ("other", False): 0x20,
}
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_PERMISSIONS = re.compile(r"[r-][w-][xX-]\Z")


class AclError(ValueError):
    """The text is no access control list, or names users by name and not by number."""


def acl_xattr(text: str) -> bytes:
    """The value of ``system.posix_acl_access`` or ``_default`` for ``text``."""
    entries = sorted(_entry(part.strip()) for part in re.split(r"[,\n]", text) if part.strip())
    return struct.pack("<I", _VERSION) + b"".join(
        struct.pack("<HHI", tag, bits, number) for tag, number, bits in entries
    )


def _entry(text: str) -> tuple[int, int, int]:
    fields = text.split(":")
    if len(fields) not in (3, 4):
        raise AclError(f"cannot be read: {text!r}")
    kind, name, permissions = _SHORT.get(fields[0], fields[0]), fields[1], fields[2]
    if name and len(fields) == 4:
        name = fields[3]
    if name and not (name.isascii() and name.isdigit() and int(name) < _NO_ID):
        raise AclError(f"names somebody without a number: {text!r}")
    tag = _TAGS.get((kind, bool(name)))
    if tag is None or not _PERMISSIONS.match(permissions):
        raise AclError(f"cannot be read: {text!r}")
    bits = sum(bit for bit, letter in zip((4, 2, 1), permissions, strict=True) if letter != "-")
    return tag, int(name) if name else _NO_ID, bits

"""One file of an archive checked: a safe path and what is kept of it, or why it is refused.

In: what ``tarfile`` parsed from a header. Out: a path below the root, and a TreeEntry with
everything that ext4 stores of it. Pure; nothing is written. Refusals are MalformedRelease and name
the member (the file in the archive).
"""

from __future__ import annotations

import base64
import binascii
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import cast

from imager.base.errors import MalformedRelease
from imager.image.unpack.acl import AclError, acl_xattr
from imager.image.unpack.tar_stream import HINT

_LONGEST_NAME = 255
_LONGEST_PATH = 4095
_DEEPEST = 64
"""Names in a path, as for an overlay. Not every program can remove a thousand nested folders."""
_NS = 1_000_000_000
_EARLIEST, _LATEST = -(1 << 31), (1 << 34) - (1 << 31) - 1
"""The times, in seconds, that an ext4 inode of 256 bytes can store (ext4 documentation, "Inode
Timestamps")."""
_NO_TIME = 10**18
"""A text such as 1e999999 would take minutes to become a whole number of nanoseconds."""
_LARGEST_FILE = (1 << 44) - 4096
"""Bytes of a file that ext4 can hold, in blocks of 4096 (ext4 documentation, "Blocks")."""
_LARGEST_XATTRS = 3000
"""ext4 keeps all attributes of an inode in one 4096-byte block and what is left in the inode."""


class EntryKind(StrEnum):
    """Which kind of file a member is."""

    FILE = "file"
    FOLDER = "directory"
    SYMLINK = "symbolic link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "named pipe"


_KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.AREGTYPE: EntryKind.FILE,
    tarfile.CONTTYPE: EntryKind.FILE,
    tarfile.GNUTYPE_SPARSE: EntryKind.FILE,
    tarfile.DIRTYPE: EntryKind.FOLDER,
    tarfile.SYMTYPE: EntryKind.SYMLINK,
    tarfile.CHRTYPE: EntryKind.CHARACTER,
    tarfile.BLKTYPE: EntryKind.BLOCK,
    tarfile.FIFOTYPE: EntryKind.FIFO,
}
DEVICES = (EntryKind.CHARACTER, EntryKind.BLOCK, EntryKind.FIFO)


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """What an inode keeps of a member; ``mode`` is the permission bits alone (up to 0o7777)."""

    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size_bytes: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


def refuse(path: str, reason: str) -> MalformedRelease:
    """The error that refuses the member ``path``; its name may be of any bytes."""
    return MalformedRelease(f"archive member {path!r} {reason}", hint=HINT)


def clean_path(name: str) -> str:
    """``name`` as a path below the root, without leading or trailing slash; "" is the root."""
    if name.startswith("/"):
        raise refuse(name, "is absolute")
    if "\0" in name:
        raise refuse(name, "has a zero byte in its name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refuse(name, "climbs out with ..")
    path = "/".join(parts)
    if len(_raw(path)) > _LONGEST_PATH:
        raise refuse(name, f"has a path longer than {_LONGEST_PATH} bytes")
    if any(len(_raw(part)) > _LONGEST_NAME for part in parts):
        raise refuse(name, f"has a name longer than {_LONGEST_NAME} bytes")
    if len(parts) > _DEEPEST:
        raise refuse(name, f"lies in more than {_DEEPEST} folders within each other")
    return path


def entry_of(info: tarfile.TarInfo) -> TreeEntry:
    """What is kept of ``info``. Not for hard links, which are only a second name of a file."""
    kind = _KINDS.get(info.type)
    if kind is None:
        raise refuse(info.name, f"is of type {info.type!r}, which no filesystem holds")
    for what, value in (("owner", info.uid), ("group", info.gid)):
        if not 0 <= value < 1 << 32:
            raise refuse(info.name, f"has the impossible {what} number {value}")
    device = (0, 0)
    if kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        device = (info.devmajor, info.devminor)
        if not (0 <= device[0] < 1 << 12 and 0 <= device[1] < 1 << 20):
            raise refuse(info.name, f"has the impossible device number {device}")
    target = info.linkname if kind is EntryKind.SYMLINK else ""
    if kind is EntryKind.SYMLINK and (
        not target or "\0" in target or len(_raw(target)) > _LONGEST_PATH
    ):
        raise refuse(info.name, "is a symbolic link to nowhere")
    if not 0 <= info.size <= _LARGEST_FILE:
        raise refuse(info.name, f"claims {info.size} bytes")
    return TreeEntry(
        kind=kind,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime_ns=_mtime_ns(info),
        size_bytes=info.size if kind is EntryKind.FILE else 0,
        target=target,
        device=device,
        xattrs=_xattrs(info),
    )


def segments_of(info: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
    """(offset in the file, length) of each stored stretch of a regular file, checked."""
    # The type stubs of the standard library have this attribute wrong.
    stored = cast("list[tuple[int, int]] | None", info.sparse)
    if stored is None:
        return ((0, info.size),)
    end = 0
    for offset, length in stored:
        if not length:
            continue  # as GNU tar and bsdtar do, wherever it stands
        if offset < end or length < 0 or offset + length > info.size:
            raise refuse(info.name, "has an impossible map of its holes")
        end = offset + length
    return tuple((offset, length) for offset, length in stored if length)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _mtime_ns(info: tarfile.TarInfo) -> int:
    # tarfile turns the pax record into a float, which is not exact to the nanosecond.
    written = info.pax_headers.get("mtime")
    try:
        seconds = Decimal(written) if written else Decimal(int(info.mtime))
        if not -_NO_TIME < seconds < _NO_TIME:
            raise OverflowError
        exact = int(seconds * _NS)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise refuse(info.name, f"has the impossible time {written!r}") from error
    if not _EARLIEST <= exact // _NS <= _LATEST:
        raise refuse(info.name, f"has a time ext4 cannot hold: {exact // _NS} s since 1970")
    return exact


def _xattrs(info: tarfile.TarInfo) -> tuple[tuple[str, bytes], ...]:
    found: dict[str, bytes] = {}
    for key, value in info.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            found.setdefault(key.removeprefix("SCHILY.xattr."), _raw(value))
        elif key.startswith("LIBARCHIVE.xattr."):
            found[key.removeprefix("LIBARCHIVE.xattr.")] = _base64(info.name, value)
    found |= _acls(info)
    for name in found:
        prefix = name.partition(".")[0]
        if prefix not in ("user", "trusted", "security", "system") or not name.isprintable():
            raise refuse(info.name, f"has the extended attribute {name!r}, which ext4 cannot hold")
    if sum(len(name) + len(value) + 24 for name, value in found.items()) > _LARGEST_XATTRS:
        raise refuse(info.name, "has more extended attributes than ext4 can hold")
    return tuple(sorted(found.items()))


def _acls(info: tarfile.TarInfo) -> Mapping[str, bytes]:
    found = {}
    for kind in ("access", "default"):
        text = info.pax_headers.get(f"SCHILY.acl.{kind}")
        if text:
            try:
                found[f"system.posix_acl_{kind}"] = acl_xattr(text)
            except AclError as error:
                raise refuse(info.name, f"has an access control list that {error}") from error
    return found


def _base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse(name, "has an extended attribute that is not base64") from error

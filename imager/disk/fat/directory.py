"""The 32-byte records of a FAT directory, and the long names that are spread over several.

In: the bytes of one directory. Out: its entries and one line per damaged record. Pure. The layout
is that of Microsoft's fatgen103 ("FAT Directory Structure", "FAT Long Directory Entries").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imager.disk.extents import Extent

RECORD_BYTES = 32
READ_ONLY, HIDDEN, SYSTEM, VOLUME, DIRECTORY = 0x01, 0x02, 0x04, 0x08, 0x10
_LONG_NAME = READ_ONLY | HIDDEN | SYSTEM | VOLUME
_OWN, _ABOVE = b".          ", b"..         "
"""The first two records of every directory but the root: its own cluster, and the one above."""
_FORBIDDEN = frozenset('"*/:<>?\\|') | {chr(code) for code in range(32)} | {chr(127)}


@dataclass(frozen=True, slots=True)
class DirectoryRecord:
    """One name in a directory: where its data begins (cluster number, 0 = none) and its size.
    ``alias`` is the short name of one that also has a long one, such as ``MY-VER~1.IMG``.

    ``written`` is the time of the last change: FAT's date in the upper and FAT's time in the lower
    16 bits, so a later time is a larger number. It is local time of the computer that wrote, in
    steps of 2 s.
    """

    name: str
    is_dir: bool
    is_volume_label: bool
    first_cluster: int
    size_bytes: int
    written: int
    alias: str = ""


@dataclass(frozen=True, slots=True)
class FatEntry:
    """A file or directory. ``extents`` are its bytes on the disk in the order of the file: cut to
    ``size_bytes`` for a file, whole clusters for a directory. ``written`` is the time of its last
    change as in DirectoryRecord: a larger number is a later time."""

    path: str
    is_dir: bool
    size_bytes: int
    extents: tuple[Extent, ...]
    written: int = 0


def short_name_checksum(short: bytes) -> int:
    """The checksum of an 11-byte short name, which each record of its long name repeats."""
    total = 0
    for byte in short:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total


def _short_name(record: bytes) -> str:
    raw = (b"\xe5" if record[0] == 0x05 else record[:1]) + record[1:11]
    base = raw[:8].decode("cp437").rstrip(" ")
    extension = raw[8:].decode("cp437").rstrip(" ")
    # Windows NT keeps the case of an all-lower-case short name in these two bits.
    base = base.lower() if record[12] & 0x08 else base
    extension = extension.lower() if record[12] & 0x10 else extension
    return f"{base}.{extension}" if extension else base


class _LongName:
    """The long-name records seen since the last short one. On the disk the last part comes
    first."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._expected = 0
        self._checksum = 0

    @property
    def pending(self) -> bool:
        return bool(self._parts)

    def add(self, record: bytes) -> bool:
        """Take one more part; False when it does not follow the parts before it."""
        order = record[0]
        if order & 0x40:
            clean = not self._parts
            self._parts, self._expected, self._checksum = [], order & 0x3F, record[13]
        else:
            clean = order == self._expected and record[13] == self._checksum
        if not (clean and 0 < self._expected <= 20):
            self._parts = []
            return False
        self._parts.append(record[1:11] + record[14:26] + record[28:32])
        self._expected -= 1
        return True

    def take(self, short: bytes) -> str | None:
        """The long name when it is complete and belongs to ``short``, else None; either way the
        parts collected so far are forgotten."""
        parts, complete = self._parts, self._expected == 0
        self._parts = []
        if not (parts and complete and short_name_checksum(short) == self._checksum):
            return None
        text = b"".join(reversed(parts)).decode("utf-16-le", errors="replace")
        return text.split("\0", 1)[0].rstrip("\uffff")


def parse_directory(data: bytes, *, wide: bool) -> tuple[list[DirectoryRecord], list[str]]:
    """The entries of a directory, and what is wrong with it in words.

    ``wide`` says that cluster numbers have 32 bits (FAT32). The entries ``.`` and ``..`` and
    deleted ones are left out; the volume label is kept and marked.
    """
    records: list[DirectoryRecord] = []
    damage: list[str] = []
    long_name = _LongName()
    for position in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        first = data[position]
        if first == 0x00:
            break
        record = data[position : position + RECORD_BYTES]
        if first == 0xE5:
            # A deleted name; its long parts are deleted with it, so none can be pending.
            if long_name.pending:
                damage.append("a long name without its file")
                long_name = _LongName()
            continue
        if record[11] & 0x3F == _LONG_NAME:
            if not long_name.add(record):
                damage.append(f"a broken long name in record {position // RECORD_BYTES}")
            continue
        had_long = long_name.pending
        long = long_name.take(record[:11])
        if had_long and long is None:
            damage.append(f"a long name that does not belong to {_short_name(record)!r}")
        if record[:11] in (_OWN, _ABOVE):
            continue
        name = long or _short_name(record)
        if not record[11] & VOLUME and (not name or not _FORBIDDEN.isdisjoint(name)):
            damage.append(f"a name FAT does not allow: {name!r}")
            continue
        records.append(_record(record, name, _short_name(record) if long else "", wide=wide))
    if long_name.pending:
        damage.append("a long name without its file")
    return records, damage


def has_own_entries(data: bytes) -> bool:
    """Whether the bytes of a directory, not the root, begin with its entries ``.`` and ``..``. One
    that was overwritten does not: with zeros, for example, it looks like an empty one."""
    return data.startswith(_OWN) and data.startswith(_ABOVE, RECORD_BYTES)


def _record(record: bytes, name: str, alias: str, *, wide: bool) -> DirectoryRecord:
    high, time, date, low, size = struct.unpack_from("<HHHHI", record, 20)
    return DirectoryRecord(
        name=name,
        is_dir=bool(record[11] & DIRECTORY),
        is_volume_label=bool(record[11] & VOLUME),
        first_cluster=(high << 16 if wide else 0) | low,
        size_bytes=size,
        written=date << 16 | time,
        alias=alias,
    )

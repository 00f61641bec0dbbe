"""The GUID partition table of a disk image, made right for a disk of another size.

In: the first bytes of the image, and the size of the disk. Out: these bytes, and the last ones of
the disk, where the second copy of the table lies. The form is UEFI's (specification 2.10, chapter
5.3), for sectors of 512 and of 4096 bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from imager.disk.gpt import ENTRY, HEADER, SIGNATURE

_SECTORS = (512, 4096)
_MBR_ENTRIES, _MBR_ENTRY_BYTES = 446, 16
_PROTECTIVE = 0xEE
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class MovedGpt:
    """``first`` are the first bytes of the disk, ``last`` its very last ones. ``sector_bytes`` is
    the size of the sectors that the table counts."""

    first: bytes
    last: bytes
    sector_bytes: int


@dataclass(frozen=True, slots=True)
class _Copy:
    """The fields of a header that change, and the bytes around them."""

    raw: bytes
    own: int
    other: int
    last_usable: int
    entries: int

    def encoded(self) -> bytes:
        fields = list(HEADER.unpack_from(self.raw))
        length = fields[2]
        fields[3], fields[5], fields[6] = 0, self.own, self.other
        fields[8], fields[10] = self.last_usable, self.entries
        header = HEADER.pack(*fields) + self.raw[HEADER.size : length]
        sum_ = struct.pack("<I", zlib.crc32(header))
        return header[:16] + sum_ + header[20:] + self.raw[length:]


def moved_to_end(first: bytes, size_bytes: int) -> MovedGpt | None:
    """The table in ``first`` for a disk of ``size_bytes``.

    None where there is none that is whole, or where a partition lies in the place of its second
    copy.
    """
    return next(
        (moved for sector in _SECTORS if (moved := _moved(first, size_bytes, sector))), None
    )


def _moved(first: bytes, size_bytes: int, sector: int) -> MovedGpt | None:
    raw = first[sector : 2 * sector]
    if len(raw) < HEADER.size:
        return None
    mark, _, length, sum_, _, own, _, _, _, _, at, count, size, entries_sum = HEADER.unpack_from(
        raw
    )
    last, table_bytes = size_bytes // sector - 1, count * size
    if mark != SIGNATURE or own != 1 or not HEADER.size <= length <= sector:
        return None
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != sum_ or table_bytes > _MOST_BYTES:
        return None
    table = first[at * sector : at * sector + table_bytes]
    if len(table) != table_bytes or size < ENTRY.size or zlib.crc32(table) != entries_sum:
        return None
    second = last - -(-table_bytes // sector)
    if max((end for end in _ends(table, size)), default=0) >= second:
        return None
    here = _Copy(raw, 1, last, second - 1, at).encoded()
    there = _Copy(raw, last, 1, second - 1, second).encoded()
    return MovedGpt(
        _protected(first[:sector], last) + here + first[2 * sector :],
        table.ljust((last - second) * sector, b"\0") + there,
        sector,
    )


def _ends(table: bytes, size: int) -> list[int]:
    entries = (ENTRY.unpack_from(table, at) for at in range(0, len(table), size))
    return [high for kind, _, _, high, _, _ in entries if any(kind)]


def _protected(mbr: bytes, last: int) -> bytes:
    """The MBR whose one entry protects all of the disk; a hybrid one stays as it is."""
    end = _MBR_ENTRIES + _MBR_ENTRY_BYTES
    entry = mbr[_MBR_ENTRIES:end]
    if entry[4] != _PROTECTIVE or any(mbr[end : _MBR_ENTRIES + 4 * _MBR_ENTRY_BYTES]):
        return mbr
    length = struct.pack("<I", min(last, 0xFFFFFFFF))
    return mbr[: end - 4] + length + mbr[end:]

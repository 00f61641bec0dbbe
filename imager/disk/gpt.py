"""The GUID partition table: a disk's partitions, told by its first copy or by its last.

In: a way to read a disk, and its size. Out: the partitions in use, or why there is no table. The
form is UEFI's (specification 2.10, chapter 5.3); sectors are of 512 bytes.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

from imager.base.units import SECTOR_BYTES
from imager.disk.extents import Extent
from imager.disk.manifest import Reader

SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
BACKUP_BYTES = 33 * SECTOR_BYTES
"""The second copy at the end of a disk: 128 entries, and the header in the last sector."""
_MOST_ENTRIES = 1024
_LARGEST_ENTRY = 1024


class GptError(ValueError):
    """There is no usable GUID partition table; the message says why."""


@dataclass(frozen=True, slots=True)
class GptPartition:
    """One entry in use; ``index`` counts from 1. GUIDs are lower case, ``extent`` is in bytes."""

    index: int
    type_guid: str
    guid: str
    label: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class Gpt:
    """A table: the disk's GUID, the entries in use, and whether it is the copy at the disk's end,
    which counts where the first one is damaged."""

    guid: str
    partitions: tuple[GptPartition, ...]
    is_backup: bool


def read_gpt(read: Reader, size_bytes: int) -> Gpt:
    """The table of a disk of ``size_bytes``. Raises GptError, about the first copy, where neither
    can be used."""
    try:
        return _read_copy(read, 1, size_bytes, is_backup=False)
    except GptError as error:
        try:
            return _read_copy(read, size_bytes // SECTOR_BYTES - 1, size_bytes, is_backup=True)
        except GptError:
            raise error from None


def _read_copy(read: Reader, lba: int, size_bytes: int, *, is_backup: bool) -> Gpt:
    if not 0 < lba < size_bytes // SECTOR_BYTES:
        raise GptError("the disk has no room for a GPT")
    raw = read(lba * SECTOR_BYTES, SECTOR_BYTES)
    (signature, _, length, sum_, _, own, _, _, _, guid, first, count, size, entries_sum) = (
        _HEADER.unpack_from(raw)
    )
    if signature != SIGNATURE:
        raise GptError("there is no GPT")
    if not _HEADER.size <= length <= SECTOR_BYTES or own != lba:
        raise GptError("the header of the GPT is damaged")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != sum_:
        raise GptError("the header of the GPT does not fit its checksum")
    if count > _MOST_ENTRIES or not _ENTRY.size <= size <= _LARGEST_ENTRY or size % 8:
        raise GptError(f"the GPT claims {count} entries of {size} bytes")
    if first * SECTOR_BYTES + count * size > size_bytes:
        raise GptError("the entries of the GPT lie beyond the disk")
    table = read(first * SECTOR_BYTES, count * size)
    if zlib.crc32(table) != entries_sum:
        raise GptError("the entries of the GPT do not fit their checksum")
    return Gpt(_guid(guid), tuple(_entries(table, size)), is_backup)


def _entries(table: bytes, size: int) -> list[GptPartition]:
    found = []
    for index, at in enumerate(range(0, len(table), size), 1):
        kind, own, low, high, _, name = _ENTRY.unpack_from(table, at)
        if not any(kind) or high < low:
            continue
        label = name.decode("utf-16-le", "replace").split("\0")[0]
        extent = Extent(low * SECTOR_BYTES, (high - low + 1) * SECTOR_BYTES)
        found.append(GptPartition(index, _guid(kind), _guid(own), label, extent))
    return found


def _guid(raw: bytes) -> str:
    return str(uuid.UUID(bytes_le=raw))


def resized(
    read: Reader, size_bytes: int, new_size_bytes: int, last: tuple[int, int] | None = None
) -> list[tuple[int, bytes]]:
    """What to write where (byte, bytes), so that the table of a disk of ``size_bytes`` is right on
    one of ``new_size_bytes``: both copies and the protective MBR before them. ``last`` is a
    partition, by its index, and the byte at which it ends from now on.

    Raises GptError where there is no table, or a partition does not fit.
    """
    found = read_gpt(read, size_bytes)
    at = size_bytes // SECTOR_BYTES - 1 if found.is_backup else 1
    fields = list(_HEADER.unpack_from(read(at * SECTOR_BYTES, SECTOR_BYTES)))
    count, size = fields[11], fields[12]
    table = bytearray(read(fields[10] * SECTOR_BYTES, count * size))
    if last is not None:
        index, end = last
        struct.pack_into("<Q", table, (index - 1) * size + 40, end // SECTOR_BYTES - 1)
    sectors = -(-len(table) // SECTOR_BYTES)
    end_lba = new_size_bytes // SECTOR_BYTES - 1
    fields[8], fields[13] = end_lba - sectors - 1, zlib.crc32(table)
    first = 2 if found.is_backup else fields[10]
    room = Extent((first + sectors) * SECTOR_BYTES, (end_lba - first - 2 * sectors) * SECTOR_BYTES)
    for part in _entries(bytes(table), size):
        if not room.offset <= part.extent.offset <= part.extent.end <= room.end:
            raise GptError(f"its partitions do not fit on a disk of {new_size_bytes} bytes")
    copies = ((1, end_lba, first), (end_lba, 1, end_lba - sectors))
    pieces = [(0, _protective(read(0, SECTOR_BYTES), end_lba))]
    for own, other, entries in copies:
        fields[2], fields[3], fields[5], fields[6], fields[10] = (
            _HEADER.size,
            0,
            own,
            other,
            entries,
        )
        fields[3] = zlib.crc32(_HEADER.pack(*fields))
        pieces.append((own * SECTOR_BYTES, _HEADER.pack(*fields).ljust(SECTOR_BYTES, b"\0")))
        pieces.append((entries * SECTOR_BYTES, bytes(table)))
    return pieces


def _protective(sector: bytes, end_lba: int) -> bytes:
    """The MBR ``sector`` with its entry of type EE reaching to the end of the disk."""
    changed = bytearray(sector)
    for at in range(446, 510, 16):
        if changed[at + 4] == 0xEE:
            (start,) = struct.unpack_from("<I", changed, at + 8)
            # A stranger's may begin anywhere, also behind the end.
            count = min(max(0, end_lba - start + 1), 0xFFFFFFFF)
            struct.pack_into("<I", changed, at + 12, count)
    return bytes(changed)

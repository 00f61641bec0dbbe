"""Whether metadata is damaged: ext4 stores a checksum in each inode, group descriptor and block of
names (metadata_csum, or for descriptors alone the older uninit_bg).

In: the bytes of one and its number. Out: yes or no. Which bytes the checksum covers, in which
order, is in the kernel's Documentation/filesystems/ext4/checksums.rst.
"""

from __future__ import annotations

import struct

from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.format import (
    INODE_BASE_BYTES,
    RO_COMPAT_GDT_CSUM,
    RO_COMPAT_METADATA_CSUM,
    Superblock,
)

_DESCRIPTOR_CHECKSUM = 30
_TAIL = struct.Struct("<IHBBI")
_TAIL_HEAD = (0, _TAIL.size, 0, 0xDE)
"""A block of names ends with an entry that has no name, and a type that no file has."""
_GENERATION, _CHECKSUM_LOW, _CHECKSUM_HIGH = 100, 124, 130


def inode_checksum_fits(raw: bytes, number: int, seed: int) -> bool:
    """Whether the checksum stored in ``raw``, the bytes of inode ``number``, is right.

    ``seed`` is the filesystem's own starting value, ``Superblock.checksum_seed``.
    """
    content = bytearray(raw)
    stored = int.from_bytes(raw[_CHECKSUM_LOW : _CHECKSUM_LOW + 2], "little")
    content[_CHECKSUM_LOW : _CHECKSUM_LOW + 2] = bytes(2)
    mask = 0xFFFF
    if len(raw) > INODE_BASE_BYTES and struct.unpack_from("<H", raw, INODE_BASE_BYTES)[0] >= 4:
        stored |= int.from_bytes(raw[_CHECKSUM_HIGH : _CHECKSUM_HIGH + 2], "little") << 16
        content[_CHECKSUM_HIGH : _CHECKSUM_HIGH + 2] = bytes(2)
        mask = 0xFFFFFFFF
    return crc32c(content, inode_seed(raw, number, seed)) & mask == stored


def inode_seed(raw: bytes, number: int, seed: int) -> int:
    """The value from which the checksums of inode ``number``, and of what it holds, start."""
    generation = raw[_GENERATION : _GENERATION + 4]
    return crc32c(number.to_bytes(4, "little") + generation, seed)


def directory_block_fits(block: bytes, seed: int) -> bool:
    """Whether a block of names ends with its checksum, and that is right; ``seed`` is the
    ``inode_seed`` of the directory."""
    *head, stored = _TAIL.unpack(block[-_TAIL.size :])
    return tuple(head) == _TAIL_HEAD and crc32c(block[: -_TAIL.size], seed) == stored


def descriptor_fits(raw: bytes, group: int, superblock: Superblock) -> bool:
    """Whether the descriptor of ``group`` fits its checksum; true where it has none."""
    at = _DESCRIPTOR_CHECKSUM
    number, stored = group.to_bytes(4, "little"), int.from_bytes(raw[at : at + 2], "little")
    if superblock.ro_compat & RO_COMPAT_METADATA_CSUM:
        content = number + raw[:at] + bytes(2) + raw[at + 2 :]
        return crc32c(content, superblock.checksum_seed) & 0xFFFF == stored
    if superblock.ro_compat & RO_COMPAT_GDT_CSUM:
        return _crc16(superblock.uuid.bytes + number + raw[:at] + raw[at + 2 :]) == stored
    return True


def bitmap_fits(bitmap: bytes, stored: int, superblock: Superblock) -> bool:
    """Whether a bitmap of blocks has the checksum ``stored`` of its group's descriptor; true where
    the filesystem keeps none. Descriptors of less than 64 bytes keep the lower half of it."""
    if not superblock.ro_compat & RO_COMPAT_METADATA_CSUM:
        return True
    found = crc32c(bitmap[: superblock.blocks_per_group // 8], superblock.checksum_seed)
    return found & (0xFFFFFFFF if superblock.desc_size >= 64 else 0xFFFF) == stored


def _crc16(data: bytes) -> int:
    """CRC-16 with the polynomial 8005, bits reversed, as lib/crc16.c of the kernel has it."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value

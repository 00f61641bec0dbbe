"""Whether the bytes of an inode are damaged: ext4 stores a checksum in each (metadata_csum).

In: the bytes of an inode and its number. Out: yes or no. Which bytes the checksum covers, in which
order, is in the kernel's Documentation/filesystems/ext4/checksums.rst.
"""

from __future__ import annotations

import struct

from imager.disk.ext4.crc32c import crc32c
from imager.disk.ext4.format import INODE_BASE_BYTES

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
    generation = raw[_GENERATION : _GENERATION + 4]
    seed = crc32c(number.to_bytes(4, "little") + generation, seed)
    return crc32c(content, seed) & mask == stored

"""CRC-32C, the checksum of ext4's metadata (Castagnoli's polynomial, bits reversed).

In: bytes, and the value of the bytes before them. Out: the value as ext4 stores it: without the
inversion that CRC-32C usually ends with (kernel, Documentation/filesystems/ext4/checksums.rst).
The standard library has only the CRC-32 of zip files.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_row(value) for value in range(256))


def crc32c(data: bytes | bytearray, value: int = 0xFFFFFFFF) -> int:
    """The checksum of ``data``; ``value`` is the checksum of the bytes that come before it."""
    table = _TABLE
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value

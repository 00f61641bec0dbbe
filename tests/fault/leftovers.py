"""A card's former lives: every signature that could be believed, at the offset where it is sought.

In: the size of a card and its partitions. Out: (offset, bytes) pieces. Raw signatures after the
formats' own documents: UEFI (GPT), drivers/md and linux/raid/md_p.h (mdraid), lvm2's
format_text/layout.h and label.h (LVM2), mkswap(8), btrfs' on-disk format, ZFS' vdev labels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from imager.base.units import KiB, MiB, align_down
from imager.disk.extents import Extent

Piece = tuple[int, bytes]
_UUID = bytes(range(1, 17))


def on_disk(size_bytes: int) -> Iterator[Piece]:
    """What may lie on a whole disk of this size, its GPT first and last."""
    yield from _gpt(size_bytes)
    yield from on_volume(Extent(0, size_bytes), with_start=False)


def on_volume(volume: Extent, *, with_start: bool = True) -> Iterator[Piece]:
    """What may lie on a partition; ``with_start`` also where a filesystem will begin."""
    start, end = volume.offset, volume.end
    yield end - 64 * KiB - (end - start) % (64 * KiB), _mdraid_0_90()
    yield start + align_down(volume.length - 8 * KiB, 4 * KiB), _mdraid_1(0)
    yield from _zfs_labels(volume)
    yield end - 512, b"\x52\x41\x49\x44" * 128
    yield start + 64 * KiB + 64, b"_BHRfS_M"
    yield start + 64 * MiB + 64 if volume.length > 65 * MiB else end - KiB, b"_BHRfS_M"
    if with_start:
        yield start, _mdraid_1(1)
        yield start + 4 * KiB, _mdraid_1(2)
        yield start + 512, _lvm_label()
        yield start + KiB, struct.pack("<III", 1, volume.length // (4 * KiB) - 1, 0) + _UUID
        yield start + 4 * KiB - 10, b"SWAPSPACE2"
        yield start + 32 * KiB + 1, b"CD001"


def _gpt(size_bytes: int) -> Iterator[Piece]:
    last = size_bytes // 512 - 1
    entry = _UUID + bytes(range(17, 33)) + struct.pack("<QQQ", 2048, last - 40, 0)
    table = (entry.ljust(128, b"\0")).ljust(128 * 128, b"\0")
    for own, other, entries in ((1, last, 2), (last, 1, last - 32)):
        fields = (b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, last - 34, _UUID, entries)
        head = struct.pack("<8sIIIIQQQQ16sQ", *fields) + struct.pack(
            "<III", 128, 128, zlib.crc32(table)
        )
        crc = struct.pack("<I", zlib.crc32(head))
        yield own * 512, head[:16] + crc + head[20:]
        yield entries * 512, table


def _mdraid_0_90() -> bytes:
    words = [0xA92B4EFC, 0, 90, 0, 0, 0x01020304, 0, 1, 2048, 2, 2, 0, 0]
    return struct.pack("<13I", *words).ljust(4096, b"\0")


def _mdraid_1(minor: int) -> bytes:
    """Superblock 1.0 (near the end), 1.1 (start) or 1.2 (4 KiB in), by where its sector lies."""
    sector = {0: 0, 1: 0, 2: 8}[minor]
    head = struct.pack("<IIII", 0xA92B4EFC, 1, 0, 0) + _UUID + b"stranger:0".ljust(32, b"\0")
    body = struct.pack("<QIIQII", 0, 1, 0, 2048, 0, 2).ljust(56, b"\0")
    return (head + body + struct.pack("<QQQ", 2048, 8192, sector)).ljust(1024, b"\0")


def _lvm_label() -> bytes:
    header = b"abcdefghijklmnopqrstuvwxyz012345" + struct.pack("<QQQQQ", 64 << 20, MiB, 0, 0, 0)
    body = struct.pack("<I8s", 32, b"LVM2 001") + header.ljust(480, b"\0")
    return b"LABELONE" + struct.pack("<QI", 1, _lvm_crc(body)) + body


def _lvm_crc(data: bytes) -> int:
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _zfs_labels(volume: Extent) -> Iterator[Piece]:
    """The uberblocks of the two labels at the end, 256 KiB each, and of those at the start."""
    uberblock = struct.pack("<QQQQQ", 0x00BAB10C, 5000, 7, 9, 0x0102).ljust(KiB, b"\0")
    end = align_down(volume.end, 256 * KiB)
    for label in (end - 512 * KiB, end - 256 * KiB):
        for number in range(8):
            yield label + 128 * KiB + number * KiB, uberblock

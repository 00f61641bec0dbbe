"""Kernel files: is this one whole, and is it for this processor?

In: the bytes of a kernel file. Out: what is wrong with it. Pure. Sources: the kernel's
arch/arm/boot/compressed/head.S (zImage header), Documentation/arch/arm64/booting.rst (Image
header), U-Boot's include/image.h (script header).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from imager.bootcheck.formats.packed import unpacked, unpacker_of
from imager.disk.budget import Budget

_ZIMAGE_MAGIC = 0x016F2818
_ARM64_MAGIC = b"ARM\x64"
_UBOOT_MAGIC = 0x27051956
_UBOOT_MIN = 1024


@dataclass(frozen=True, slots=True)
class KernelFile:
    """What a kernel file is: 32 or 64 bits (None: unknown), and its fault if it has one."""

    bits: int | None
    fault: str | None


def inspect_kernel(data: bytes, budget: Budget | None = None) -> KernelFile:
    """Recognise a zImage, an arm64 Image (plain or gzip'd) or U-Boot; OverBudget where that takes
    more than ``budget`` has."""
    if data[:2] == b"\x1f\x8b":
        return _gzipped(data, budget or Budget())
    if len(data) >= 64 and data[56:60] == _ARM64_MAGIC:
        (size,) = struct.unpack_from("<Q", data, 16)
        # image_size counts memory that is zeroed at start too, so a file may be shorter; a whole
        # one is never shorter than a third of it.
        if size and len(data) * 3 < size:
            return KernelFile(64, f"it is cut off: {len(data)} bytes of a kernel of about {size}")
        return KernelFile(64, None)
    if len(data) >= 48 and struct.unpack_from("<I", data, 36)[0] == _ZIMAGE_MAGIC:
        start, end = struct.unpack_from("<II", data, 40)
        if end <= start:
            return KernelFile(32, "its header is damaged: it ends before it begins")
        if len(data) < end - start:
            return KernelFile(32, f"it is cut off: {len(data)} bytes of {end - start}")
        return KernelFile(32, None)
    if is_uboot(data):
        return KernelFile(None, None)
    return KernelFile(None, "it is no kernel: neither a zImage nor an arm64 Image nor U-Boot")


def is_uboot(data: bytes) -> bool:
    """Whether it is U-Boot, which starts a kernel as its script says."""
    return len(data) >= _UBOOT_MIN and b"U-Boot 20" in data


def _gzipped(data: bytes, budget: Budget) -> KernelFile:
    unpacker, head = unpacker_of("gzip"), b""
    try:
        for plain, _ in unpacked(unpacker, data, 0, budget):
            head = (head + plain)[:64] if len(head) < 64 else head
    except zlib.error as error:
        return KernelFile(64, f"its gzip data is damaged ({error})")
    if not unpacker.eof:
        return KernelFile(64, f"its gzip data is cut off after {len(data)} bytes")
    if head[56:60] != _ARM64_MAGIC:
        return KernelFile(None, "it is gzip data, but no arm64 kernel is in it")
    return KernelFile(64, None)


def boot_script_fault(data: bytes) -> str | None:
    """What is wrong with U-Boot's boot.scr: both of its checksums must be right."""
    if len(data) < 64 or struct.unpack_from(">I", data)[0] != _UBOOT_MAGIC:
        return "it is no U-Boot script"
    header_sum, size = struct.unpack_from(">4xI4xI", data)
    (data_sum,) = struct.unpack_from(">I", data, 24)
    if zlib.crc32(data[:4] + bytes(4) + data[8:64]) != header_sum:
        return "the checksum of its header is wrong"
    if len(data) < 64 + size:
        return f"it is cut off: {len(data)} bytes of {64 + size}"
    if zlib.crc32(data[64 : 64 + size]) != data_sum:
        return "the checksum of its content is wrong"
    return None

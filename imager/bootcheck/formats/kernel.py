"""Kernel files: is this one whole, is it for this processor, and which release of Linux is it?

In: the bytes of a kernel file. Out: what it is, and what is wrong with it. Pure. Sources: the
kernel's arch/arm/boot/compressed/head.S (zImage header), Documentation/arch/arm64/booting.rst
(Image header), init/version.c (the banner with the release), U-Boot's include/image.h (script
header); the UEFI Platform Initialization Specification, volume 3 (the mark of a firmware volume).
"""

from __future__ import annotations

import lzma
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imager.base.units import MiB
from imager.bootcheck.formats.initramfs import INIT
from imager.bootcheck.formats.packed import unpacked, unpacker_of
from imager.disk.budget import Budget

_ZIMAGE_MAGIC = 0x016F2818
_ARM64_MAGIC = b"ARM\x64"
_UBOOT_MAGIC = 0x27051956
_UBOOT_MIN = 1024
_UBOOT = re.compile(rb"U-Boot (?:SPL )?20\d\d\.")
_UEFI_VOLUME = b"_FVH"
_BANNER = re.compile(rb"Linux version (\d[!-~]{1,100}) \(")
_PAGES_KIB = {1: 4, 2: 16, 3: 64}
"""Sizes of a page, by what an Image's header has for them."""
_TAIL = 256  # longer than either of them
_PAYLOADS = {b"\x1f\x8b\x08": "gzip", b"\xfd7zXZ\0": "xz", b"\x5d\0\0": "lzma"}
_TRIED = 8


@dataclass(frozen=True, slots=True)
class KernelFile:
    """What a kernel file is: 32 or 64 bits (None: no kernel of Linux that is known here), and its
    fault if it has one.

    ``loader`` is "U-Boot" or "UEFI" where it is that instead. ``page_kib`` is the size of a page of
    memory it is built for, None where it does not say. ``release`` is what ``uname -r`` will
    say, empty where that cannot be seen; ``own_init`` whether an initramfs with an init is seen to
    be built into it.
    """

    bits: int | None
    fault: str | None
    loader: str = ""
    release: str = ""
    own_init: bool = False
    page_kib: int | None = None


def inspect_kernel(data: bytes, budget: Budget | None = None) -> KernelFile:
    """Recognise a zImage, an arm64 Image (plain or gzip'd), U-Boot or UEFI; OverBudget where that
    takes more than ``budget`` has."""
    budget = budget or Budget()
    if data[:2] == b"\x1f\x8b":
        return _gzipped(data, budget)
    if is_uboot(data):
        return KernelFile(None, None, "U-Boot")
    if len(data) >= 64 and data[56:60] == _ARM64_MAGIC:
        (size,) = struct.unpack_from("<Q", data, 16)
        # image_size counts memory that is zeroed at start too, so a file may be shorter; a whole
        # one is never shorter than a third of it.
        if size and len(data) * 3 < size:
            return KernelFile(64, f"it is cut off: {len(data)} bytes of a kernel of about {size}")
        kernel = KernelFile(64, None, page_kib=_page_kib(data))
        return _with_content(kernel, iter([data]), budget)
    if len(data) >= 48 and struct.unpack_from("<I", data, 36)[0] == _ZIMAGE_MAGIC:
        start, end = struct.unpack_from("<II", data, 40)
        if end <= start:
            return KernelFile(32, "its header is damaged: it ends before it begins")
        if len(data) < end - start:
            return KernelFile(32, f"it is cut off: {len(data)} bytes of {end - start}")
        return _zimage_content(data, budget)
    if is_uefi(data):
        return KernelFile(None, None, "UEFI")
    return KernelFile(None, "it is no kernel: neither a zImage nor an arm64 Image nor U-Boot")


def is_uboot(data: bytes) -> bool:
    """Whether it is U-Boot, which starts a kernel as its script says."""
    return len(data) >= _UBOOT_MIN and _UBOOT.search(data) is not None


def is_uefi(data: bytes) -> bool:
    """Whether it is UEFI firmware, which starts whatever boot loader it finds."""
    return _UEFI_VOLUME in data


def _gzipped(data: bytes, budget: Budget) -> KernelFile:
    """An arm64 kernel, or U-Boot, that the firmware unpacks first."""
    unpacker, head, tail = unpacker_of("gzip"), b"", b""
    found, is_loader = KernelFile(64, None), False
    try:
        for plain, _ in unpacked(unpacker, data, 0, budget):
            head = (head + plain)[:64] if len(head) < 64 else head
            seen, tail = tail + plain, (tail + plain)[-_TAIL:]
            found = _with_marks(found, seen)
            is_loader = is_loader or _UBOOT.search(seen) is not None
    except zlib.error as error:
        return KernelFile(64, f"its gzip data is damaged ({error})")
    if not unpacker.eof:
        return KernelFile(64, f"its gzip data is cut off after {len(data)} bytes")
    if is_loader:
        return KernelFile(None, None, "U-Boot")
    if head[56:60] != _ARM64_MAGIC:
        return KernelFile(None, "it is gzip data, but no arm64 kernel is in it")
    return replace(found, page_kib=_page_kib(head))


def _page_kib(head: bytes) -> int | None:
    """What the flags in the header of an arm64 Image say of the size of a page."""
    return _PAGES_KIB.get(head[24] >> 1 & 3)


def _zimage_content(data: bytes, budget: Budget) -> KernelFile:
    """A whole zImage with what its packed content says; nothing of that where it is packed in a
    way that is not known here (lzo, lz4)."""
    plain = _with_content(KernelFile(32, None), iter([data]), budget)
    for at, name in _payloads(data):
        inside = _with_content(plain, _pieces(data, at, name, budget), budget)
        if inside.release:
            return inside
    return plain


def _payloads(data: bytes) -> Iterator[tuple[int, str]]:
    """Where packed content may begin, in the order in which it is worth trying."""
    for magic, name in _PAYLOADS.items():
        at = data.find(magic)
        for _ in range(_TRIED):
            if at < 0:
                break
            yield at, name
            at = data.find(magic, at + 1)


def _pieces(data: bytes, at: int, name: str, budget: Budget) -> Iterator[bytes]:
    """What is unpacked from ``at`` on, until it is no such data."""
    try:
        for plain, _ in unpacked(unpacker_of(name), data, at, budget):
            yield plain
    except (zlib.error, lzma.LZMAError, OSError):
        return


def _with_content(kernel: KernelFile, pieces: Iterator[bytes], budget: Budget) -> KernelFile:
    tail = b""
    for piece in pieces:
        budget.step(len(piece) * 4000 // MiB)
        seen = tail + piece if tail else piece  # a whole kernel is not copied
        tail = seen[-_TAIL:]
        kernel = _with_marks(kernel, seen)
    return kernel


def _with_marks(kernel: KernelFile, seen: bytes) -> KernelFile:
    """``kernel`` with what stands in ``seen``, a part of it."""
    if not kernel.release and (banner := _BANNER.search(seen)):
        kernel = replace(kernel, release=banner[1].decode("ascii"))
    if not kernel.own_init and INIT.search(seen):
        kernel = replace(kernel, own_init=True)
    return kernel


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

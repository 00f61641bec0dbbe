"""An initramfs: is it whole?

In: the bytes of a file of it. Out: what is wrong with it, and whether it has an init. Pure. It is
one or more cpio archives one after another, each plain or compressed, with zeros between (the
kernel's Documentation/driver-api/early-userspace/buffer-format.rst). gzip, xz, bzip2 and lzma are
unpacked and checked to the end; of zstd and lz4 the chain of blocks is followed.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from imager.bootcheck.formats.packed import unpacked, unpacker_of
from imager.disk.budget import Budget

_TRAILER = b"TRAILER!!!"
_LEAST_PACKED = 64
_CPIO_MAGICS = (b"070701", b"070702")
_INIT_NAME = rb"(?:\.?/+)?init"
"""The program that is started, as an archive may have it: the kernel takes each for a path from the
root of what it unpacks (init/initramfs.c)."""
INIT = re.compile(rb"07070[12][0-9a-fA-F]{104}" + _INIT_NAME + rb"\0")
"""A cpio header with its name."""
_CPIO_NAME_BYTES = 128  # a header with the name of an init
_CPIO_HEADER = re.compile(rb"07070[0-9a-fA-F]{105}")
_LZ4_MAX_BLOCK = 9 << 20


class InitramfsError(ValueError):
    """The archive is damaged or cut off."""


@dataclass(frozen=True, slots=True)
class Initramfs:
    """One file of an initramfs: its fault if it has one, and whether it has an init (None where
    that cannot be seen)."""

    fault: str | None
    has_init: bool | None = None


def inspect_initramfs(data: bytes, budget: Budget | None = None) -> Initramfs:
    """Look at one file, which may be one of several that the firmware puts one behind another: any
    of them may have the init. Raises OverBudget where telling takes more than ``budget`` has."""
    budget = budget or Budget()
    if data.count(0) == len(data):
        return Initramfs("it holds only zeros")
    at, seen = _skip_zeros(data, 0), set[bool | None]()
    found: bool | None
    try:
        while at < len(data):
            if data[at : at + 6] in _CPIO_MAGICS:
                at, found = _end_of_cpio(data, at, budget)
            else:
                at, found = _end_of_packed(data, at, budget)
            seen.add(found)
            at = _skip_zeros(data, at)
    except InitramfsError as error:
        return Initramfs(str(error))
    return Initramfs(None, True if True in seen else None if None in seen else False)


def initramfs_fault(data: bytes, budget: Budget | None = None) -> str | None:
    """What is wrong with an initramfs that is one file; None when every part of it is whole."""
    found = inspect_initramfs(data, budget)
    # Microcode, for example, comes in a plain archive before the real one.
    if found.fault is None and found.has_init is False:
        return "it is cut off: it has no init, only what stands before it"
    return found.fault


def _skip_zeros(data: bytes, at: int) -> int:
    while at < len(data) and data.count(0, at, at + 4096) == len(data[at : at + 4096]):
        at += 4096
    rest = data[at : at + 4096]
    return min(len(data), at + len(rest) - len(rest.lstrip(b"\0")))


def _end_of_packed(data: bytes, at: int, budget: Budget) -> tuple[int, bool | None]:
    """Where a packed archive ends, and whether there is an init in it; None where it is packed in a
    way that is only followed here."""
    head = data[at : at + 6]
    for magic, end_of in _FORMATS:
        if head.startswith(magic):
            end, has_init = end_of(data, at, budget)
            if end - at < _LEAST_PACKED:
                raise InitramfsError(f"it is cut off: an archive of {end - at} bytes holds nothing")
            return end, has_init
    raise InitramfsError(f"at byte {at} stands {head.hex(' ')}, which begins no archive")


def _end_of_cpio(data: bytes, at: int, budget: Budget) -> tuple[int, bool]:
    """Where a plain newc archive ends, and whether there is an init in it."""
    has_init = False
    while at + 110 <= len(data):
        budget.step(3)
        header = data[at : at + 110]
        if not _CPIO_HEADER.fullmatch(header):
            raise InitramfsError(f"its cpio header at byte {at} is damaged")
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        name = data[at + 110 : at + 110 + name_size].rstrip(b"\0")
        content = at + (110 + name_size + 3 & ~3)
        at = content + (size + 3 & ~3)
        if name == _TRAILER:
            return min(at, len(data)), has_init
        has_init = has_init or re.fullmatch(_INIT_NAME, name) is not None
    raise InitramfsError(f"it is cut off: its cpio archive does not end ({len(data)} bytes)")


_EndOf = Callable[[bytes, int, Budget], tuple[int, bool | None]]


def _unpacked(name: str) -> _EndOf:
    def end_of(data: bytes, at: int, budget: Budget) -> tuple[int, bool | None]:
        unpacker, tail, ended, has_init, end = unpacker_of(name), b"", False, False, at
        try:
            for plain, end in unpacked(unpacker, data, at, budget):  # noqa: B007 - the last counts
                seen, tail = tail + plain, (tail + plain)[-_CPIO_NAME_BYTES:]
                ended = ended or _TRAILER in seen
                has_init = has_init or INIT.search(seen) is not None
        except (zlib.error, lzma.LZMAError, OSError) as error:
            raise InitramfsError(f"its {name} data is damaged ({error})") from None
        if not unpacker.eof:
            raise InitramfsError(f"it is cut off: its {name} data does not end")
        if not ended:
            raise InitramfsError(f"its {name} data holds no complete cpio archive")
        return end, has_init

    return end_of


def _end_of_zstd(data: bytes, at: int, budget: Budget) -> tuple[int, None]:
    """Follow the blocks of one frame (RFC 8878, section 3.1.1)."""
    descriptor = data[at + 4] if at + 4 < len(data) else 0
    single = descriptor >> 5 & 1
    content_size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    position = at + 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    while position + 3 <= len(data):
        budget.step()
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind == 3:
            raise InitramfsError(f"its zstd data is damaged at byte {position}")
        position += 3 + (1 if kind == 1 else size)
        if last:
            position += 4 if descriptor & 4 else 0
            if position <= len(data):
                return position, None
            break
    raise InitramfsError("it is cut off: its zstd data does not end")


def _end_of_lz4(data: bytes, at: int, budget: Budget) -> tuple[int, None]:
    """Follow the blocks of the legacy format, which the kernel's build uses. It has no end mark: it
    ends with the file, with zeros, or with a number that cannot be the size of a block."""
    position = at + 4
    while position + 4 <= len(data):
        budget.step()
        size = int.from_bytes(data[position : position + 4], "little")
        if size == 0 or size > _LZ4_MAX_BLOCK:
            return position, None
        position += 4 + size
        if position > len(data):
            raise InitramfsError("it is cut off: its last lz4 block does not end")
    return len(data), None


_FORMATS: tuple[tuple[bytes, _EndOf], ...] = (
    (b"\x1f\x8b", _unpacked("gzip")),
    (b"\xfd7zXZ\0", _unpacked("xz")),
    (b"BZh", _unpacked("bzip2")),
    (b"\x5d\0\0", _unpacked("lzma")),
    (b"\x28\xb5\x2f\xfd", _end_of_zstd),
    (b"\x02\x21\x4c\x18", _end_of_lz4),
)

"""An initramfs: is it whole?

In: the bytes of the file. Out: what is wrong with it. Pure. It is one or more cpio archives one
after another, each plain or compressed, with zeros between (the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst). gzip, xz, bzip2 and lzma are unpacked
and checked to the end; of zstd and lz4 the chain of blocks is followed.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

_TRAILER = b"TRAILER!!!"
_LEAST_PACKED = 64
_CPIO_MAGICS = (b"070701", b"070702")
_MAX_UNPACKED = 1 << 30
_LZ4_MAX_BLOCK = 9 << 20
_STEP = 1 << 14  # small, so that a few bytes cannot unpack to gigabytes of memory in one step


class InitramfsError(ValueError):
    """The archive is damaged or cut off."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def initramfs_fault(data: bytes) -> str | None:
    """What is wrong with an initramfs; None when every part of it is whole."""
    if not any(data):
        return "it holds only zeros"
    at, has_init = _skip_zeros(data, 0), False
    try:
        while at < len(data):
            if data[at : at + 6] in _CPIO_MAGICS:
                at, names = _end_of_cpio(data, at)
                has_init = has_init or not names.isdisjoint({b"init", b"./init"})
            else:
                at, has_init = _end_of_packed(data, at), True
            at = _skip_zeros(data, at)
    except InitramfsError as error:
        return str(error)
    # Microcode, for example, comes in a plain archive before the real one.
    return None if has_init else "it is cut off: it has no init, only what stands before it"


def _skip_zeros(data: bytes, at: int) -> int:
    while at < len(data) and not any(data[at : at + 4096]):
        at += 4096
    rest = data[at : at + 4096]
    return min(len(data), at + len(rest) - len(rest.lstrip(b"\0")))


def _end_of_packed(data: bytes, at: int) -> int:
    head = data[at : at + 6]
    for magic, end_of in _FORMATS:
        if head.startswith(magic):
            end = end_of(data, at)
            if end - at < _LEAST_PACKED:
                raise InitramfsError(f"it is cut off: an archive of {end - at} bytes holds nothing")
            return end
    raise InitramfsError(f"at byte {at} stands {head.hex(' ')}, which begins no archive")


def _end_of_cpio(data: bytes, at: int) -> tuple[int, set[bytes]]:
    """Where a plain newc archive ends, and the names in it."""
    names: set[bytes] = set()
    while at + 110 <= len(data):
        header = data[at : at + 110]
        try:
            size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        except ValueError:
            raise InitramfsError(f"its cpio header at byte {at} is damaged") from None
        if header[:5] != b"07070":
            raise InitramfsError(f"its cpio header at byte {at} is damaged")
        name = data[at + 110 : at + 110 + name_size].rstrip(b"\0")
        content = at + (110 + name_size + 3 & ~3)
        at = content + (size + 3 & ~3)
        if name == _TRAILER:
            return min(at, len(data)), names
        names.add(name)
    raise InitramfsError(f"it is cut off: its cpio archive does not end ({len(data)} bytes)")


def _unpacked(make: Callable[[], _Unpacker], name: str) -> Callable[[bytes, int], int]:
    def end_of(data: bytes, at: int) -> int:
        unpacker, tail, ended, total = make(), b"", False, 0
        while not unpacker.eof:
            if at >= len(data):
                raise InitramfsError(f"it is cut off: its {name} data does not end")
            try:
                plain = unpacker.decompress(data[at : at + _STEP])
            except (zlib.error, lzma.LZMAError, OSError) as error:
                raise InitramfsError(f"its {name} data is damaged ({error})") from None
            at = min(len(data), at + _STEP)
            total += len(plain)
            ended = ended or _TRAILER in tail + plain
            tail = plain[-len(_TRAILER) :]
            if total > _MAX_UNPACKED:
                raise InitramfsError(f"it unpacks to more than {_MAX_UNPACKED} bytes")
        if not ended:
            raise InitramfsError(f"its {name} data holds no complete cpio archive")
        return at - len(unpacker.unused_data)

    return end_of


def _end_of_zstd(data: bytes, at: int) -> int:
    """Follow the blocks of one frame (RFC 8878, section 3.1.1)."""
    descriptor = data[at + 4] if at + 4 < len(data) else 0
    single = descriptor >> 5 & 1
    content_size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    position = at + 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    while position + 3 <= len(data):
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        if kind == 3:
            raise InitramfsError(f"its zstd data is damaged at byte {position}")
        position += 3 + (1 if kind == 1 else size)
        if last:
            position += 4 if descriptor & 4 else 0
            if position <= len(data):
                return position
            break
    raise InitramfsError("it is cut off: its zstd data does not end")


def _end_of_lz4(data: bytes, at: int) -> int:
    """Follow the blocks of the legacy format, which the kernel's build uses. It has no end mark: it
    ends with the file, with zeros, or with a number that cannot be the size of a block."""
    position = at + 4
    while position + 4 <= len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        if size == 0 or size > _LZ4_MAX_BLOCK:
            return position
        position += 4 + size
        if position > len(data):
            raise InitramfsError("it is cut off: its last lz4 block does not end")
    return len(data)


_FORMATS: tuple[tuple[bytes, Callable[[bytes, int], int]], ...] = (
    (b"\x1f\x8b", _unpacked(lambda: zlib.decompressobj(wbits=31), "gzip")),
    (b"\xfd7zXZ\0", _unpacked(lzma.LZMADecompressor, "xz")),
    (b"BZh", _unpacked(bz2.BZ2Decompressor, "bzip2")),
    (b"\x5d\0\0", _unpacked(lzma.LZMADecompressor, "lzma")),
    (b"\x28\xb5\x2f\xfd", _end_of_zstd),
    (b"\x02\x21\x4c\x18", _end_of_lz4),
)

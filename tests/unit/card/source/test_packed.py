"""What a packed file says of its size, byte by byte, and what is not believed."""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from imager.base.errors import NetworkError
from imager.card.source.packed import packing_in

HEADER = b"\xfd7zXZ\0\0\1" + bytes(4)
MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Given:
    """A file in memory; its end cannot be had where ``endless``, its size not where ``unsized``."""

    content: bytes
    endless: bool = False
    unsized: bool = False
    name: str = "any.img.xz"

    @property
    def size_bytes(self) -> int | None:
        return None if self.unsized else len(self.content)

    def look(self, offset: int, length: int) -> bytes:
        assert min(offset, length) >= 0
        if offset and self.endless:
            raise NetworkError("no parts", hint="none")
        return self.content[offset : offset + length]

    def blocks(self) -> Generator[bytes]:
        yield self.content


def sizes(
    content: bytes, *, endless: bool = False, unsized: bool = False
) -> tuple[int | None, int]:
    found = packing_in(Given(content, endless, unsized))
    return found.size_bytes, found.least_bytes


def number(value: int, length: int = 0) -> bytes:
    """A number as xz writes it, in ``length`` bytes or in as few as it needs."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F)
    parts += [0] * (length - len(parts))
    return bytes(part | 0x80 for part in parts[:-1]) + bytes(parts[-1:])


def xz(index: bytes, blocks_bytes: int, footer: bytes = b"YZ", first: bytes = b"\0") -> bytes:
    """A file of xz of which only what tells the size is right."""
    index = first + index
    index += bytes(-len(index) % 4)
    index += zlib.crc32(index).to_bytes(4, "little")
    backward = (len(index) // 4 - 1).to_bytes(4, "little")
    return HEADER + b"b" * blocks_bytes + index + b"CRC4" + backward + b"\0\1" + footer


def test_xz_itself_in_several_blocks() -> None:
    words = ["xz", "-0", "-T1", "--block-size=1000", "-c"]
    packed = subprocess.run(words, input=bytes(100_000), capture_output=True, check=True).stdout
    assert sizes(packed) == (100_000, 100_000)
    assert sizes(packed[:-1]) == (None, 0)
    assert sizes(packed + packed) == (None, 0)
    assert sizes(lzma.compress(b"")) == (0, 0)
    assert sizes(packed, endless=True) == sizes(packed, unsized=True) == (None, 0)


def test_an_index_that_accounts_for_the_whole_file() -> None:
    two = number(2) + number(198) + number(1 << 20) + number(37) + number(300)
    assert sizes(xz(two, 240)) == ((1 << 20) + 300,) * 2
    for other in (236, 239, 241, 244):
        assert sizes(xz(two, other)) == (None, 0)
    assert sizes(xz(two, 240, footer=b"YY")) == (None, 0)
    assert sizes(xz(two, 240, first=b"\1")) == (None, 0)
    damaged = bytearray(xz(two, 240))
    damaged[-13] ^= 1
    assert sizes(bytes(damaged)) == (None, 0)
    assert sizes(xz(number(99) + two[1:], 240)) == (None, 0)


@pytest.mark.parametrize(("length", "wanted"), [(1, 5), (9, 5), (10, 5), (11, None), (60, None)])
def test_a_number_of_any_length_is_no_size(length: int, wanted: int | None) -> None:
    """Millions of its bytes would be a number that takes minutes."""
    one = number(1) + number(4) + number(5, length)
    assert sizes(xz(one, 4))[0] == wanted


def test_an_index_larger_than_the_file_or_than_any() -> None:
    whole = bytearray(xz(number(1) + number(4) + number(5), 4))
    whole[-8:-4] = (len(whole) // 4 - 1).to_bytes(4, "little")
    assert sizes(bytes(whole)) == (None, 0)
    whole[-8:-4] = b"\xff" * 4
    assert sizes(bytes(whole)) == (None, 0)


@pytest.mark.parametrize(
    ("descriptor", "before", "size", "wanted"),
    [
        (0b0000_0000, 1, b"", 0),
        (0b0010_0000, 0, b"\x07", 7),
        (0b0100_0000, 1, b"\x01\x02", 0x201 + 256),
        (0b0110_0000, 0, b"\x01\x02", 0x201 + 256),
        (0b1000_0000, 1, b"\1\2\3\4", 0x04030201),
        (0b1110_0000, 0, b"\1\2\3\4\5\6\7\x08", 0x0807060504030201),
        (0b1000_0001, 2, b"\1\2\3\4", 0x04030201),
        (0b1010_0001, 1, b"\1\2\3\4", 0x04030201),
        (0b1010_0010, 2, b"\1\2\3\4", 0x04030201),
        (0b1000_0010, 3, b"\1\2\3\4", 0x04030201),
        (0b1010_0011, 4, b"\1\2\3\4", 0x04030201),
    ],
)
def test_what_a_frame_of_zstd_says(descriptor: int, before: int, size: bytes, wanted: int) -> None:
    """Behind the descriptor lie a window and the id of a dictionary, or neither (RFC 8878)."""
    frame = MAGIC + bytes([descriptor]) + b"\xee" * before + size + b"\xee" * 8
    assert sizes(frame) == (None, wanted)


def test_a_frame_of_zstd_without_a_descriptor() -> None:
    assert sizes(MAGIC) == (None, 0)


def test_gzip_says_its_size_in_the_last_four_bytes() -> None:
    packed = b"\x1f\x8b" + bytes(8) + struct.pack("<I", 0x01020304)
    assert sizes(packed) == (None, 0x01020304)
    assert sizes(packed, endless=True) == (None, 0)
    assert sizes(b"\x1f\x8b") == (None, 0)


def test_what_passes_over_unused_bytes_slowly() -> None:
    """A card waits for that."""
    slow = [xz(number(0), 0), b"\x1f\x8b", b"BZh9"]
    assert [packing_in(Given(content)).is_slow for content in slow] == [True] * 3
    quick = packing_in(Given(bytes(512), name="any.img")), packing_in(Given(MAGIC))
    assert [one.is_slow for one in quick] == [False] * 2

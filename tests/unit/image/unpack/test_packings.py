"""What is packed in any way comes out whole, or the error says where it is not."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import random
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from imager.base.errors import MissingTool
from imager.base.units import KiB, MiB
from imager.image.unpack import packings
from imager.image.unpack.inflate import CHUNK_BYTES, PackingError
from imager.image.unpack.packings import packing_of

CONTENT = random.Random(1).randbytes(10_000) + bytes(CHUNK_BYTES)
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
PACKED = [gzip.compress, lzma.compress, bz2.compress, pytest.param(zstd, marks=needs_zstd)]


def blocks_of(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def chunks(data: bytes, size: int = 1 << 16) -> Generator[bytes, None, None]:
    return packing_of(data[:8])(blocks_of(data, size))


@pytest.mark.parametrize("pack", [bytes, *PACKED])
def test_one_stream_or_more_come_out_whole_in_small_chunks(pack: Pack) -> None:
    for size in (997, 1 << 20):
        found = list(chunks(pack(CONTENT) + pack(b"more"), size))
        assert b"".join(found) == CONTENT + b"more"
        assert max(map(len, found)) <= CHUNK_BYTES
    assert b"".join(chunks(pack(b""))) == b""


@pytest.mark.parametrize("size", [1, 1 << 16])
def test_streams_of_xz_may_have_zeros_between_and_behind_them(size: int) -> None:
    data = lzma.compress(b"one") + bytes(4) + lzma.compress(b"two") + bytes(8)
    assert b"".join(chunks(data, size)) == b"onetwo"


@pytest.mark.parametrize("pack", PACKED)
def test_what_is_cut_short_spoilt_or_followed_by_something_is_refused(pack: Pack) -> None:
    packed = pack(CONTENT)
    spoilt = bytearray(packed)
    spoilt[len(packed) // 2] ^= 0x55
    for data in (packed[:-1], packed[: len(packed) // 2], bytes(spoilt), packed + b"garbage"):
        with pytest.raises(PackingError):
            list(chunks(data))


@pytest.mark.parametrize("pack", PACKED[1:3])
def test_the_error_says_at_which_byte(pack: Pack) -> None:
    packed = pack(CONTENT)
    with pytest.raises(PackingError, match=f"ends in the middle, at its byte {len(packed) - 1}$"):
        list(chunks(packed[:-1]))
    with pytest.raises(PackingError, match=f" before its byte {len(packed) + 14}$"):
        list(chunks(packed + b"garbage" * 2))


@pytest.mark.parametrize(
    "stream",
    [gzip.compress(b"\1"), lzma.compress(b"\1") + bytes(4), bz2.compress(b"")],
    ids=["gzip", "xz", "bzip2"],
)
def test_very_many_tiny_streams_take_no_longer_than_their_bytes(stream: bytes) -> None:
    """What is behind the end of each would be copied: 100 GB of it."""
    began = time.thread_time()
    count = 4 * MiB // len(stream)
    assert sum(map(len, chunks(stream * count, 4 * MiB))) in (0, count)
    assert time.thread_time() - began < 3


@needs_zstd
def test_zstd_says_itself_what_is_wrong() -> None:
    with pytest.raises(PackingError, match=r"^[^:]*premature.*end"):
        list(chunks(zstd(CONTENT)[:-1]))


@pytest.mark.parametrize("pack", [bytes, *PACKED])
def test_what_unpacks_to_more_than_any_package_is_refused(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packings, "_LARGEST", len(CONTENT))
    assert b"".join(chunks(pack(CONTENT))) == CONTENT
    monkeypatch.setattr(packings, "_LARGEST", len(CONTENT) - 1)
    with pytest.raises(PackingError, match="unpacks to more than"):
        list(chunks(pack(CONTENT)))


@pytest.mark.parametrize(("dictionary", "is_read"), [(29, True), (30, False)])
def test_xz_gets_a_bounded_memory(dictionary: int, is_read: bool) -> None:
    """The byte that stands for a dictionary of 96 MiB, and the one for 128 MiB (section 5.3.1 of
    the format), put into the header of a small file."""
    packed = bytearray(lzma.compress(b"x"))
    packed[16] = dictionary
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    if is_read:
        assert b"".join(chunks(bytes(packed))) == b"x"
    else:
        with pytest.raises(PackingError, match="Memory"):
            list(chunks(bytes(packed)))


@needs_zstd
def test_a_file_that_cannot_be_read_to_its_end_is_told_of() -> None:
    def blocks() -> Iterator[bytes]:
        yield zstd(b"")
        raise OSError(errno.EIO, "the disk")

    with pytest.raises(OSError, match="the disk"):
        list(packing_of(zstd(b""))(blocks()))


@needs_zstd
def test_nothing_is_left_of_what_is_ended_early() -> None:
    read: list[str] = []
    first = CHUNK_BYTES + 150 * KiB  # one chunk comes of it, and all of it fits into the pipe

    def blocks() -> Iterator[bytes]:
        yield packed[:first]
        time.sleep(0.1)  # as a slow disk
        read.append("once more")
        yield packed[first:]

    packed = zstd(random.Random(2).randbytes(2 * MiB))
    unpacking = packing_of(packed[:8])(blocks())
    assert next(unpacking)
    unpacking.close()
    assert read, "it waits for whoever reads the file, which is closed afterwards"


def test_without_zstd_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MissingTool, match="zstd"):
        list(packing_of(b"\x28\xb5\x2f\xfd")(iter([b""])))
    assert len(list(Path("/proc/self/fd").iterdir())) == before

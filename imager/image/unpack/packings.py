"""The ways a pacman package or a disk image can be packed, each unpacked as it is read.

In: the first bytes of a file. Out: the way it is packed, as a function from its blocks to its
content. A few kilobytes can become gigabytes, so the content of a package ends with an error where
it gets larger than any package; of anything else the caller knows how large it may be. zstd, which
Python cannot unpack before 3.14, is done by zstd(1).
"""

from __future__ import annotations

import bz2
import lzma
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from io import BytesIO
from typing import Protocol

from imager.base.durable import write_all
from imager.base.run import running
from imager.base.units import GiB, format_chosen
from imager.image.unpack.inflate import (
    CHUNK_BYTES,
    GZIP_MAGIC,
    SLICE_BYTES,
    PackingError,
    Unpack,
    gunzipped,
)
from imager.release.tarball import XZ_MEMORY

_LARGEST = 4 * GiB
PZSTD = b"\x50\x2a\x4d\x18"
"""What pzstd(1) begins with, before frames of zstd: a frame to be skipped (RFC 8878, 3.1.2)."""


_Content = Generator[bytes, None, None]


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def way_of(head: bytes) -> Unpack:
    """How a file that begins with ``head`` (eight bytes are enough) is packed; one that begins
    with no mark is taken for one that is not."""
    return next((way for mark, way in _WAYS.items() if head.startswith(mark)), _as_it_is)


def packing_of(head: bytes) -> Unpack:
    """As ``way_of``, of a package: its content ends with an error where it is too large."""
    way = way_of(head)

    def bounded(blocks: Iterator[bytes]) -> _Content:
        total = 0
        with closing(way(blocks)) as content:
            for chunk in content:
                total += len(chunk)
                if total > _LARGEST:
                    raise PackingError(f"it unpacks to more than {format_chosen(_LARGEST)}")
                yield chunk

    return bounded


def _as_it_is(blocks: Iterator[bytes]) -> _Content:
    for block in blocks:  # noqa: UP028 - "yield from" would end the blocks when this is ended
        yield block


def _unxz(blocks: Iterator[bytes]) -> _Content:
    return _unpacked(
        blocks, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\0"
    )


def _bunzip(blocks: Iterator[bytes]) -> _Content:
    return _unpacked(blocks, bz2.BZ2Decompressor, b"")


def _unpacked(
    blocks: Iterator[bytes], begin: Callable[[], _Decompressor], padding: bytes
) -> _Content:
    """The content of one stream or more; between them may be ``padding``."""
    stream, position, step = begin(), 0, CHUNK_BYTES
    for block in blocks:
        at = 0
        while at < len(block):
            waiting = block[at : at + step]
            at, step = at + len(waiting), min(2 * step, CHUNK_BYTES)
            if stream.eof:
                waiting = waiting.lstrip(padding) if padding else waiting
                if not waiting:
                    continue
                stream = begin()
            while waiting or not (stream.needs_input or stream.eof):
                try:
                    chunk = stream.decompress(waiting, CHUNK_BYTES)
                except (lzma.LZMAError, OSError, MemoryError) as error:
                    byte = position + len(block)
                    raise PackingError(f"{error} before its byte {byte}") from error
                if chunk:
                    yield chunk
                waiting = b""
            if stream.eof:
                at, step = at - len(stream.unused_data), SLICE_BYTES
        position += len(block)
    if not stream.eof:
        raise PackingError(f"it ends in the middle, at its byte {position}")


def _unzstd(blocks: Iterator[bytes]) -> _Content:
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with suppress(BrokenPipeError):
                for block in blocks:
                    write_all(writing, block)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that unpacks
            troubles.append(error)
        finally:
            os.close(writing)

    troubles: list[BaseException] = []
    feeder = threading.Thread(target=feed, name="feed zstd")
    try:
        with running(["zstd", "-dcq"], stdin=reading) as process:
            os.close(reading)
            reading = -1
            feeder.start()
            out, err = process.stdout or BytesIO(), process.stderr or BytesIO()
            while chunk := out.read(CHUNK_BYTES):
                yield chunk
            if process.wait():
                said = err.read(4096).decode(errors="replace").strip()
                raise PackingError(said.rpartition(" : ")[2] or "zstd cannot unpack it")
    finally:
        if reading >= 0:
            os.close(reading)
            os.close(writing)
        else:
            feeder.join()
    if troubles:
        raise troubles[0]


_WAYS: Mapping[bytes, Unpack] = {
    GZIP_MAGIC: gunzipped,
    b"\xfd7zXZ": _unxz,
    b"BZh": _bunzip,
    b"\x28\xb5\x2f\xfd": _unzstd,
    PZSTD: _unzstd,
}

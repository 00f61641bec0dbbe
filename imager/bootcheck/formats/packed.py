"""Compressed streams, unpacked a little at a time.

In: bytes that may unpack to any size. Out: what comes out of them, never more than 256 KiB at once,
each piece paid for from the card's budget before the next.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from imager.base.units import KiB, MiB
from imager.disk.budget import Budget

_OUT_BYTES = 256 * KiB
_IN_BYTES = 64 * KiB
_LZMA_MEMORY = 80 * MiB  # xz -9 takes 65 MiB to unpack, more than any kernel allows itself


@dataclass(slots=True)
class Unpacker:
    """One stream. ``speed`` is how many bytes a microsecond takes, going in or coming out."""

    name: str
    speed: int
    inner: zlib._Decompress | lzma.LZMADecompressor | bz2.BZ2Decompressor

    @property
    def eof(self) -> bool:
        """Whether the stream came to its own end."""
        return self.inner.eof

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """A piece of what ``data`` unpacks to, and what of ``data`` must be fed again."""
        if isinstance(self.inner, lzma.LZMADecompressor | bz2.BZ2Decompressor):
            return self.inner.decompress(data, _OUT_BYTES), b""
        return self.inner.decompress(data, _OUT_BYTES), self.inner.unconsumed_tail

    @property
    def wants_input(self) -> bool:
        """Whether nothing more comes out before more is fed."""
        if isinstance(self.inner, lzma.LZMADecompressor | bz2.BZ2Decompressor):
            return self.inner.needs_input
        return not self.inner.unconsumed_tail


def unpacker_of(name: str) -> Unpacker:
    """A new unpacker for gzip, xz, lzma or bzip2."""
    if name == "gzip":
        return Unpacker(name, 200, zlib.decompressobj(wbits=31))
    if name == "bzip2":
        return Unpacker(name, 8, bz2.BZ2Decompressor())
    return Unpacker(name, 40, lzma.LZMADecompressor(memlimit=_LZMA_MEMORY))


def unpacked(
    unpacker: Unpacker, data: bytes, at: int, budget: Budget
) -> Iterator[tuple[bytes, int]]:
    """Each piece that comes out of the stream that begins at byte ``at``, and how far ``data`` is
    used up by then. Ends with the stream or with ``data``; raises what the format's module does,
    and OverBudget.
    """
    rest = b""
    while not unpacker.eof and (rest or at < len(data) or not unpacker.wants_input):
        if not rest and unpacker.wants_input:
            rest = data[at : at + _IN_BYTES]
            at += len(rest)
        budget.step(1 + len(rest) // unpacker.speed)
        plain, rest = unpacker.feed(rest)
        budget.unpack(len(plain))
        budget.step(len(plain) // unpacker.speed)
        yield plain, at - len(rest) - len(unpacker.inner.unused_data)

"""Reads a card of which some bytes cannot be read, and finds out which.

In: ranges of a card. Out: what can be read of them, and the blocks of 4 KiB that cannot. Each
failed read may take a minute, because the kernel tries again, so after some of them the search is
less exact.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imager.base.errors import CardIOError
from imager.base.units import align_down, align_up
from imager.card.medium.raw import SMALLER_BYTES, RawCard, aligned_buffer, is_gone, read_fully
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader

_NARROWED_FAILURES = 64
"""After so many failed reads the search ends: then the whole range counts as unreadable."""


@dataclass(slots=True)
class Piecewise:
    """A card, and what could not be read of it so far; safe to share between threads."""

    raw: RawCard
    _unreadable: list[Extent] = field(default_factory=list)
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def unreadable(self) -> ExtentMap:
        """Every range that could not be read, after all attempts."""
        with self._lock:
            return ExtentMap(self._unreadable)

    def parts(
        self, extent: Extent, buffer: memoryview | None = None
    ) -> Iterator[tuple[Extent, bytes | None]]:
        """The aligned ``extent`` in order, in one or more pieces, each with its bytes; None instead
        of the bytes where they cannot be read.

        Raises CardIOError only when the card is gone.
        """
        yield from self._parts(extent, buffer or aligned_buffer(extent.length), SMALLER_BYTES)

    def _parts(
        self, extent: Extent, buffer: memoryview, smaller: Sequence[int]
    ) -> Iterator[tuple[Extent, bytes | None]]:
        try:
            read_fully(self.raw, extent.offset, buffer[: extent.length])
        except CardIOError as error:
            if is_gone(error):
                raise
            step = max(smaller[0], self.raw.block_bytes) if smaller else extent.length
            if self._is_last(extent, step):
                yield extent, None
                return
            for part in ExtentMap([extent]).split(step):
                yield from self._parts(part, buffer, smaller[1:])
            return
        yield extent, bytes(buffer[: extent.length])

    def _is_last(self, extent: Extent, step: int) -> bool:
        """Count a failed read; returns whether ``extent`` shall not be tried in smaller pieces."""
        with self._lock:
            self._failures += 1
            last = extent.length <= step or self._failures > _NARROWED_FAILURES
            if last:
                self._unreadable.append(extent)
            return last

    def reader(self) -> Reader:
        """``read(offset, length)`` for parsers, with zeros where the card cannot be read."""

        def read(offset: int, length: int) -> bytes:
            low = align_down(offset, self.raw.block_bytes)
            high = min(align_up(offset + length, self.raw.block_bytes), self.raw.size_bytes)
            if high <= low:
                return b""
            there = self.parts(Extent(low, high - low))
            data = b"".join(bytes(part.length) if got is None else got for part, got in there)
            return data[offset - low : offset - low + length]

        return read

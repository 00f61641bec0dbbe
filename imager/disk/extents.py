"""Sets of byte ranges: what must be written, what changed, what a filesystem uses.

In: ranges in any order. Out: an immutable set of them, sorted and without overlap, with union,
intersection, difference and cutting into pieces. Pure; offsets and lengths are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imager.base.units import align_down, align_up


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """``length`` bytes from byte ``offset``."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after the range."""
        return self.offset + self.length


class ExtentMap:
    """An immutable set of bytes, kept as sorted ranges that neither overlap nor touch.

    ``a | b``, ``a & b`` and ``a - b`` are union, intersection and difference; ``n in a`` asks
    about byte ``n``; iterating gives the ranges and ``len`` counts them. Raises ValueError for a
    range that begins before byte 0; ranges without bytes are left out.
    """

    __slots__ = ("_extents", "_offsets")

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        merged: list[Extent] = []
        for extent in sorted(extent for extent in extents if extent.length > 0):
            if extent.offset < 0:
                raise ValueError(f"an extent cannot begin at byte {extent.offset}")
            if merged and extent.offset <= merged[-1].end:
                last = merged[-1]
                merged[-1] = Extent(last.offset, max(last.end, extent.end) - last.offset)
            else:
                merged.append(extent)
        self._extents = tuple(merged)
        self._offsets = tuple(extent.offset for extent in merged)

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._extents)

    def __len__(self) -> int:
        return len(self._extents)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExtentMap) and self._extents == other._extents

    def __hash__(self) -> int:
        return hash(self._extents)

    def __repr__(self) -> str:
        return f"ExtentMap({len(self)} extents, {self.total_bytes} bytes)"

    def __or__(self, other: ExtentMap) -> ExtentMap:
        return ExtentMap((*self, *other))

    @property
    def total_bytes(self) -> int:
        """How many bytes are in the set."""
        return sum(extent.length for extent in self._extents)

    @property
    def end(self) -> int:
        """The first byte after the last range; 0 for the empty set."""
        return self._extents[-1].end if self._extents else 0

    def within(self, offset: int, length: int) -> Iterator[Extent]:
        """The parts of the set inside ``length`` bytes from ``offset``, in order."""
        end = offset + length
        index = max(0, bisect_right(self._offsets, offset) - 1)
        for position in range(index, len(self._extents)):
            extent = self._extents[position]
            if extent.offset >= end:
                return
            low, high = max(extent.offset, offset), min(extent.end, end)
            if low < high:
                yield Extent(low, high - low)

    def __and__(self, other: ExtentMap) -> ExtentMap:
        return ExtentMap(part for extent in other for part in self.within(*_pair(extent)))

    def __sub__(self, other: ExtentMap) -> ExtentMap:
        return ExtentMap(self._without(other))

    def _without(self, other: ExtentMap) -> Iterator[Extent]:
        for extent in self._extents:
            position = extent.offset
            for hole in other.within(extent.offset, extent.length):
                yield Extent(position, hole.offset - position)
                position = hole.end
            yield Extent(position, extent.end - position)

    def __contains__(self, offset: int) -> bool:
        return next(self.within(offset, 1), None) is not None

    def covers(self, extent: Extent) -> bool:
        """Whether every byte of ``extent`` is in the set (false for a range without bytes)."""
        return next(self.within(extent.offset, extent.length), None) == extent

    def shifted(self, by_bytes: int) -> ExtentMap:
        """The same ranges moved by ``by_bytes``: from addresses in a partition to addresses on
        the disk, say."""
        return ExtentMap(Extent(e.offset + by_bytes, e.length) for e in self._extents)

    def aligned(self, step: int, *, limit: int | None = None) -> ExtentMap:
        """Every range widened at both ends to multiples of ``step`` bytes, but never past byte
        ``limit``."""
        return ExtentMap(
            Extent(low, min(align_up(e.end, step), limit or align_up(e.end, step)) - low)
            for e in self._extents
            for low in (align_down(e.offset, step),)
        )

    def without_gaps_below(self, gap_bytes: int) -> ExtentMap:
        """The set with every gap shorter than ``gap_bytes`` filled, for fewer and larger
        transfers."""
        filled: list[Extent] = []
        for extent in self._extents:
            if filled and extent.offset - filled[-1].end < gap_bytes:
                filled[-1] = Extent(filled[-1].offset, extent.end - filled[-1].offset)
            else:
                filled.append(extent)
        return ExtentMap(filled)

    def split(self, step: int) -> Iterator[Extent]:
        """The ranges cut at every multiple of ``step`` bytes, in order."""
        for extent in self._extents:
            position = extent.offset
            while position < extent.end:
                stop = min(align_down(position, step) + step, extent.end)
                yield Extent(position, stop - position)
                position = stop


def _pair(extent: Extent) -> tuple[int, int]:
    return extent.offset, extent.length


def beginning_of(extents: Iterable[Extent], size_bytes: int) -> Iterator[Extent]:
    """The first ``size_bytes`` of ``extents``, in their order."""
    left = size_bytes
    for extent in extents:
        if left <= 0:
            return
        yield Extent(extent.offset, min(left, extent.length))
        left -= extent.length

"""Read a written card back and compare every byte with what it was given.

In: a WrittenCard. Out: a VerifiedCard, or an error that names the first differing byte, the
partition and the files. Reading begins when the whole card is written, on a fresh descriptor that
bypasses this computer's cache: what comes back cannot be what we still remember.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from imager.base.errors import CardFaulty
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES, KiB, MiB
from imager.card.blank import blank_unless_done
from imager.card.cards import VerifiedCard, WrittenCard
from imager.card.flight import in_flight
from imager.card.meter import metered
from imager.card.places import Places
from imager.card.raw import RawCard, aligned_buffer, read_fully
from imager.image.extents import Extent, ExtentMap
from imager.node.image import ImageReader, NodeImage

_SAMPLE_BYTES = 4 * KiB
_SAMPLES_BYTES = MiB
_LISTED = 20
_EXACT_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Sectors in a row that came back other than they were written.

    ``first_byte`` is the first differing byte on the card. ``expected`` and ``actual`` are the
    beginning of the range, at most 4 KiB, for whoever wants to know what kind of damage it is;
    they are empty after the first MiB of samples, so that a dead card does not fill the memory.
    """

    extent: Extent
    first_byte: int
    expected: bytes
    actual: bytes


class ReadBackFailed(CardFaulty):
    """The card did not return what was written; ``differences`` says where, in order."""

    def __init__(self, what: str, *, hint: str, differences: tuple[Difference, ...]) -> None:
        super().__init__(what, hint=hint)
        self.differences = differences


def read_back(written: WrittenCard, progress: Progress) -> VerifiedCard:
    """Compare every written byte, the first MiB included.

    Raises ReadBackFailed (a CardFaulty) when bytes differ, CardIOError when the card cannot be
    read, Interrupted on Ctrl-C; the card is blanked then, so that nothing unproven looks good.
    """
    card, options = written.card, written.options
    with blank_unless_done(card), written.image.open() as reader, card.reopen() as fresh:
        comparison = Comparison(reader, fresh.raw)
        with metered(progress, "read back", written.extents.total_bytes, card.log) as meter:
            in_flight(
                written.extents.split(options.block_bytes),
                lambda extent, pair: meter.advance(comparison.compare(extent, pair)),
                depth=options.depth,
                tools=lambda: BufferPair(options.block_bytes),
            )
        if comparison.differences:
            raise _failure(written, reader, comparison.differences)
        bypassed = fresh.cache_bypassed
    return VerifiedCard(written, bypassed)


class BufferPair:
    """One worker's memory: what the card says and what it should say."""

    __slots__ = ("actual", "expected")

    def __init__(self, size_bytes: int) -> None:
        self.actual = aligned_buffer(size_bytes)
        self.expected = bytearray(size_bytes)


@dataclass(slots=True)
class Comparison:
    """A card against the image it should hold; safe to share between workers."""

    reader: ImageReader
    raw: RawCard
    _found: list[Difference] = field(default_factory=list)
    _sampled_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def compare(self, extent: Extent, pair: BufferPair) -> int:
        """Read ``extent`` from both sides and note every sector that differs; gives its length.

        Whole blocks are compared by memcmp(3): a bytearray against any buffer. A memoryview
        would compare item by item.
        """
        actual = pair.actual[: extent.length]
        read_fully(self.raw, extent.offset, actual)
        with memoryview(pair.expected) as whole:
            self.reader.read_into(extent.offset, whole[: extent.length])
        expected = pair.expected
        if extent.length < len(expected):
            expected = expected[: extent.length]
        if expected != actual:
            self._note(extent, bytes(expected), bytes(actual))
        return extent.length

    def _note(self, extent: Extent, expected: bytes, actual: bytes) -> None:
        parts = differing_sectors(expected, actual)
        if len(self._found) > _EXACT_AT_MOST:
            parts = parts.without_gaps_below(len(expected))
        for part in parts:
            low, high = part.offset, min(part.end, part.offset + _SAMPLE_BYTES)
            first = next(byte for byte in range(low, part.end) if expected[byte] != actual[byte])
            with self._lock:
                if self._sampled_bytes >= _SAMPLES_BYTES:
                    high = low
                self._sampled_bytes += high - low
                self._found.append(
                    Difference(
                        extent=Extent(extent.offset + low, part.length),
                        first_byte=extent.offset + first,
                        expected=expected[low:high],
                        actual=actual[low:high],
                    )
                )

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What was noted so far, by ascending offset."""
        return tuple(sorted(self._found, key=lambda difference: difference.extent))


def differing_sectors(expected: bytes, actual: bytes) -> ExtentMap:
    """The 512-byte sectors in which two equally long pieces differ."""
    return ExtentMap(
        Extent(start, min(SECTOR_BYTES, len(expected) - start))
        for start in range(0, len(expected), SECTOR_BYTES)
        if expected[start : start + SECTOR_BYTES] != actual[start : start + SECTOR_BYTES]
    )


def _failure(
    written: WrittenCard, reader: ImageReader, differences: tuple[Difference, ...]
) -> ReadBackFailed:
    image, name = written.image, written.card.target.node
    lines = list(_described(image, reader, differences))
    ranges = "one range" if len(differences) == 1 else f"{len(differences)} ranges"
    failed = ReadBackFailed(
        f"{name}: the card did not give back what was written: {ranges}, first at byte "
        f"{differences[0].first_byte}, {lines[0].partition(': ')[2]}",
        hint="try the card in another reader once; if it fails again, throw it away",
        differences=differences,
    )
    failed.details = (*lines,)
    return failed


def _described(
    image: NodeImage, reader: ImageReader, differences: Iterable[Difference]
) -> Iterator[str]:
    """A line for each of the first differing ranges, named by what the image has there."""
    places = Places(image.layout, reader.read)
    merged = ExtentMap(difference.extent for difference in differences)
    for number, extent in enumerate(merged):
        if number == _LISTED:
            yield f"and {len(merged) - _LISTED} more ranges"
            return
        where = " | ".join(map(str, places.of(extent)))
        yield f"bytes {extent.offset} to {extent.end - 1}: {where}"

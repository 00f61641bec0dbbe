"""Compare a card with the image it should hold: fast over everything, closely where they differ.

In: an UnprovenCard and the ranges to read. Out: a Reading. Both passes read on fresh descriptors
that bypass this computer's cache: what comes back cannot be what we still remember. Whole blocks
are compared by memcmp(3); only what differs, or could not be read, is looked at again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from imager.base.errors import CardIOError
from imager.base.progress import Progress
from imager.base.units import KiB
from imager.card.diagnosis.damage import Diagnosis, differing_sectors
from imager.card.diagnosis.examine import Subject, examine, widened
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import metered
from imager.card.medium.raw import RawCard, aligned_buffer, is_gone, read_fully
from imager.card.stages import UnprovenCard
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import ImageReader

_EXACT_AT_MOST = 10_000
_PIECE_BYTES = 512 * KiB
"""So much of the image is held at a time: as fast as whole blocks, for an eighth of the memory.
The golden file is not mapped for this: if it were truncated, looking at it would be SIGBUS."""
_FAILURES_AT_MOST = 8
"""A card that refuses more transfers than this will not be read to its end: each refusal may take
the kernel a minute."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading back came to. It is not ``complete`` when it was given up for read errors."""

    diagnosis: Diagnosis
    cache_bypassed: bool
    complete: bool = True

    @property
    def is_right(self) -> bool:
        """Whether every byte came back as it was written, at the second look at the latest."""
        return self.complete and not self.diagnosis.damages


def compare(
    unproven: UnprovenCard, extents: ExtentMap, progress: Progress, name: str = "read back"
) -> Reading:
    """Read ``extents`` of the card and compare every byte; diagnose what is wrong.

    Raises CardIOError when the card is gone.
    """
    card, options = unproven.card, unproven.options
    complete = True
    with unproven.image.open() as reader, card.reopen() as fresh:
        comparison = Comparison(reader, fresh.raw)
        with metered(progress, name, extents.total_bytes, card.log.phases) as meter:
            try:
                in_flight(
                    extents.split(options.block_bytes),
                    lambda extent, pair: meter.advance(comparison.compare(extent, pair)),
                    depth=options.depth,
                    tools=lambda: BufferPair(options.block_bytes),
                )
            except CardIOError as error:
                if is_gone(error) or not comparison.suspects:
                    raise
                complete = False
        bypassed = fresh.cache_bypassed
    if not comparison.suspects:
        return Reading(Diagnosis(), bypassed)
    return Reading(_examined(unproven, comparison.suspects, progress), bypassed, complete)


def _examined(unproven: UnprovenCard, suspects: ExtentMap, progress: Progress) -> Diagnosis:
    card, image = unproven.card, unproven.image
    with image.open() as reader, card.reopen() as fresh:
        subject = Subject(fresh.raw, reader, unproven.extents, image.layout)
        total = widened(suspects, subject).total_bytes
        with metered(progress, "diagnose", total, card.log.phases) as meter:
            return examine(subject, suspects, meter)


class BufferPair:
    """One worker's memory: what the card says, and piece by piece what it should say."""

    __slots__ = ("actual", "expected")

    def __init__(self, size_bytes: int) -> None:
        self.actual = aligned_buffer(size_bytes)
        self.expected = bytearray(min(size_bytes, _PIECE_BYTES))


@dataclass(slots=True)
class Comparison:
    """A card against the image it should hold; safe to share between workers."""

    reader: ImageReader
    raw: RawCard
    _suspects: list[Extent] = field(default_factory=list)
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def compare(self, extent: Extent, pair: BufferPair) -> int:
        """Read ``extent`` from both sides and note every sector that differs; gives its length.

        Raises CardIOError when the card is gone, or refuses to be read once too often.
        """
        actual = pair.actual[: extent.length]
        try:
            read_fully(self.raw, extent.offset, actual)
        except CardIOError as error:
            self._refused(extent, error)
            return extent.length
        for piece in ExtentMap([extent]).split(_PIECE_BYTES):
            start = piece.offset - extent.offset
            self._compare(piece, actual[start : start + piece.length], pair.expected)
        return extent.length

    def _compare(self, piece: Extent, actual: memoryview, expected: bytearray) -> None:
        with memoryview(expected) as whole:
            self.reader.read_into(piece.offset, whole[: piece.length])
        # A bytearray against any buffer is memcmp; a memoryview would compare item by item.
        if piece.length < len(expected):
            expected = expected[: piece.length]
        if expected != actual:
            self._note(piece, bytes(expected), bytes(actual))

    def _refused(self, extent: Extent, error: CardIOError) -> None:
        if is_gone(error):
            raise error
        with self._lock:
            self._suspects.append(extent)
            self._failures += 1
            if self._failures > _FAILURES_AT_MOST:
                raise error

    def _note(self, extent: Extent, expected: bytes, actual: bytes) -> None:
        parts = differing_sectors(expected, actual)
        if len(self._suspects) > _EXACT_AT_MOST:
            parts = parts.without_gaps_below(len(expected))
        with self._lock:
            self._suspects += parts.shifted(extent.offset)

    @property
    def suspects(self) -> ExtentMap:
        """Everything noted so far."""
        return ExtentMap(self._suspects)

"""Compare a card with the image it should hold: fast over everything, closely where they differ.

In: an UnprovenCard and the ranges to read. Out: a Reading. Both passes read on fresh descriptors
that bypass this computer's cache: what comes back cannot be what we still remember. Whole blocks
are compared by memcmp(3); only what differs, or could not be read, is looked at again. What was
written now was proven as it was written, so that the image is taken at its word until something
differs; every other card is compared with an image that is proven meanwhile. An image whose bytes
are not at hand any more is compared by the digests of its chunks.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from imager.base.errors import CardIOError
from imager.base.progress import Progress
from imager.base.units import KiB
from imager.card.diagnosis.damage import Diagnosis, differing_sectors
from imager.card.diagnosis.examine import Subject, examine, widened
from imager.card.image import ImageReader
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import Meter, metered
from imager.card.medium.raw import RawCard, aligned_buffer, is_gone, read_fully
from imager.card.stages import UnprovenCard, WriteOptions, WrittenCard
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import CHUNK_BYTES, Chunk

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
    card, complete = unproven.card, True
    read = _by_digest if unproven.image.by_digest else _by_content
    with card.reopen() as fresh:
        suspects = Suspects()
        with metered(progress, name, extents.total_bytes, card.log.phases) as meter:
            try:
                read(unproven, extents, fresh.raw, suspects, meter)
            except CardIOError as error:
                if is_gone(error) or not suspects.found:
                    raise
                complete = False
        bypassed = fresh.cache_bypassed
    if not suspects.found:
        return Reading(Diagnosis(), bypassed)
    diagnosis, known = _examined(unproven, suspects.found, progress)
    return Reading(diagnosis, bypassed, complete and known)


def _by_content(
    unproven: UnprovenCard, extents: ExtentMap, raw: RawCard, suspects: Suspects, meter: Meter
) -> None:
    options = unproven.options
    with unproven.image.open() as reader:
        comparison = Comparison(reader, raw, isinstance(unproven, WrittenCard), suspects)
        in_flight(
            extents.split(options.block_bytes),
            lambda extent, pair: meter.advance(comparison.compare(extent, pair)),
            depth=options.depth,
            tools=lambda: BufferPair(options.block_bytes),
        )


def _by_digest(
    unproven: UnprovenCard, extents: ExtentMap, raw: RawCard, suspects: Suspects, meter: Meter
) -> None:
    """Every chunk of which a part is in ``extents`` is read, as a whole."""
    options = unproven.options

    def work(chunks: Sequence[tuple[Chunk, bytes]], buffer: memoryview) -> None:
        for extent in ExtentMap(extent for chunk, _ in chunks for extent in chunk.extents):
            place = extent.offset % options.block_bytes
            try:
                read_fully(raw, extent.offset, buffer[place : place + extent.length])
            except CardIOError as error:
                suspects.refused(extent, error)
            meter.advance(extent.length)
        for chunk, digest in chunks:
            sha256 = hashlib.sha256()
            for extent in chunk.extents:
                place = extent.offset % options.block_bytes
                sha256.update(buffer[place : place + extent.length])
            if sha256.digest() != digest:
                suspects.note(ExtentMap(chunk.extents))

    touched = (
        (chunk, digest)
        for chunk, digest in unproven.image.manifest.chunks()
        if next(extents.within(chunk.offset, CHUNK_BYTES), None) is not None
    )
    in_flight(
        (list(group) for _, group in groupby(touched, lambda pair: _block_of(pair, options))),
        work,
        depth=options.depth,
        tools=lambda: aligned_buffer(options.block_bytes),
    )


def _block_of(pair: tuple[Chunk, bytes], options: WriteOptions) -> int:
    return pair[0].offset // options.block_bytes


def _examined(
    unproven: UnprovenCard, suspects: ExtentMap, progress: Progress
) -> tuple[Diagnosis, bool]:
    """What is wrong, and whether the image could be read wherever that was."""
    card, image = unproven.card, unproven.image
    with image.open(suspects) as reader, card.reopen() as fresh:
        subject = Subject(fresh.raw, reader, unproven.extents, image.layout)
        total = widened(suspects, subject).total_bytes
        with metered(progress, "diagnose", total, card.log.phases) as meter:
            return examine(subject, suspects, meter), not suspects & reader.unknown


class BufferPair:
    """One worker's memory: what the card says, and piece by piece what it should say."""

    __slots__ = ("actual", "expected")

    def __init__(self, size_bytes: int) -> None:
        self.actual = aligned_buffer(size_bytes)
        self.expected = bytearray(min(size_bytes, _PIECE_BYTES))


@dataclass(slots=True)
class Suspects:
    """What a first reading found wrong, or could not read; safe to share between workers."""

    _found: list[Extent] = field(default_factory=list)
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, extents: ExtentMap) -> None:
        """``extents`` are not as they should be."""
        with self._lock:
            self._found += extents

    def refused(self, extent: Extent, error: CardIOError) -> None:
        """``extent`` cannot be read; raises ``error`` again when the card is gone, or refuses to
        be read once too often."""
        if is_gone(error):
            raise error
        with self._lock:
            self._found.append(extent)
            self._failures += 1
            if self._failures > _FAILURES_AT_MOST:
                raise error

    @property
    def are_many(self) -> bool:
        """Whether it is time to be less exact."""
        return len(self._found) > _EXACT_AT_MOST

    @property
    def found(self) -> ExtentMap:
        """Everything noted so far."""
        return ExtentMap(self._found)


@dataclass(slots=True)
class Comparison:
    """A card against the image it should hold; safe to share between workers. ``proven`` says that
    every byte of the image was held against its digest before."""

    reader: ImageReader
    raw: RawCard
    proven: bool = False
    suspects: Suspects = field(default_factory=Suspects)

    def compare(self, extent: Extent, pair: BufferPair) -> int:
        """Read ``extent`` from both sides and note every sector that differs; gives its length.

        Raises CardIOError when the card is gone, or refuses to be read once too often.
        """
        actual = pair.actual[: extent.length]
        try:
            read_fully(self.raw, extent.offset, actual)
        except CardIOError as error:
            self.suspects.refused(extent, error)
            return extent.length
        for piece in ExtentMap([extent]).split(_PIECE_BYTES):
            start = piece.offset - extent.offset
            self._compare(piece, actual[start : start + piece.length], pair.expected)
        return extent.length

    def _compare(self, piece: Extent, actual: memoryview, expected: bytearray) -> None:
        if self.proven and self._is_same(piece, actual, expected, self.reader.peek_into):
            return
        # The golden file may have changed since: only a digest can tell which of both is wrong.
        if not self._is_same(piece, actual, expected, self.reader.read_into):
            self._note(piece, bytes(expected[: piece.length]), bytes(actual))

    @staticmethod
    def _is_same(
        piece: Extent,
        actual: memoryview,
        expected: bytearray,
        read_into: Callable[[int, memoryview], None],
    ) -> bool:
        with memoryview(expected) as whole:
            read_into(piece.offset, whole[: piece.length])
        # A bytearray against any buffer is memcmp; a memoryview would compare item by item.
        return (expected if piece.length == len(expected) else expected[: piece.length]) == actual

    def _note(self, extent: Extent, expected: bytes, actual: bytes) -> None:
        parts = differing_sectors(expected, actual)
        if self.suspects.are_many:
            parts = parts.without_gaps_below(len(expected))
        self.suspects.note(parts.shifted(extent.offset))

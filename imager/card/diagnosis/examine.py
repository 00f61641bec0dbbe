"""Reads every range again that was wrong when it was read back, and finds out what is wrong.

In: a card, the image it should hold, and the suspect ranges. Out: a Diagnosis. What is right at
this second reading was read wrongly the first time, and is called a lie. Of what cannot be read the
exact blocks are found. Content that does not belong there is looked for in the whole image. Where
the image cannot be read here, the card alone is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from imager.base.units import MiB
from imager.card.diagnosis.damage import (
    GRANULE_BYTES,
    Damage,
    DamageKind,
    Diagnosis,
    classify,
    judged_alone,
    merged,
)
from imager.card.diagnosis.places import Places
from imager.card.diagnosis.wraparound import distances, real_size
from imager.card.image import ImageReader
from imager.card.medium.meter import Meter
from imager.card.medium.raw import RawCard, aligned_buffer
from imager.card.medium.salvage import Piecewise
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout

_JUDGED_CLOSELY = 64 * MiB // GRANULE_BYTES
"""So many blocks are examined one by one; after that only the first bad block of each MiB is."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A card (``raw``, opened again for reading) and what it should hold in ``extents``."""

    raw: RawCard
    reader: ImageReader
    extents: ExtentMap
    layout: Layout | None


def examine(subject: Subject, suspects: ExtentMap, meter: Meter) -> Diagnosis:
    """Read ``suspects`` again and examine what differs; an empty Diagnosis when all is right now.

    Raises CardIOError only when the card is gone.
    """
    look, unknown = _Examination(subject), subject.reader.unknown
    for extent in widened(suspects - unknown, subject).split(MiB):
        look.at(extent)
        meter.advance(extent.length)
    for extent in widened(suspects & unknown, subject).split(MiB):
        look.alone(extent)
        meter.advance(extent.length)
    bad = ExtentMap(damage.extent for damage in look.damages)
    subject = replace(subject, extents=subject.extents - unknown)
    found = distances(look.strangers, subject.extents, subject.reader.read)
    holds = real_size(found, bad, subject.extents, subject.reader.read)
    known = (_with_source(damage, found, holds, subject) for damage in look.damages)
    places = Places.of_image(subject.layout, subject.reader.read, subject.raw.size_bytes)
    damages = tuple(replace(d, places=places.of(d.extent)) for d in merged(known))
    return Diagnosis(damages, suspects - ExtentMap(d.extent for d in damages), holds)


def widened(ranges: ExtentMap, subject: Subject) -> ExtentMap:
    """``ranges`` widened to whole blocks of the filesystems, without what was never written."""
    limit = subject.raw.size_bytes
    return ranges.aligned(GRANULE_BYTES, limit=limit) & subject.extents


@dataclass(slots=True)
class _Examination:
    """What was seen so far. ``strangers`` maps a block's offset to the hash of its content."""

    subject: Subject
    damages: list[Damage] = field(default_factory=list)
    strangers: dict[int, int] = field(default_factory=dict)
    _pieces: Piecewise = field(init=False)
    _buffer: memoryview = field(default_factory=lambda: aligned_buffer(MiB))

    def __post_init__(self) -> None:
        self._pieces = Piecewise(self.subject.raw)

    def at(self, extent: Extent) -> None:
        """Examine at most 1 MiB."""
        for part, actual in self._pieces.parts(extent, self._buffer):
            if actual is None:
                self.damages.append(Damage(part, DamageKind.UNREADABLE, part.offset))
                continue
            expected = self.subject.reader.read(part.offset, part.length)
            if expected != actual:
                self._judge(part, expected, actual)

    def alone(self, extent: Extent) -> None:
        """Examine at most 1 MiB that is not as it should be, though nobody can say how."""
        for part, actual in self._pieces.parts(extent, self._buffer):
            kind = DamageKind.UNREADABLE if actual is None else judged_alone(actual)
            self.damages.append(Damage(part, kind, part.offset))

    def _judge(self, part: Extent, expected: bytes, actual: bytes) -> None:
        wrong = [
            piece
            for piece in ExtentMap([part]).split(GRANULE_BYTES)
            if expected[piece.offset - part.offset : piece.end - part.offset]
            != actual[piece.offset - part.offset : piece.end - part.offset]
        ]
        closely = len(self.damages) < _JUDGED_CLOSELY
        for piece in wrong if closely else wrong[:1]:
            low, high = piece.offset - part.offset, piece.end - part.offset
            found = actual[low:high]
            damage = classify(piece.offset, expected[low:high], found, self.subject.reader.read)
            if not closely:
                whole = Extent(damage.extent.offset, wrong[-1].end - damage.extent.offset)
                damage = replace(damage, extent=whole)
            self.damages.append(damage)
            if damage.kind is DamageKind.FOREIGN and piece.length == GRANULE_BYTES:
                self.strangers[piece.offset] = hash(found)


def _with_source(
    damage: Damage, found: Mapping[int, int], holds: int | None, subject: Subject
) -> Damage:
    """``damage``, or, where the content belongs to another place, the same with that place."""
    block = damage.extent.offset - damage.extent.offset % GRANULE_BYTES
    if damage.kind is DamageKind.FOREIGN and block in found:
        return replace(damage, kind=DamageKind.OTHER_BLOCK, distance=found[block])
    if damage.kind is DamageKind.ZEROS and holds is not None:
        # On a card that wraps around, zeros are usually the zeros of another block.
        size = subject.extents.end
        for distance in chain(range(holds, size, holds), range(-holds, -size, -holds)):
            there = damage.extent.offset + distance
            if there in subject.extents and not any(
                subject.reader.read(there, damage.extent.length)
            ):
                return replace(damage, kind=DamageKind.OTHER_BLOCK, distance=distance)
    return damage

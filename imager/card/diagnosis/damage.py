"""What exactly is wrong with a card: each damaged range, where it is, and what happened to it.

In: the bytes that a range should hold and the bytes that were read. Out: damages with their kind,
and what they mean together. Pure: ``examine`` reads the card, so that each kind can be tested
without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from imager.base.units import SECTOR_BYTES, KiB, MiB, format_size
from imager.card.diagnosis.places import CardPlace
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader

GRANULE_BYTES = 4 * KiB
"""Damage is looked at in pieces of this size: a block of both filesystems, and the least that a
card stores at once."""

_CERTAIN_FLIPS = 8
_PLAUSIBLE_FLIPS = 32
_SHIFT_WINDOW = 64 * KiB
_NEEDLE_BYTES = 32
_SHIFTED_AT_LEAST = 64
_HITS_TRIED = 8
LISTED_AT_MOST = 20
_KEPT_AT_MOST = 1000


class DamageKind(StrEnum):
    """What happened to a range, as ``--json`` and receipts name it."""

    ZEROS = "zeros"
    ONES = "0xff"
    FLIPPED = "flipped-bits"
    OTHER_BLOCK = "other-block"
    SHIFTED = "shifted"
    FOREIGN = "older-or-foreign"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Damage:
    """A range that was not read as it was written; offsets are bytes of the card.

    ``bits`` is the number of flipped bits. Where the range holds the content of another place,
    ``distance`` is how many bytes after this one (before, if negative) that place is. ``shift`` is
    by how many bytes the content has moved.
    """

    extent: Extent
    kind: DamageKind
    first_byte: int
    bits: int = 0
    distance: int = 0
    shift: int = 0
    places: tuple[CardPlace, ...] = ()

    @property
    def where(self) -> str:
        """Partition, structure and files, as text."""
        return " | ".join(map(str, self.places))

    @property
    def what(self) -> str:
        """What happened, as text."""
        match self.kind:
            case DamageKind.ZEROS:
                return "zeros instead of what was written"
            case DamageKind.ONES:
                return "erased (every byte 0xff) instead of what was written"
            case DamageKind.FLIPPED:
                return "1 flipped bit" if self.bits == 1 else f"{self.bits} flipped bits"
            case DamageKind.OTHER_BLOCK:
                way = "further on" if self.distance > 0 else "further back"
                return (
                    f"holds what belongs to byte {self.extent.offset + self.distance}, "
                    f"{format_size(abs(self.distance))} {way}"
                )
            case DamageKind.SHIFTED:
                way = "late" if self.shift > 0 else "early"
                count = "1 byte" if abs(self.shift) == 1 else f"{abs(self.shift)} bytes"
                return f"shifted: {count} too {way}"
            case DamageKind.FOREIGN:
                return "older or foreign content: the write left no trace"
            case DamageKind.DIFFERENT:
                return "not what was written"
            case DamageKind.UNREADABLE:
                return "cannot be read"

    def __str__(self) -> str:
        low, high = self.extent.offset, self.extent.end - 1
        return f"bytes {low} to {high}: {': '.join(filter(None, (self.where, self.what)))}"

    def to_json(self) -> dict[str, object]:
        """The object of a ``finding`` event and of a receipt."""
        return {
            "offset": self.extent.offset,
            "length": self.extent.length,
            "first_byte": self.first_byte,
            "kind": self.kind.value,
            "bits": self.bits,
            "distance": self.distance,
            "shift": self.shift,
            "places": [str(place) for place in self.places],
            "what": self.what,
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found on one card.

    ``lies`` are ranges that were wrong at the first reading and right at the second.
    ``holds_bytes`` is set when it is clear that the card stores no more than that, whatever size
    it reports.
    """

    damages: tuple[Damage, ...] = ()
    lies: ExtentMap = ExtentMap()  # noqa: RUF009 - it is immutable
    holds_bytes: int | None = None

    @property
    def bad(self) -> ExtentMap:
        """Every byte that is still wrong, and perhaps a few good ones between them."""
        return ExtentMap(damage.extent for damage in self.damages)

    @property
    def unreadable(self) -> bool:
        """Whether anything could not be read at all."""
        return any(damage.kind is DamageKind.UNREADABLE for damage in self.damages)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each of the first damages, and how many more there are."""
        more = len(self.damages) - LISTED_AT_MOST
        rest = (f"and {more} more ranges",) if more > 0 else ()
        return (*map(str, self.damages[:LISTED_AT_MOST]), *rest)

    @property
    def ranges(self) -> str:
        """``one range``, ``7 ranges``."""
        count = len(self.damages)
        return "one range" if count == 1 else f"{count} ranges"

    def meaning(self) -> str:
        """What this damage means, for people who know nothing of filesystems."""
        if self.holds_bytes is not None:
            return (
                "This card pretends to be larger than it is: what is written beyond "
                f"{format_size(self.holds_bytes)} is lost or lands on top of other data. "
                "Give it back, or throw it away."
            )
        worst = max(DamageKind, key=lambda kind: (self._bytes_of(kind), kind))
        return _MEANINGS[worst]

    def _bytes_of(self, kind: DamageKind) -> int:
        return sum(damage.extent.length for damage in self.damages if damage.kind is kind)


_MEANINGS = {
    DamageKind.ZEROS: "The card says it stored this and kept nothing. Throw it away.",
    DamageKind.ONES: "The card erased these places and stored nothing there. Throw it away.",
    DamageKind.FLIPPED: (
        "The card does not keep every bit as it was. If it does so in another reader too, "
        "throw it away."
    ),
    DamageKind.OTHER_BLOCK: (
        "The card puts data in the wrong place. If it does so in another reader too, throw it away."
    ),
    DamageKind.SHIFTED: (
        "Bytes were lost or added on the way to the card: the reader or its cable is at fault. "
        "Use another reader."
    ),
    DamageKind.FOREIGN: (
        "The card says it stored this and still holds what was there before. If it does so in "
        "another reader too, throw it away."
    ),
    DamageKind.DIFFERENT: (
        "The card does not give back what was written, in many places. If it does so in another "
        "reader too, throw it away."
    ),
    DamageKind.UNREADABLE: (
        "The card cannot give back what it stored: it is worn out. Throw it away."
    ),
}


def judged_alone(actual: bytes) -> DamageKind:
    """The damage to a piece that is wrong, where nobody has what it should hold."""
    if not any(actual):
        return DamageKind.ZEROS
    return DamageKind.ONES if actual.count(0xFF) == len(actual) else DamageKind.DIFFERENT


def classify(offset: int, expected: bytes, actual: bytes, read: Reader) -> Damage:
    """The damage to one piece of at most GRANULE_BYTES at byte ``offset``, where ``expected`` and
    ``actual`` differ.

    ``read`` reads the image, to see whether the content only moved by some bytes. A few flipped
    bits are looked for before zeros, because a sector that is nearly empty differs from zeros in
    few bits too. Content from further away is FOREIGN; ``wraparound`` looks for it in the whole
    image.
    """
    runs = differing_sectors(expected, actual)
    span = Extent(next(iter(runs)).offset, runs.end - next(iter(runs)).offset)
    wanted = b"".join(expected[run.offset : run.end] for run in runs)
    found = b"".join(actual[run.offset : run.end] for run in runs)
    first = next(byte for byte in range(span.offset, span.end) if expected[byte] != actual[byte])
    damage = Damage(Extent(offset + span.offset, span.length), DamageKind.FOREIGN, offset + first)
    flips = int.from_bytes(wanted) ^ int.from_bytes(found)
    bits = flips.bit_count()
    if bits <= _CERTAIN_FLIPS:
        return replace(damage, kind=DamageKind.FLIPPED, bits=bits)
    if found.count(0) == len(found):
        return replace(damage, kind=DamageKind.ZEROS)
    if found.count(0xFF) == len(found):
        return replace(damage, kind=DamageKind.ONES)
    if bits <= _PLAUSIBLE_FLIPS or _one_line(flips, len(found)):
        return replace(damage, kind=DamageKind.FLIPPED, bits=bits)
    shift = _shift(offset, actual, span, read)
    if shift and shift % GRANULE_BYTES == 0:
        return replace(damage, kind=DamageKind.OTHER_BLOCK, distance=-shift)
    if shift:
        return replace(damage, kind=DamageKind.SHIFTED, shift=shift)
    return damage


def differing_sectors(expected: bytes, actual: bytes) -> ExtentMap:
    """The 512-byte sectors in which two equally long pieces differ."""
    return ExtentMap(
        Extent(start, min(SECTOR_BYTES, len(expected) - start))
        for start in range(0, len(expected), SECTOR_BYTES)
        if expected[start : start + SECTOR_BYTES] != actual[start : start + SECTOR_BYTES]
    )


def _one_line(flips: int, length: int) -> bool:
    """Whether all flips are in the same bit of their bytes: one wire between card and reader is
    bad."""
    masks = set(flips.to_bytes(length)) - {0}
    return len(masks) == 1 and masks.pop().bit_count() == 1


def _shift(offset: int, actual: bytes, span: Extent, read: Reader) -> int:
    """By how many bytes the image's content in ``span`` moved on (or back); 0 if it is another."""
    low = max(0, offset - _SHIFT_WINDOW)
    around = read(low, offset + len(actual) + _SHIFT_WINDOW - low)
    for part in (2, 4, 1):
        at = span.offset + span.length * (part - 1) // part
        at = max(0, min(at, span.end - _NEEDLE_BYTES))
        needle = actual[at : at + _NEEDLE_BYTES]
        # Bytes with only one or two values (padding, empty tables) would be found in many places.
        hit = around.find(needle) if len(set(needle)) > 3 else -1
        for _ in range(_HITS_TRIED):
            if hit < 0:
                break
            start = hit - at
            alike = _alike(around, start, actual, at)
            if low + start != offset and alike >= max(_SHIFTED_AT_LEAST, span.length // 2):
                return offset - low - start
            hit = around.find(needle, hit + 1)
    return 0


def _alike(around: bytes, start: int, actual: bytes, at: int) -> int:
    """How many bytes in a row about position ``at`` of ``actual`` are those of ``around`` from
    ``start`` on."""
    first, last = at, at
    while first > 0 and start + first > 0 and around[start + first - 1] == actual[first - 1]:
        first -= 1
    end = min(len(actual), len(around) - start)
    while last < end and around[start + last] == actual[last]:
        last += 1
    return last - first


def merged(damages: Iterable[Damage]) -> tuple[Damage, ...]:
    """Neighbours of one kind as one damage each, by ascending offset, at most some 1000.

    Good sectors between damages of one kind are taken as damaged too. Where a card is bad
    everywhere, damages further apart are joined, until there are few enough.
    """
    found = sorted(damages, key=lambda damage: damage.extent)
    for gap in (GRANULE_BYTES, 16 * GRANULE_BYTES, MiB, 16 * MiB, 1 << 62):
        found = list(_joined(found, gap))
        if len(found) <= _KEPT_AT_MOST:
            break
    return tuple(found)


def _joined(damages: Sequence[Damage], gap: int) -> Iterator[Damage]:
    last: Damage | None = None
    for damage in damages:
        if last is None:
            last = damage
            continue
        # Flipped bits are not joined as long as possible: each is a separate fault.
        near = 1 if damage.kind is DamageKind.FLIPPED and gap == GRANULE_BYTES else gap
        alike = (last.kind, last.distance, last.shift) == (
            damage.kind,
            damage.distance,
            damage.shift,
        )
        if alike and damage.extent.offset - last.extent.end < near:
            end = max(last.extent.end, damage.extent.end)
            extent = Extent(last.extent.offset, end - last.extent.offset)
            last = replace(last, extent=extent, bits=last.bits + damage.bits)
        else:
            yield last
            last = damage
    if last is not None:
        yield last

"""Which places of a card a probe writes, so that it notices when the card stores less than it says.

In: the size that the card reports. Out: stretches, which are written from beginning to end and also
give the speed; and points of 4 KiB all over the card, the most important first. The first MiB is
left out, so that the card looks blank all the time. Pure, except that some points are random.

A fake whose addresses wrap at R stores what is written at X in the place X mod R. The points of a
whole probe are no further apart than the stretches are long. So for every R there is a point whose
bytes end up in a stretch and are found there. The short probe has fewer points: at powers of two
and sixteenths of the card behind the beginning of its stretch. That finds fakes of the usual sizes,
and every card that loses what is written behind its real end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from imager.base.units import KiB, MiB, align_down, align_up
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB

POINT_BYTES = 4 * KiB
BLOCKS = (MiB, 2 * MiB, 4 * MiB, 8 * MiB, 16 * MiB)
"""The transfer sizes that are tried."""

_LOST_AT_LEAST = 16
_STRETCH_BYTES = 32 * MiB
_POINTS = 1024
_SHORT_BYTES = 4 * MiB
_SHORT_RANDOM = 48
_SMALLEST_POWER = 4 * MiB


@dataclass(frozen=True, slots=True)
class Stretch:
    """A range written from its beginning to its end, ``block_bytes`` at a time."""

    extent: Extent
    block_bytes: int


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What to write. After ``write_seconds`` from the beginning no more writes are begun, after
    ``read_seconds`` no more reads. What was not written or not read has no result."""

    stretches: tuple[Stretch, ...]
    points: tuple[int, ...]
    write_seconds: float
    read_seconds: float

    @property
    def total_bytes(self) -> int:
        """How much is written."""
        return sum(s.extent.length for s in self.stretches) + len(self.points) * POINT_BYTES


def least_loss_bytes(size_bytes: int) -> int:
    """How much of its end a card of ``size_bytes`` must have lost to count as smaller than it says:
    a sixteenth. What loses less may be worn there."""
    return max(size_bytes // _LOST_AT_LEAST, 4 * MiB)


def short_plan(size_bytes: int) -> ProbePlan:
    """A plan of at most 3 s and 15 MB of transfers, for every card that was never seen before."""
    room = min(_SHORT_BYTES, max(MiB, align_down(size_bytes // 4, MiB)))
    stretch = Stretch(_clipped(FIRST_MIB.end, room, size_bytes), MiB)
    points = [*_telling(size_bytes), *_random(size_bytes, _SHORT_RANDOM)]
    return ProbePlan((stretch,), _outside((stretch,), points, size_bytes), 1.3, 2.5)


def sampled_plan(size_bytes: int) -> ProbePlan:
    """All transfer sizes, and points over the whole card; a minute or less on most cards."""
    share = min(_STRETCH_BYTES, max(MiB, align_down(size_bytes // 32, MiB)))
    blocks = [block for block in BLOCKS if block <= share]
    stretches = tuple(
        Stretch(_clipped(FIRST_MIB.end + number * share, share, size_bytes), block)
        for number, block in enumerate(blocks)
    )
    covered = sum(stretch.extent.length for stretch in stretches)
    step = min(covered, align_up(size_bytes // _POINTS, POINT_BYTES)) or POINT_BYTES
    comb = list(range(FIRST_MIB.end + step, size_bytes, step))
    # Shuffled, so that their time is that of random access.
    random.SystemRandom().shuffle(comb)
    points = [*_telling(size_bytes), *comb]
    return ProbePlan(stretches, _outside(stretches, points, size_bytes), 120.0, 240.0)


def whole_plan(size_bytes: int, block_bytes: int) -> ProbePlan:
    """Every byte after the first MiB, for as long as it takes."""
    rest = Stretch(_clipped(FIRST_MIB.end, size_bytes, size_bytes), block_bytes)
    return ProbePlan((rest,), (), float("inf"), float("inf"))


def _clipped(offset: int, length: int, size_bytes: int) -> Extent:
    return Extent(offset, max(0, min(length, size_bytes - offset)))


def _telling(size_bytes: int) -> Iterator[int]:
    """Points, the most important first. The first is the end of the card: a card that is smaller
    than it says loses that in any case."""
    base = FIRST_MIB.end
    yield size_bytes - POINT_BYTES
    powers = (_SMALLEST_POWER << shift for shift in range(64))
    below = list(takewhile(lambda power: power < size_bytes, powers))
    for power in reversed(below):
        yield base + power
        yield power - POINT_BYTES
    for part in range(1, 16):
        yield base + size_bytes * part // 16


def _random(size_bytes: int, count: int) -> Iterator[int]:
    chance = random.SystemRandom()
    for _ in range(count):
        yield chance.randrange(FIRST_MIB.end, max(FIRST_MIB.end + 1, size_bytes))


def _outside(stretches: tuple[Stretch, ...], points: list[int], size_bytes: int) -> tuple[int, ...]:
    """The points, each once, at multiples of 4 KiB, without those inside a stretch."""
    covered = ExtentMap(stretch.extent for stretch in stretches)
    last = align_down(size_bytes, POINT_BYTES) - POINT_BYTES
    placed = dict.fromkeys(min(align_down(point, POINT_BYTES), last) for point in points)
    return tuple(p for p in placed if p >= FIRST_MIB.end and p not in covered)

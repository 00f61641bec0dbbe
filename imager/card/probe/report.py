"""What a probe found, in figures and in words.

In: what was read wrong, and how long everything took. Out: whether the card stores as much as it
says, and if not, how much; a verdict for people; the error with which the command ends. Pure, so
that every verdict can be tested without a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import gcd

from imager.base.errors import CardFaulty, CardIOError, FakeCapacity, PicloudError
from imager.base.units import MiB, format_chosen, format_rate, format_size
from imager.card.probe.pattern import BadStretch, BadStretchKind
from imager.card.probe.plan import least_loss_bytes

_LISTED = 8
_SMALLEST_CARD = 1 * MiB
_CLASSES = (
    ("A2", 4000, 2000),
    ("A1", 1500, 500),
)
"""How many random reads and writes of 4 KiB in a second the SD Association's classes promise."""
_POOR_WRITES = 100


class Honesty(StrEnum):
    """What kind of card it is."""

    HONEST = "honest"
    WRAPS = "wraps"
    """Addresses past the real end land at the beginning."""
    LOSES = "loses"
    """What is written past the real end is gone."""
    FAULTY = "faulty"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Speed:
    """``size_bytes`` moved in ``seconds``, ``block_bytes`` at a time."""

    block_bytes: int
    size_bytes: int
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """The mean rate."""
        return self.size_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def per_second(self) -> float:
        """Transfers a second."""
        return self.bytes_per_second / self.block_bytes

    def to_json(self) -> dict[str, object]:
        """The figures as ``--json`` shows them."""
        return {
            "block_bytes": self.block_bytes,
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 4),
            "bytes_per_second": round(self.bytes_per_second),
            "per_second": round(self.per_second, 1),
        }


@dataclass(slots=True)
class Speeds:
    """All measured speeds: of stretches, by size of the transfers, and of single points."""

    writes: list[Speed] = field(default_factory=list)
    reads: list[Speed] = field(default_factory=list)
    random_write: Speed | None = None
    random_read: Speed | None = None

    def note(self, speeds: list[Speed], speed: Speed) -> None:
        """Add ``speed`` to ``speeds``; it replaces an earlier one of the same block size."""
        others = [known for known in speeds if known.block_bytes != speed.block_bytes]
        speeds[:] = sorted([*others, speed], key=lambda known: known.block_bytes)

    @property
    def best_block_bytes(self) -> int:
        """The smallest transfer size that writes at least 95 % as fast as the fastest; 0 when
        nothing was measured."""
        fastest = max((speed.bytes_per_second for speed in self.writes), default=0.0)
        good = (s.block_bytes for s in self.writes if s.bytes_per_second >= 0.95 * fastest)
        return min(good, default=0)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A probed card. ``real_bytes`` is how much it stores, ``checked_bytes`` how much of it was
    written and read back; ``whole`` says whether that was all of it; ``lies`` are readings that
    were wrong at first and right the second time."""

    target: str
    claimed_bytes: int
    real_bytes: int
    honesty: Honesty
    checked_bytes: int
    places: int
    whole: bool
    cache_bypassed: bool
    findings: tuple[BadStretch, ...]
    lies: int
    speeds: Speeds

    def verdict(self) -> Iterator[str]:
        """What to tell a person, the conclusion first."""
        yield f"{self.target}: {self._conclusion()}"
        yield from self._speed_lines()
        if self.lies:
            yield f"    {self.lies_told}"
        yield from (f"    {line}" for line in self._listed())

    @property
    def lies_told(self) -> str:
        """What ``lies`` mean, as text."""
        times = "once" if self.lies == 1 else f"{self.lies} times"
        return f"read wrongly {times} and right at the second look: the reader is not reliable"

    def _conclusion(self) -> str:
        claimed, real = format_size(self.claimed_bytes), self.real_bytes
        stores = f"FAKE: it says {claimed} but stores {format_size(real)} ({real} bytes)"
        bad = sum(finding.extent.length for finding in self.findings)
        match self.honesty:
            case Honesty.HONEST if self.whole:
                return f"honest: all {claimed} were written and came back"
            case Honesty.HONEST:
                return (
                    f"honest as far as {self.places} samples over its {claimed} can tell "
                    f"({format_size(self.checked_bytes)} written and read back)"
                )
            case Honesty.WRAPS:
                return f"{stores}; what is written past that overwrites its beginning"
            case Honesty.LOSES:
                return f"{stores}; what is written past that is lost"
            case Honesty.FAULTY:
                return f"FAULTY: {format_size(bad)} did not come back as written"
            case Honesty.UNREADABLE:
                return f"BROKEN: {format_size(bad)} cannot be read"

    def _speed_lines(self) -> Iterator[str]:
        speeds = self.speeds
        for name, rows in (("writes", speeds.writes), ("reads", speeds.reads)):
            shown = ", ".join(
                f"{format_rate(row.bytes_per_second)} ({format_chosen(row.block_bytes)})"
                for row in rows
            )
            if shown:
                yield f"    {name:<7}{shown}"
        if speeds.random_write and speeds.random_read:
            yield (
                f"    4 KiB  {speeds.random_write.per_second:.0f} random writes a second, "
                f"{speeds.random_read.per_second:.0f} random reads: {self.fitness()}"
            )
        if speeds.best_block_bytes:
            yield f"    best transfer size {format_chosen(speeds.best_block_bytes)}"

    def fitness(self) -> str:
        """How random access compares with what SD cards promise."""
        write, read = self.speeds.random_write, self.speeds.random_read
        if write is None or read is None:
            return "not measured"
        for name, reads, writes in _CLASSES:
            if read.per_second >= reads and write.per_second >= writes:
                return f"as much as class {name} promises"
        if write.per_second < _POOR_WRITES:
            return "poor: a node will feel slow while it installs packages"
        return "below class A1, enough for a node"

    def _listed(self) -> Iterator[str]:
        yield from map(str, self.findings[:_LISTED])
        if len(self.findings) > _LISTED:
            yield f"and {len(self.findings) - _LISTED} more"

    def error(self) -> PicloudError | None:
        """The error for this result; None for a card that stores what it says."""
        what, details = f"{self.target} is {self._conclusion()}", tuple(self._listed())
        match self.honesty:
            case Honesty.HONEST:
                return None
            case Honesty.WRAPS | Honesty.LOSES:
                return FakeCapacity(
                    what, hint="give it back to who sold it, or throw it away", details=details
                )
            case Honesty.FAULTY:
                return CardFaulty(
                    what,
                    hint="try it in another reader once; if it fails again, throw it away",
                    details=details,
                )
            case Honesty.UNREADABLE:
                return CardIOError(
                    what,
                    hint="try it in another reader or port; if it fails again, throw it away",
                    details=details,
                )

    def to_json(self) -> dict[str, object]:
        """The report as ``--json`` shows it."""
        speeds = self.speeds
        return {
            "target": self.target,
            "honesty": self.honesty.value,
            "claimed_bytes": self.claimed_bytes,
            "real_bytes": self.real_bytes,
            "checked_bytes": self.checked_bytes,
            "places": self.places,
            "whole": self.whole,
            "cache_bypassed": self.cache_bypassed,
            "best_block_bytes": speeds.best_block_bytes,
            "fitness": self.fitness(),
            "lies": self.lies,
            "writes": [speed.to_json() for speed in speeds.writes],
            "reads": [speed.to_json() for speed in speeds.reads],
            "random_write": speeds.random_write.to_json() if speeds.random_write else None,
            "random_read": speeds.random_read.to_json() if speeds.random_read else None,
            "findings": [finding.to_json() for finding in self.findings],
        }


def wrap_size(findings: tuple[BadStretch, ...], claimed_bytes: int) -> int | None:
    """The size at which addresses wrap: the largest that explains every overwritten place.

    None when no size below ``claimed_bytes`` does, or only a very small one: then the card returns
    wrong places without any rule.
    """
    size = gcd(
        *(
            finding.source - finding.extent.offset
            for finding in findings
            if finding.source is not None
        )
    )
    return size if _SMALLEST_CARD <= size < claimed_bytes else None


def lost_from(
    findings: tuple[BadStretch, ...], good: tuple[int, ...], claimed_bytes: int
) -> tuple[int, int] | None:
    """Between which two bytes the card really ends, if everything behind some place is lost.

    ``good`` are the ends of the places that were read right. None when the last place is good, when
    none is, when good and bad places are mixed, or when only a little is lost. That is damage: a
    fake stores half of what it says, or less.
    """
    gone = [
        f.extent.offset
        for f in findings
        if f.kind in (BadStretchKind.LOST, BadStretchKind.UNREADABLE)
    ]
    if not gone or not good or len(gone) < len(findings):
        return None
    low, high = max(good), min(gone)
    most = claimed_bytes - least_loss_bytes(claimed_bytes)
    return (low, high) if low <= high <= most else None

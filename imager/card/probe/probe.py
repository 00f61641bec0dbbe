"""Probe a claimed card: does it store what it claims, and how fast?

In: a ClaimedCard. Out: a ProbeReport, and a card that is visibly blank. First both ends are zeroed.
Then every sample is written and flushed. Only when all are written is the first one read, through a
new descriptor: by then it is no longer in a cache of card or reader, and a card that wraps around
has overwritten it. The idea is from the program f3; f3 tests whole cards, this tests samples.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from imager.base.errors import CardIOError, FakeCapacity
from imager.base.progress import Progress
from imager.base.units import KiB, MiB, align_down, align_up
from imager.card.claim.blank import blank_unless_done, zero
from imager.card.medium.meter import metered
from imager.card.medium.raw import RawCard
from imager.card.probe.pattern import BadStretch, BadStretchKind, Pattern
from imager.card.probe.plan import (
    POINT_BYTES,
    ProbePlan,
    sampled_plan,
    short_plan,
    whole_plan,
)
from imager.card.probe.report import Honesty, ProbeReport, lost_from, wrap_size
from imager.card.probe.samples import Clock, Samples
from imager.card.stages import ClaimedCard
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB

_ROUND = 32
_NARROW_BYTES = 64 * KiB
_FILL_BYTES = 16 * MiB


def probe_card(
    card: ClaimedCard, progress: Progress, *, whole: bool = False, clock: Clock = time.monotonic
) -> ProbeReport:
    """Write and read samples; for a ``whole`` probe of a card that passes, then every byte.

    Everything on the card is lost. Raises CardIOError when it cannot be written or is gone.
    """
    size = card.raw.size_bytes
    run = _ProbeRun(card, progress, Samples(card.raw, clock))
    with blank_unless_done(card):
        run.blank("blank")
        run.go("probe", sampled_plan(size))
        if whole and not run.findings:
            block = run.samples.speeds.best_block_bytes or MiB
            run.go("probe whole", whole_plan(size, block))
        report = run.report(whole=whole and run.checked_all)
        run.blank("blank again")
    return report


def short_probe(
    card: ClaimedCard, progress: Progress, *, clock: Clock = time.monotonic
) -> ProbeReport:
    """A quick test of a card that was never seen before: about 13 MB, at most 3 s on a card of
    20 MB/s. The first and the last MiB are zeros afterwards; the write comes next.

    Raises FakeCapacity for a fake, and CardIOError when the card cannot be written or is gone; the
    card is then left blank. For other damage it only warns, because the write that follows finds
    out which file is damaged and whether writing again helps.
    """
    with blank_unless_done(card):
        report = _short_report(card, progress, clock)
        failure = report.error()
        if isinstance(failure, FakeCapacity):
            raise failure
    if failure is not None:
        progress.warn(f"{failure.what}; every byte will be read back, so the writing goes on")
    if report.lies:
        progress.warn(f"{report.target}: {report.lies_told}")
    return report


def fake_after_all(card: ClaimedCard, progress: Progress) -> FakeCapacity | None:
    """The same test for a card that lost what was written to it. Returns the error if the card is a
    fake, else None. All on the card is lost; the caller must leave it blank."""
    with suppress(CardIOError):
        failure = _short_report(card, progress, time.monotonic).error()
        return failure if isinstance(failure, FakeCapacity) else None
    return None


def _short_report(card: ClaimedCard, progress: Progress, clock: Clock) -> ProbeReport:
    run = _ProbeRun(card, progress, Samples(card.raw, clock))
    run.blank("blank")
    run.go("probe", short_plan(card.raw.size_bytes))
    return run.report(whole=False)


@dataclass(slots=True)
class _ProbeRun:
    """One probe: what was written so far and what was read."""

    card: ClaimedCard
    progress: Progress
    samples: Samples
    findings: tuple[BadStretch, ...] = ()
    _bypassed: bool = True

    @property
    def raw(self) -> RawCard:
        return self.card.raw

    @property
    def checked_all(self) -> bool:
        """Whether no byte was left out."""
        return ExtentMap(self.samples.checked).total_bytes == self.raw.size_bytes

    def blank(self, name: str) -> None:
        """Zero the first and the last MiB."""
        self.card.log.touched = True
        start = max(0, align_down(self.raw.size_bytes - MiB, self.raw.block_bytes))
        ends = ExtentMap([FIRST_MIB, Extent(start, self.raw.size_bytes - start)])
        with metered(self.progress, name, ends.total_bytes, self.card.log.phases) as meter:
            zero(self.raw, ends.split(MiB), meter)

    def go(self, name: str, plan: ProbePlan) -> None:
        """Write all places of ``plan`` with a new salt, then read all that was written."""
        samples, began = self.samples, self.samples.clock()
        samples.pattern = Pattern()
        with metered(
            self.progress, f"{name} write", plan.total_bytes, self.card.log.phases
        ) as meter:
            stretches, points = samples.write(plan, began + plan.write_seconds, meter)
        total = sum(extent.length for extent in (FIRST_MIB, *stretches, *points))
        with (
            metered(self.progress, f"{name} read", total, self.card.log.phases) as meter,
            self.card.reopen() as fresh,
        ):
            self._bypassed &= fresh.cache_bypassed
            samples.read(fresh.raw, plan, stretches, points, began + plan.read_seconds, meter)
        self.findings = tuple(sorted(self.samples.found, key=lambda found: found.extent))

    def report(self, *, whole: bool) -> ProbeReport:
        """The result. For a card that loses what is behind its real end, that end is searched."""
        honesty, real = self._conclusion()
        return ProbeReport(
            target=self.card.target.node,
            claimed_bytes=self.raw.size_bytes,
            real_bytes=real,
            honesty=honesty,
            checked_bytes=ExtentMap(self.samples.checked).total_bytes,
            places=self.samples.places,
            whole=whole,
            cache_bypassed=self._bypassed,
            findings=self.findings,
            lies=self.samples.lies,
            speeds=self.samples.speeds,
        )

    def _conclusion(self) -> tuple[Honesty, int]:
        size = self.raw.size_bytes
        if not self.findings:
            return Honesty.HONEST, size
        wraps_at = wrap_size(self.findings, size)
        if wraps_at is not None:
            return Honesty.WRAPS, wraps_at
        bad = ExtentMap(finding.extent for finding in self.findings)
        good = ExtentMap(self.samples.checked) - bad
        ends = lost_from(self.findings, tuple(extent.end for extent in good), size)
        if ends is not None:
            return Honesty.LOSES, self._real_end(*ends)
        if all(finding.kind is BadStretchKind.UNREADABLE for finding in self.findings):
            return Honesty.UNREADABLE, size
        return Honesty.FAULTY, size

    def _real_end(self, low: int, high: int) -> int:
        """The byte between a good and a lost place at which the card ends, exact to 64 KiB.

        Before each read, good places are written again, so that no cache still has the answer.
        """
        again = Extent(FIRST_MIB.end, max(0, min(_FILL_BYTES, low - FIRST_MIB.end)))
        while high - low > _NARROW_BYTES:
            step = max(POINT_BYTES, align_up((high - low) // _ROUND, POINT_BYTES))
            points = [
                Extent(offset, POINT_BYTES)
                for offset in range(align_up(low, POINT_BYTES), high - POINT_BYTES + 1, step)
            ]
            self.samples.found.clear()
            forever = float("inf")
            total = again.length + 2 * len(points) * POINT_BYTES
            with metered(self.progress, "find its end", total, self.card.log.phases) as meter:
                self.samples.put(points, POINT_BYTES, forever, meter)
                self.samples.put(ExtentMap([again]).split(MiB), MiB, forever, meter)
                with self.card.reopen() as fresh:
                    self.samples.get(fresh.raw, points, POINT_BYTES, forever, meter)
            lost = {found.extent.offset for found in self.samples.found}
            good = [point.end for point in points if point.offset not in lost]
            narrower = max(good, default=low), min(lost, default=high)
            if narrower[0] > narrower[1] or narrower == (low, high):
                break
            low, high = narrower
        return low

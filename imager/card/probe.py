"""Probe a claimed card: does it store what it claims, and how fast?

In: a ClaimedCard. Out: a ProbeReport, and a card that is visibly blank. Both ends are zeroed
first; then every sample is written and flushed, and only when all are written is the first one
read, on a fresh descriptor: a cache in the reader or the card that holds a few megabytes has
forgotten it by then, and what a wrapping card overwrote is overwritten. The idea is f3's; this
is written anew for sampling.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from imager.base.errors import CardIOError, FakeCapacity
from imager.base.progress import Progress
from imager.base.units import KiB, MiB, align_down, align_up
from imager.card.blank import blank_unless_done, zero
from imager.card.cards import ClaimedCard
from imager.card.flight import in_flight
from imager.card.meter import Meter, metered
from imager.card.probe_pattern import Finding, Kind, Pattern
from imager.card.probe_plan import (
    POINT_BYTES,
    Plan,
    Stretch,
    sampled_plan,
    short_plan,
    whole_plan,
)
from imager.card.probe_report import Honesty, ProbeReport, Speed, Speeds, lost_from, wrap_size
from imager.card.raw import RawCard, aligned_buffer, flush, is_gone, read_fully, write_stubbornly
from imager.image.extents import Extent, ExtentMap
from imager.image.layout import FIRST_MIB

_DEPTH = 2
_MOST_FINDINGS = 10_000
_ROUND = 32
_NARROW_BYTES = 64 * KiB
_FILL_BYTES = 16 * MiB

Clock = Callable[[], float]


def probe_card(
    card: ClaimedCard, progress: Progress, *, whole: bool = False, clock: Clock = time.monotonic
) -> ProbeReport:
    """Sample the card, then, for a whole probe of one that stood this, write and read all of it.

    Everything on the card is lost. Raises CardIOError when it takes no writes or is gone.
    """
    size = card.raw.size_bytes
    run = _Run(card, progress, clock)
    with blank_unless_done(card):
        run.blank("blank")
        run.go("probe", sampled_plan(size))
        if whole and not run.findings:
            block = run.speeds.best_block_bytes or MiB
            run.go("probe whole", whole_plan(size, block))
        report = run.report(whole=whole and run.checked_all)
        run.blank("blank again")
    return report


def short_probe(
    card: ClaimedCard, progress: Progress, *, clock: Clock = time.monotonic
) -> ProbeReport:
    """A first look at a card never seen before: about 13 MB of traffic, 3 s at the most on a
    card that does 20 MB/s. The card's ends are left zeroed, for the write that follows.

    Raises FakeCapacity for a fake, CardIOError when it takes no writes or is gone, and leaves it
    blank. Of other damage it warns only: the write that follows finds out which file it hits, and
    whether it can be mended.
    """
    run = _Run(card, progress, clock)
    with blank_unless_done(card):
        run.blank("blank")
        run.go("probe", short_plan(card.raw.size_bytes))
        report = run.report(whole=False)
        failure = report.error()
        if isinstance(failure, FakeCapacity):
            raise failure
    if failure is not None:
        progress.warn(f"{failure.what}; every byte will be read back, so the writing goes on")
    if report.lies:
        progress.warn(f"{report.target}: {report.lies_told}")
    return report


@dataclass(slots=True)
class _Run:
    """One probe: what was written so far and what came back."""

    card: ClaimedCard
    progress: Progress
    clock: Clock
    pattern: Pattern = field(default_factory=Pattern)
    speeds: Speeds = field(default_factory=Speeds)
    findings: tuple[Finding, ...] = ()
    _found: list[Finding] = field(default_factory=list)
    _checked: list[Extent] = field(default_factory=list)
    _places: int = 0
    _lies: int = 0
    _bypassed: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def raw(self) -> RawCard:
        return self.card.raw

    @property
    def checked_all(self) -> bool:
        """Whether no byte was left out."""
        return ExtentMap(self._checked).total_bytes == self.raw.size_bytes

    def blank(self, name: str) -> None:
        """Zero the first and the last MiB."""
        self.card.log.touched = True
        start = max(0, align_down(self.raw.size_bytes - MiB, self.raw.block_bytes))
        ends = ExtentMap([FIRST_MIB, Extent(start, self.raw.size_bytes - start)])
        with metered(self.progress, name, ends.total_bytes, self.card.log) as meter:
            zero(self.raw, ends.split(MiB), meter)

    def go(self, name: str, plan: Plan) -> None:
        """Write all of a plan with a salt of its own, then read all that was written."""
        self.pattern = Pattern()
        began = self.clock()
        with metered(self.progress, f"{name} write", plan.total_bytes, self.card.log) as meter:
            stretches, points = self._write(plan, began + plan.write_seconds, meter)
        total = sum(extent.length for extent in (FIRST_MIB, *stretches, *points))
        with metered(self.progress, f"{name} read", total, self.card.log) as meter:
            self._read(plan, stretches, points, began + plan.read_seconds, meter)
        self.findings = tuple(sorted(self._found, key=lambda found: found.extent))

    # ── writing ─────────────────────────────────────────────────────────────────────────────

    def _write(
        self, plan: Plan, deadline: float, meter: Meter
    ) -> tuple[list[Extent], list[Extent]]:
        stretches: list[Extent] = []
        for stretch in plan.stretches:
            blocks = ExtentMap([stretch.extent]).split(stretch.block_bytes)
            done, seconds = self._put(blocks, stretch.block_bytes, deadline, meter)
            stretches += done
            for speed in _speed(stretch.block_bytes, done, seconds):
                self.speeds.note(self.speeds.writes, speed)
        singles = (Extent(offset, POINT_BYTES) for offset in plan.points)
        points, seconds = self._put(singles, POINT_BYTES, deadline, meter)
        for speed in _speed(POINT_BYTES, points, seconds):
            self.speeds.random_write = speed
        return stretches, points

    def _put(
        self, extents: Iterable[Extent], largest: int, deadline: float, meter: Meter
    ) -> tuple[list[Extent], float]:
        """Write ranges until the deadline and flush; what was written, and the seconds."""
        done: list[Extent] = []

        def work(extent: Extent, buffer: memoryview) -> None:
            block = buffer[: extent.length]
            block[:] = self.pattern.data(extent)
            write_stubbornly(self.raw, extent.offset, block)
            done.append(extent)
            meter.advance(extent.length)

        began = self.clock()
        in_flight(
            self._until(deadline, extents),
            work,
            depth=_DEPTH if largest > POINT_BYTES else 1,
            tools=lambda: aligned_buffer(largest),
        )
        flush(self.raw)
        return done, self.clock() - began

    def _until(self, deadline: float, extents: Iterable[Extent]) -> Iterator[Extent]:
        for extent in extents:
            if self.clock() >= deadline:
                return
            yield extent

    # ── reading ─────────────────────────────────────────────────────────────────────────────

    def _read(
        self,
        plan: Plan,
        stretches: list[Extent],
        points: list[Extent],
        deadline: float,
        meter: Meter,
    ) -> None:
        with self.card.reopen() as fresh:
            self._bypassed &= fresh.cache_bypassed
            self._get(fresh.raw, [FIRST_MIB], MiB, deadline, meter, zeros=True)
            for stretch in plan.stretches:
                blocks = [part for part in stretches if _inside(part, stretch)]
                done, seconds = self._get(fresh.raw, blocks, stretch.block_bytes, deadline, meter)
                for speed in _speed(stretch.block_bytes, done, seconds):
                    self.speeds.note(self.speeds.reads, speed)
            done, seconds = self._get(fresh.raw, points, POINT_BYTES, deadline, meter)
            for speed in _speed(POINT_BYTES, done, seconds):
                self.speeds.random_read = speed

    def _get(
        self,
        raw: RawCard,
        extents: Iterable[Extent],
        largest: int,
        deadline: float,
        meter: Meter,
        *,
        zeros: bool = False,
    ) -> tuple[list[Extent], float]:
        """Read ranges until the deadline and judge them; what was read, and the seconds."""
        done: list[Extent] = []

        def work(extent: Extent, buffer: memoryview) -> None:
            wanted = bytes(extent.length) if zeros else self.pattern.data(extent)
            self._judge(raw, extent, buffer[: extent.length], wanted)
            done.append(extent)
            meter.advance(extent.length)

        began = self.clock()
        in_flight(
            self._until(deadline, extents),
            work,
            depth=_DEPTH if largest > POINT_BYTES else 1,
            tools=lambda: aligned_buffer(largest),
        )
        self._checked += done
        self._places += len(done)
        return done, self.clock() - began

    def _judge(self, raw: RawCard, extent: Extent, buffer: memoryview, wanted: bytes) -> None:
        """Read a range and note what is wrong with it, both times it is looked at."""
        if not self._look(raw, extent, buffer, wanted):
            return
        found = self._look(raw, extent, buffer, wanted)
        with self._lock:
            if not found:
                self._lies += 1
            elif len(self._found) < _MOST_FINDINGS:
                self._found += found

    def _look(
        self, raw: RawCard, extent: Extent, buffer: memoryview, wanted: bytes
    ) -> list[Finding]:
        try:
            read_fully(raw, extent.offset, buffer)
        except CardIOError as error:
            if is_gone(error):
                raise
            return [Finding(extent, Kind.UNREADABLE)]
        return list(self.pattern.findings(extent, bytes(buffer), wanted))

    # ── concluding ──────────────────────────────────────────────────────────────────────────

    def report(self, *, whole: bool) -> ProbeReport:
        """What to make of it; finds the real end of a card that loses what lies past it."""
        honesty, real = self._conclusion()
        return ProbeReport(
            target=self.card.target.node,
            claimed_bytes=self.raw.size_bytes,
            real_bytes=real,
            honesty=honesty,
            checked_bytes=ExtentMap(self._checked).total_bytes,
            places=self._places,
            whole=whole,
            cache_bypassed=self._bypassed,
            findings=self.findings,
            lies=self._lies,
            speeds=self.speeds,
        )

    def _conclusion(self) -> tuple[Honesty, int]:
        size = self.raw.size_bytes
        if not self.findings:
            return Honesty.HONEST, size
        wraps_at = wrap_size(self.findings, size)
        if wraps_at is not None:
            return Honesty.WRAPS, wraps_at
        bad = ExtentMap(finding.extent for finding in self.findings)
        good = ExtentMap(self._checked) - bad
        ends = lost_from(self.findings, tuple(extent.end for extent in good), size)
        if ends is not None:
            return Honesty.LOSES, self._real_end(*ends)
        if all(finding.kind is Kind.UNREADABLE for finding in self.findings):
            return Honesty.UNREADABLE, size
        return Honesty.FAULTY, size

    def _real_end(self, low: int, high: int) -> int:
        """The byte between a good and a lost place where the card ends, to 64 KiB.

        What was good is written once more before anything is read, for the caches' sake.
        """
        again = Extent(FIRST_MIB.end, max(0, min(_FILL_BYTES, low - FIRST_MIB.end)))
        while high - low > _NARROW_BYTES:
            step = max(POINT_BYTES, align_up((high - low) // _ROUND, POINT_BYTES))
            points = [
                Extent(offset, POINT_BYTES)
                for offset in range(align_up(low, POINT_BYTES), high - POINT_BYTES + 1, step)
            ]
            before = len(self._found)
            forever = float("inf")
            total = again.length + 2 * len(points) * POINT_BYTES
            with metered(self.progress, "find its end", total, self.card.log) as meter:
                self._put(points, POINT_BYTES, forever, meter)
                self._put(ExtentMap([again]).split(MiB), MiB, forever, meter)
                with self.card.reopen() as fresh:
                    self._get(fresh.raw, points, POINT_BYTES, forever, meter)
            lost = {found.extent.offset for found in self._found[before:]}
            del self._found[before:]
            good = [point.end for point in points if point.offset not in lost]
            narrower = max(good, default=low), min(lost, default=high)
            if narrower[0] > narrower[1] or narrower == (low, high):
                break
            low, high = narrower
        return low


def _inside(part: Extent, stretch: Stretch) -> bool:
    return stretch.extent.offset <= part.offset < stretch.extent.end


def _speed(block_bytes: int, done: list[Extent], seconds: float) -> list[Speed]:
    """One speed, or none when nothing was done in time."""
    size = sum(extent.length for extent in done)
    return [Speed(block_bytes, size, seconds)] if size else []

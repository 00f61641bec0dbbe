"""The transfers of a probe: samples are written, flushed, read and compared, and all is timed.

In: a card and a plan. Out: the speeds, and every place that was not read as it was written. Such a
place is read twice: if it is right the second time, the first reading was wrong, which is called a
lie. No transfer is begun after a deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from imager.base.errors import CardIOError
from imager.base.units import MiB
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import Meter
from imager.card.medium.raw import (
    RawCard,
    aligned_buffer,
    flush,
    is_gone,
    read_fully,
    write_stubbornly,
)
from imager.card.probe.pattern import BadStretch, BadStretchKind, Pattern
from imager.card.probe.plan import POINT_BYTES, ProbePlan, Stretch
from imager.card.probe.report import Speed, Speeds
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB

_DEPTH = 2
_MOST_FINDINGS = 10_000

Clock = Callable[[], float]


@dataclass(slots=True)
class Samples:
    """What was written to ``raw`` and what was read; ``pattern`` is that of this round.

    ``checked`` are the ranges that were read, in ``places`` transfers; ``found`` is what was wrong
    with them, ``lies`` is how many were wrong the first time only.
    """

    raw: RawCard
    clock: Clock
    pattern: Pattern = field(default_factory=Pattern)
    speeds: Speeds = field(default_factory=Speeds)
    found: list[BadStretch] = field(default_factory=list)
    checked: list[Extent] = field(default_factory=list)
    places: int = 0
    lies: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(
        self, plan: ProbePlan, deadline: float, meter: Meter
    ) -> tuple[list[Extent], list[Extent]]:
        """Write the places of ``plan`` until ``deadline``. Returns the blocks of stretches and the
        points that were written."""
        stretches: list[Extent] = []
        for stretch in plan.stretches:
            blocks = ExtentMap([stretch.extent]).split(stretch.block_bytes)
            done, seconds = self.put(blocks, stretch.block_bytes, deadline, meter)
            stretches += done
            for speed in _speed(stretch.block_bytes, done, seconds):
                self.speeds.note(self.speeds.writes, speed)
        singles = (Extent(offset, POINT_BYTES) for offset in plan.points)
        points, seconds = self.put(singles, POINT_BYTES, deadline, meter)
        for speed in _speed(POINT_BYTES, points, seconds):
            self.speeds.random_write = speed
        return stretches, points

    def put(
        self, extents: Iterable[Extent], largest: int, deadline: float, meter: Meter
    ) -> tuple[list[Extent], float]:
        """Write ranges until the deadline and flush. Returns what was written, and the seconds."""

        def write(extent: Extent, block: memoryview) -> None:
            block[:] = self.pattern.data(extent)
            write_stubbornly(self.raw, extent.offset, block)

        began = self.clock()
        done = self._move(extents, largest, deadline, meter, write)
        flush(self.raw)
        return done, self.clock() - began

    def _move(
        self,
        extents: Iterable[Extent],
        largest: int,
        deadline: float,
        meter: Meter,
        transfer: Callable[[Extent, memoryview], None],
    ) -> list[Extent]:
        """Call ``transfer`` with each range and memory of its length until the deadline. Returns
        the ranges that were done. Small transfers are done one at a time, so that the speed is
        that of a single one."""
        done: list[Extent] = []

        def work(extent: Extent, buffer: memoryview) -> None:
            transfer(extent, buffer[: extent.length])
            done.append(extent)
            meter.advance(extent.length)

        in_flight(
            self._until(deadline, extents),
            work,
            depth=_DEPTH if largest > POINT_BYTES else 1,
            tools=lambda: aligned_buffer(largest),
        )
        return done

    def _until(self, deadline: float, extents: Iterable[Extent]) -> Iterator[Extent]:
        for extent in extents:
            if self.clock() >= deadline:
                return
            yield extent

    def read(
        self,
        raw: RawCard,
        plan: ProbePlan,
        stretches: list[Extent],
        points: list[Extent],
        deadline: float,
        meter: Meter,
    ) -> None:
        """Read what was written, through ``raw``, and the first MiB, which must be zeros."""
        self.get(raw, [FIRST_MIB], MiB, deadline, meter, zeros=True)
        for stretch in plan.stretches:
            blocks = [part for part in stretches if _inside(part, stretch)]
            done, seconds = self.get(raw, blocks, stretch.block_bytes, deadline, meter)
            for speed in _speed(stretch.block_bytes, done, seconds):
                self.speeds.note(self.speeds.reads, speed)
        done, seconds = self.get(raw, points, POINT_BYTES, deadline, meter)
        for speed in _speed(POINT_BYTES, done, seconds):
            self.speeds.random_read = speed

    def get(
        self,
        raw: RawCard,
        extents: Iterable[Extent],
        largest: int,
        deadline: float,
        meter: Meter,
        *,
        zeros: bool = False,
    ) -> tuple[list[Extent], float]:
        """Read ranges until the deadline and compare them. Returns what was read, and the
        seconds."""

        def judge(extent: Extent, block: memoryview) -> None:
            wanted = bytes(extent.length) if zeros else self.pattern.data(extent)
            self._judge(raw, extent, block, wanted)

        began = self.clock()
        done = self._move(extents, largest, deadline, meter, judge)
        self.checked += done
        self.places += len(done)
        return done, self.clock() - began

    def _judge(self, raw: RawCard, extent: Extent, buffer: memoryview, wanted: bytes) -> None:
        """Read a range; if it is wrong, read it again, and note what is wrong both times."""
        if not self._look(raw, extent, buffer, wanted):
            return
        found = self._look(raw, extent, buffer, wanted)
        with self._lock:
            if not found:
                self.lies += 1
            elif len(self.found) < _MOST_FINDINGS:
                self.found += found

    def _look(
        self, raw: RawCard, extent: Extent, buffer: memoryview, wanted: bytes
    ) -> list[BadStretch]:
        try:
            read_fully(raw, extent.offset, buffer)
        except CardIOError as error:
            if is_gone(error):
                raise
            return [BadStretch(extent, BadStretchKind.UNREADABLE)]
        return list(self.pattern.findings(extent, bytes(buffer), wanted))


def _inside(part: Extent, stretch: Stretch) -> bool:
    return stretch.extent.offset <= part.offset < stretch.extent.end


def _speed(block_bytes: int, done: list[Extent], seconds: float) -> list[Speed]:
    """One speed, or none when nothing was done in time."""
    size = sum(extent.length for extent in done)
    return [Speed(block_bytes, size, seconds)] if size else []

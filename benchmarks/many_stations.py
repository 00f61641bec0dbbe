"""1000 nodes at 20 stations: what the head pays for one more. Salt is real, the cards are a clock.

Each node is prepared, signed and handed over, each card is reported, collected and noted down as
ever; only a station's readers and engine are replaced (``clockdesk``). Processor time is that of
the head's command with every program of Salt that it runs, and of the master, apart from the
stations', which are computers of their own elsewhere. The clocks run side by side, so what is
beyond one card's seconds is the head's, Salt's, and what 22 computers lack on two processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_lowercase

from benchmarks.process import measure
from benchmarks.stationlab import composed, has_nodes, station_runs, stations
from benchmarks.table import Row, skipped, tell
from benchmarks.workshop import Workshop
from imager.base.units import MiB
from tests.support.deskrack import DeskRack, on_head
from tests.support.loop import missing_abilities
from tests.support.rackcards import forget
from tests.support.salt import installed_salt

STATIONS = 20
SECONDS = 20
"""That a card takes."""
COUNTS = (100, 300, 1000)
QUICK_COUNTS = (40, 100)
BEYOND_SECONDS = 600
GROWTH = 1.3
"""What a node more may cost among many, of what it costs among few: it is linear."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of a run, in seconds; memory in bytes."""

    wall: float
    head: float
    master: float
    peak_bytes: int

    @property
    def both(self) -> float:
        return self.head + self.master


def many_stations_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """A row for each size, and what a node more costs."""
    what = f"{STATIONS} stations"
    if missing := missing_abilities():
        yield skipped(what, "–", missing)
        return
    counts = COUNTS if repetitions > 1 else QUICK_COUNTS
    folder = place.folder / "many-stations"
    folder.mkdir()
    programs = installed_salt()
    path = station_runs(folder, "-m", "imager")
    costs: dict[int, _Cost] = {}
    with composed(folder) as made, stations(folder, programs, STATIONS, path) as lab:
        rack = on_head(lab, made, programs, ())
        for letter, count in zip(ascii_lowercase, counts, strict=False):
            words = ("-m", "benchmarks.clockdesk", str(count // STATIONS), str(SECONDS))
            station_runs(folder, *words)
            before = lab.head.cpu_seconds("salt-master")
            costs[count] = cost = _flashed(rack, f"pi{letter}", count, before)
            tell(f"{what}, {count} nodes: {cost}")
            beyond = cost.wall - SECONDS
            largest = count == max(COUNTS)
            yield Row(
                f"{what}, {count} nodes: seconds beyond a card's {SECONDS}",
                f"{BEYOND_SECONDS} s" if largest else "–",
                f"{beyond:.0f} s; processor: head {cost.head:.0f} s, master {cost.master:.1f} s; "
                f"memory {cost.peak_bytes / MiB:.0f} MiB",
                met=beyond < BEYOND_SECONDS if largest else None,
            )
    yield _growth(costs)


def _flashed(rack: DeskRack, name: str, count: int, master: float) -> _Cost:
    """``count`` nodes whose names begin with ``name``, and had no keys."""
    made = rack.place
    forget(made)
    has_nodes(made, name, count)
    nodes = f"{name}[0-{count - 1}]"
    words = ("rack", "flash", nodes, "--stations", f"desk[1-{STATIONS}]", "--yes")
    ran = measure(rack.command(*words), cwd=made.folder)
    verified = ran.result["verified"]
    assert isinstance(verified, list) and len(verified) == count, ran.result
    spent = rack.lab.head.cpu_seconds("salt-master") - master
    return _Cost(ran.seconds, ran.cpu_seconds, spent, max(ran.peak_bytes, ran.child_peak_bytes))


def _growth(costs: Mapping[int, _Cost]) -> Row:
    """What a node more costs in processor time, from size to size."""
    sizes = list(costs)
    steps = [
        (costs[more].both - costs[less].both) / (more - less) * 1000
        for less, more in pairwise(sizes)
    ]
    told = ", ".join(
        f"{cost:.0f} ms up to {count} nodes" for count, cost in zip(sizes[1:], steps, strict=True)
    )
    linear = steps[-1] <= GROWTH * steps[0] if len(steps) > 1 else None
    return Row(
        f"{STATIONS} stations: one node more, processor of head and master",
        f"linear: {GROWTH} × among few" if linear is not None else "–",
        told,
        ratio=steps[-1] / steps[0] if len(steps) > 1 else None,
        met=linear,
    )

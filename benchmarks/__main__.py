"""``benchmarks/run``: measure, print the table, leave nothing behind.

In: a few words. Out: Markdown on standard output, a line for each measurement on standard error.
A missed limit is a word in the table, not an exit status: a busy machine is no fault of the
program.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.any_image import any_image_rows
from benchmarks.card import card_rows
from benchmarks.cloning import cloning_rows
from benchmarks.compose import compose_rows
from benchmarks.engine import engine_rows
from benchmarks.machine import footer, load
from benchmarks.many_stations import many_stations_rows
from benchmarks.memory import memory_rows
from benchmarks.node import node_rows
from benchmarks.packages import packages_rows
from benchmarks.process import Failed
from benchmarks.rack import rack_rows
from benchmarks.racks import racks_rows
from benchmarks.saving import saving_rows
from benchmarks.startup import help_rows
from benchmarks.stations import stations_rows
from benchmarks.table import Row, markdown
from benchmarks.workshop import ROOT, Workshop, workshop


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something to measure, and how often in a thorough and in a quick run.

    ``quick_by_itself`` takes so long that a quick run has it only where ``--only`` names it.
    """

    rows: Callable[[Workshop, int], Iterator[Row]]
    repetitions: int
    quick: int
    quick_by_itself: bool = False


MEASUREMENTS = {
    "compose": Measurement(compose_rows, 5, 2),
    "node": Measurement(node_rows, 5, 1),
    "card": Measurement(card_rows, 3, 1),
    "image": Measurement(any_image_rows, 2, 1, quick_by_itself=True),
    "engine": Measurement(engine_rows, 2, 1),
    "saving": Measurement(saving_rows, 3, 1),
    "rack": Measurement(rack_rows, 2, 1, quick_by_itself=True),
    "racks": Measurement(racks_rows, 3, 1, quick_by_itself=True),
    "stations": Measurement(stations_rows, 2, 1, quick_by_itself=True),
    "many-stations": Measurement(many_stations_rows, 2, 1, quick_by_itself=True),
    "cloning": Measurement(cloning_rows, 2, 1),
    "memory": Measurement(memory_rows, 3, 1),
    "packages": Measurement(packages_rows, 3, 1),
    "help": Measurement(help_rows, 1, 1),
}


def main() -> int:
    """Measure what was asked for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure picloud-image beside its peers. Needs root for loop devices.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; under 5 minutes")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="may be repeated")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="[build]")
    asked = parser.parse_args()
    # Every stop must unwind: devices are detached, limits removed. A shell's background jobs are
    # born deaf to SIGINT.
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    asked.build.mkdir(parents=True, exist_ok=True)
    try:
        names = asked.only or [
            name
            for name, what in MEASUREMENTS.items()
            if not (asked.quick and what.quick_by_itself)
        ]
        _measure(names, asked.build.resolve(), quick=asked.quick)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; nothing was left behind", file=sys.stderr)
        return 130
    except (Failed, subprocess.CalledProcessError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(names: list[str], build: Path, *, quick: bool) -> None:
    before = load()
    rows: list[Row] = []
    with workshop(build) as place:
        for name in names:
            measurement = MEASUREMENTS[name]
            rows += measurement.rows(place, measurement.quick if quick else measurement.repetitions)
        print(
            markdown(rows), "", *(f"- {line}" for line in footer(place.tarball, before)), sep="\n"
        )


if __name__ == "__main__":
    sys.exit(main())

"""How long a person waits for ``--help``, beside bmaptool."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.card import without_bmaptool
from benchmarks.process import measure
from benchmarks.table import Row, Sample
from benchmarks.workshop import ROOT, Workshop, command

LIMIT_SECONDS = 0.12
_RUNS = 10


def help_rows(_: Workshop, repetitions: int) -> Iterator[Row]:
    """Ten runs of each, in turn, after one of each that is not counted."""
    del repetitions  # ten are quick enough for everybody
    has_peer = not without_bmaptool()
    ours, theirs = [], []
    for _number in range(_RUNS + 1):
        ours.append(measure([*command(), "--help"], cwd=ROOT).seconds)
        if has_peer:
            theirs.append(measure(["bmaptool", "--help"]).seconds)
    mine, other = Sample(tuple(ours[1:])), Sample(tuple(theirs[1:]))
    yield Row(
        "--help",
        f"{LIMIT_SECONDS} s",
        mine.text("s", 2),
        f"bmaptool --help: {other.text('s', 2)}" if has_peer else without_bmaptool(),
        mine.ratio_to(other) if has_peer else None,
        mine.median <= LIMIT_SECONDS,
    )

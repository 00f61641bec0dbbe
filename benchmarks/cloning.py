"""A card copied to one card and to four at once, each at the speed of a card.

The cards are loop devices limited to 20 MB/s for writing and 40 MB/s for reading, the source too.
Its own limit is every byte that counts once to each card, and once back. All are read and written
by one computer, so that four are to take hardly longer than one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.card import READ_BPS, WRITE_BPS
from benchmarks.devices import Loop, card_of, fill_card, no_throttle, throttled
from benchmarks.process import Ran, measure, parts
from benchmarks.table import Row, Sample, skipped, tell
from benchmarks.workshop import ROOT, Workshop, command
from imager.base.units import GiB, MiB

LIMIT = 1.05
MANY = 4
_MEMORY_LIMIT = 150 * MiB
_CARD_BYTES = 2 * GiB
_FILES_BYTES = 200 * MiB
_WHAT = f"clone to {MANY} cards at once, 20 MB/s and 40 MB/s"
_LIMIT = f"{LIMIT} × one card"


def cloning_rows(place: Workshop, repetitions: int) -> Iterator[Row]:
    """Time of four beside one, one beside the card's own limit, and memory."""
    if missing := no_throttle():
        yield skipped(_WHAT, _LIMIT, missing)
        return
    one, many, ideal, peaks = [], [], [], []
    with _source(place) as source:
        for number in range(repetitions):
            first, all_of_them = _clone(place, source, 1), _clone(place, source, MANY)
            one.append(_seconds(first))
            many.append(_seconds(all_of_them))
            mapped = first.number("mapped_bytes")
            ideal.append(mapped / WRITE_BPS + mapped / READ_BPS)
            peaks.append(all_of_them.peak_bytes)
            tell(
                f"cloning {number + 1}: one {parts(first, since='blank')}; {MANY} {many[-1]:.1f} s"
            )
    single, four, limit = Sample(tuple(one)), Sample(tuple(many)), Sample(tuple(ideal))
    yield Row(
        _WHAT,
        _LIMIT,
        four.text("s"),
        f"one card: {single.text('s')}",
        four.ratio_to(single),
        four.ratio_to(single) <= LIMIT,
    )
    yield Row(
        "… one card",
        f"{LIMIT} × bytes/speed",
        single.text("s"),
        f"bytes/speed: {limit.text('s')}",
        single.ratio_to(limit),
        single.ratio_to(limit) <= LIMIT,
    )
    yield Row(
        f"… memory of {MANY}",
        f"{_MEMORY_LIMIT // MiB} MiB",
        f"{max(peaks) / MiB:.0f} MiB",
        met=max(peaks) <= _MEMORY_LIMIT,
    )


def _seconds(ran: Ran) -> float:
    return ran.seconds - ran.phase("blank").began


def _clone(place: Workshop, source: Loop, cards: int) -> Ran:
    with ExitStack() as stack:
        nodes = []
        for _ in range(cards):
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=place.folder))
            card = stack.enter_context(card_of(Path(folder), _CARD_BYTES))
            stack.enter_context(throttled(card, write_bps=WRITE_BPS, read_bps=READ_BPS))
            nodes.append(card.node)
        # Receipts of cards without a rack go where the person's own data is.
        home = {"XDG_DATA_HOME": str(place.folder)}
        line = [*command(), "clone", source.node, *nodes, "--yes", "--no-probe", "--json"]
        return measure(line, cwd=ROOT, env=home)


@contextmanager
def _source(place: Workshop) -> Iterator[Loop]:
    """A card with 200 MiB of files."""
    with (
        tempfile.TemporaryDirectory(prefix="source-", dir=place.folder) as name,
        card_of(Path(name), _CARD_BYTES) as card,
    ):
        fill_card(card.node, _CARD_BYTES, _FILES_BYTES)
        with throttled(card, write_bps=WRITE_BPS, read_bps=READ_BPS):
            yield card

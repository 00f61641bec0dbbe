"""A run at work that is none: its live state, as rack flash or a head of stations would keep it.

In: a rack, and how far the run is. Out: the file it would have written, under the lock it would
hold, for as long as a block lasts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imager.base.units import MiB
from imager.config.rack import Node, Rack
from imager.rack.batch.card_progress import Moment
from imager.rack.history.lock import batch_lock
from imager.rack.live.snapshot import LiveCard, LiveEnding, LiveRun, remove_live, write_live

WHOLE = 600 * MiB
BEGAN = "2026-11-29T10:40:00.000Z"


def moment_at(share: float, phase: str = "write", rate: float = 20e6) -> Moment:
    """A card of which so much is done, from 0 to 1, with half of its bytes in the ``phase``."""
    done = round(share * WHOLE)
    return Moment(phase, done, WHOLE, done / rate, done, 2 * WHOLE)


def card_at(
    node: Node, number: int, step: int, *, hostile: str = "", station: str = ""
) -> LiveCard:
    """The card of ``node``; each later ``step`` it is farther. By the last digit of ``number`` it
    has failed (3), is done (1, 2), waits (9), is read back (5, 6) or written."""
    target = f"/dev/sd{chr(ord('b') + number % 24)}{hostile}"
    slot = node.slot or ""
    ending = moment = None
    match number % 10:
        case 3:
            reason = f"byte 209715217 differs after 2 attempts{hostile}"
            hint = "throw this card away; nothing else is wrong"
            ending = LiveEnding("faulty" + hostile, 95, reason, hint)
        case 1 | 2:
            ending = LiveEnding("verified", 81)
        case 9:
            pass
        case 5 | 6:
            moment = moment_at(min(1.0, 0.11 * number % 1 + step / 50), "read back", 41e6)
        case 7:
            moment = Moment(f"check {node.name}", 0, None, 3.0 + step, WHOLE, 2 * WHOLE)
        case _:
            moment = moment_at(min(1.0, 0.07 * number % 1 + step / 50))
    return LiveCard(node.name, target, slot, station, moment, ending)


def run_at(
    rack: Rack,
    step: int = 0,
    *,
    hostile: str = "",
    stations: Sequence[str] = ("",),
    command: str = "rack flash",
) -> LiveRun:
    """A run over all nodes of ``rack`` at a ``step``, its cards dealt out to ``stations``."""
    cards = tuple(
        card_at(node, n, step, hostile=hostile, station=stations[n % len(stations)])
        for n, node in enumerate(rack.nodes)
    )
    offers = (f"B5 (/dev/sdz): blank{hostile} → pi8, begins in 4 s",)
    said = (f"pi2: no flock on /dev/sdd{hostile}",)
    return LiveRun(command, os.getpid(), BEGAN, 0, cards, offers, said)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """A run of this process holds the rack in ``folder``; ``write_live`` says what it does."""
    with batch_lock(folder):
        try:
            yield
        finally:
            remove_live(folder)


def show_run(rack: Rack, run: LiveRun) -> None:
    """What a run writes once a second."""
    write_live(rack.folder, run)

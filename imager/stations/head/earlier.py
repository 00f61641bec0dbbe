"""What earlier runs of the head left on stations, brought into the ledger by the next one.

In: stations, and a ledger with cards that were begun there and have no end. Out: their ends, as far
as the stations know them. A card whose order never reached its station is known to be as it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from imager.config.rack import Rack
from imager.rack.history.events import Assigned
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from imager.stations.head.collect import LATEST_SECONDS, collect
from imager.stations.head.settling import Settled, not_begun
from imager.stations.wire.bus import StationBus
from imager.stations.wire.reports import AtDesk
from imager.stations.wire.survey import MOST_CARDS


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was left of earlier runs: ``settled`` is in the ledger now, ``making`` is being made
    now, by node. ``untold`` has, by their names, why stations did not say what became of cards that
    they began, ``untaken`` by node what is wrong with the report of its card."""

    settled: tuple[Settled, ...]
    making: Mapping[str, AtDesk]
    untold: Mapping[str, str]
    untaken: Mapping[str, str]


def collect_earlier(rack: Rack, bus: StationBus, stations: Sequence[str]) -> Earlier:
    """Bring into the ledger what earlier runs of the head left on ``stations``. The caller holds
    ``batch_lock``: these runs are over, and no station may begin anything of them any more."""
    settled: list[Settled] = []
    making: dict[str, AtDesk] = {}
    untold: dict[str, str] = {}
    untaken: dict[str, str] = {}
    before = _unended(rack)
    ended = {
        station: sorted({begun.batch for begun in before if begun.station == station})[:MOST_CARDS]
        for station in stations
    }
    collected = collect(rack, bus, stations, ended=ended)
    after = _unended(rack)
    for station, found in collected.items():
        settled += found.settled
        untaken |= {node: f"{station}: {why}" for node, why in found.untaken.items()}
        its = [begun for begun in after if begun.station == station]
        if found.fault:
            if its:
                untold[station] = found.fault
            continue
        here = {card.node: card for card in found.making}
        making |= here
        for begun in its:
            if begun.node in here or begun.node in found.untaken:
                continue
            never = begun.batch in found.closed or _is_past(begun)
            # A station that was made anew meanwhile cannot know what it did before.
            if never and found.since < _time_of(begun):
                not_begun(
                    rack,
                    begun,
                    Outcome.INTERRUPTED,
                    f"{station} never began this card",
                    "it is as it was; run the same command again",
                )
    return Earlier(tuple(settled), making, untold, untaken)


def _unended(rack: Rack) -> list[Assigned]:
    """Every card that was begun and has no end in the ledger."""
    ledger = read_ledger(rack.folder)
    states = (ledger.state_of(node.name).begun for node in rack.nodes)
    return [begun for begun in states if begun is not None]


def _is_past(begun: Assigned) -> bool:
    return time.time() - _time_of(begun) > LATEST_SECONDS


def _time_of(begun: Assigned) -> float:
    """0 for what is no time: then nothing is concluded from it."""
    with suppress(ValueError):
        return datetime.fromisoformat(begun.at).timestamp()
    return 0.0

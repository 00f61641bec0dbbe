"""``--stations`` of ``rack plan``, ``rack flash`` and ``rack watch``: how the head reaches them.

In: the words of the command line. Out: a bus to the stations, who of them can take part, and cards
made there, shown as those made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from imager.base.errors import UsageError
from imager.card.host.target import Limits
from imager.cli.master import master_options
from imager.cli.session import Session
from imager.cli.views.batch_screen import shown_batch
from imager.config.nodeset import expand
from imager.config.rack import Rack
from imager.rack.batch.crew import Orders
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome
from imager.rack.master.connection import Way, door_to_master
from imager.rack.plan.plan import PlannedCard
from imager.rack.plan.survey import GoldenImages
from imager.stations.head.earlier import collect_earlier
from imager.stations.head.flash import Head, flash_on_stations
from imager.stations.head.remote import RemoteCard, RemoteJob
from imager.stations.head.roll_call import RollCall, call_roll
from imager.stations.salt.salt_bus import opened_bus
from imager.stations.salt.scripts import require_id
from imager.stations.wire.bus import StationBus


@dataclass(frozen=True, slots=True)
class Asked:
    """The stations that a person named, and how the rack's Salt master is reached."""

    names: tuple[str, ...]
    way: Way


@dataclass(frozen=True, slots=True)
class Stations:
    """The stations ``names``, reached by a bus."""

    names: tuple[str, ...]
    bus: StationBus

    def roll(self, rack: Rack, images: GoldenImages, limits: Limits) -> RollCall:
        """Who of them can take part, with which cards."""
        return call_roll(self.bus, self.names, rack, images, limits)

    def collect(self, session: Session, rack: Rack) -> None:
        """Bring into the ledger what an earlier run left there, and say so. The caller holds
        ``batch_lock``."""
        earlier = collect_earlier(rack, self.bus, self.names)
        for one in earlier.settled:
            report = one.report
            how = "" if report.outcome is Outcome.VERIFIED else f": {report.reason}"
            session.console.note(f"{report.node}: {report.outcome}, in an earlier run{how}")
        for card in earlier.making.values():
            session.console.note(f"{card.node}: being made now, from an earlier run")
        for station, fault in earlier.untold.items():
            session.console.warn(
                f"{station}: what became of cards that it began is not known: {fault}"
            )
        for node, why in earlier.untaken.items():
            session.console.warn(f"{node}: the report of its card cannot be taken from {why}")

    def work(
        self,
        session: Session,
        orders: Orders,
        steps: Sequence[PlannedCard],
        roll: RollCall,
    ) -> tuple[CardResult, ...]:
        """Do the steps, side by side, and show how far each is."""
        jobs = [job_of(step, roll.cards) for step in steps]
        head = Head(self.bus, roll.surveys, session.cache)
        with shown_batch(session.console, orders.rack.folder, "rack flash", jobs) as watch:
            return flash_on_stations(orders, jobs, watch, head)


def job_of(step: PlannedCard, cards: Mapping[str, RemoteCard]) -> RemoteJob:
    """The job of one step of a plan over ``cards``."""
    card = cards[step.candidate.target.node]
    return RemoteJob(step.node, card, step.candidate.slot or "")


def stations_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--stations`` and the options that say how the master is reached, as the
    keyword ``asked``: None without ``--stations``."""

    @wraps(function)
    def with_stations(*words: Any, stations: str | None, way: Way, **options: Any) -> Any:
        return function(*words, asked=_asked(stations, way), **options)

    option = click.option(
        "--stations",
        metavar="NAMES",
        help="Use the cards in the readers of these Salt minions, e.g. desk[1-4].",
    )
    return option(master_options(with_stations))


def _asked(stations: str | None, way: Way) -> Asked | None:
    if stations is None:
        if way != Way():
            raise UsageError(
                "--user, --host, --port, --identity and --local say how the Salt master is reached",
                hint="say which stations, too",
            )
        return None
    return Asked(station_names(stations, "--stations"), way)


def station_names(text: str, word: str) -> tuple[str, ...]:
    """The stations that ``text`` names, as ``word`` of a command line. Raises UsageError."""
    try:
        names = expand(text, example="desk[1-4]")
    except ValueError as error:
        raise UsageError(f"{word}: {text!r} {error}", hint="for example 'desk[1-4]'") from None
    for name in names:
        require_id(name)
    return names


@contextmanager
def reached(session: Session, rack: Rack, asked: Asked) -> Iterator[Stations]:
    """The stations, until the block ends; nothing that was handed to them is left then."""
    door = door_to_master(rack, asked.way)
    names = asked.names
    who = names[0] if len(names) == 1 else f"{len(names)} stations"
    session.console.note(f"asking {who} by way of {door.name}")
    with opened_bus(door) as bus:
        yield Stations(names, bus)

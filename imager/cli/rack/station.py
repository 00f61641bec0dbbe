"""The flashing station for a person: what is shown, and which keys do what.

In: orders, plans, and cards as they come. Out: the fields of the command's result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from imager.base.errors import BatchFailed, Interrupted
from imager.card.host.arrivals import Arrivals
from imager.card.host.disks import Disk
from imager.cli.rack.batch import show_results
from imager.cli.session import CommandResult, Session
from imager.cli.terminal.folding import folded
from imager.cli.views.batch_screen import Screen
from imager.cli.views.key_presses import key_presses
from imager.rack.batch.crew import Orders
from imager.rack.batch.station import Makers, Offer, Plans, Station, Teller
from imager.rack.batch.workers import CardResult, Stop, Watch
from imager.rack.live.keeper import kept_live
from imager.rack.plan.candidates import Candidate, Unfit

_POLL_SECONDS = 0.05
_KEYS = "Enter: begin now, s: skip"


class Readers(Protocol):
    """Where cards are put in and taken out."""

    def tell(self, station: Station, teller: Teller, seconds: float) -> None:
        """Tell ``station`` of what came or went; wait for it for ``seconds`` at most."""


class ReadersHere:
    """The readers of this computer."""

    def __init__(self, cards: Arrivals) -> None:
        self._cards = cards
        self._present: Sequence[Disk] = cards.present

    def tell(self, station: Station, teller: Teller, seconds: float) -> None:
        """See Readers."""
        del teller
        present, self._present = self._present, ()
        for disk in present:
            station.arrived(disk)
        change = self._cards.wait(seconds)
        if change is None:
            return
        if change.disk is None:
            station.gone(change.name)
        else:
            station.arrived(change.disk)


class CrewAtWork(Makers, Protocol):
    """Makers that are given time, and can be stopped."""

    @property
    def results(self) -> Sequence[CardResult]:
        """How each card ended, as far as they have."""

    def turn(self, seconds: float) -> None:
        """Go on for ``seconds``."""

    def stop(self) -> None:
        """Stop every card; the caller goes on calling ``turn``."""


Begin = Callable[[Sequence[str], Watch], AbstractContextManager[tuple[CrewAtWork, Stop]]]
"""Begins a batch over nodes of these names, and gives its crew and the stop that a signal sets."""


def at_the_station(
    session: Session, orders: Orders, plans: Plans, begin: Begin, cards: Readers, *, eject: bool
) -> CommandResult:
    """Write the cards that are put in until every node has one or the person stops it."""
    view = _StationConsole(session, eject=eject)
    names = [node.name for node in plans.nodes]
    live = kept_live(
        orders.rack.folder,
        "rack watch",
        view.screen,
        wanting=view.nodes_without_card,
        offers=view.offers,
    )
    with (
        view.screen,
        key_presses() as keys,
        live as watch,
        begin(names, watch) as (crew, stopped),
    ):
        station = Station(orders, plans, crew, view, time.monotonic)
        view.attend(station)
        session.console.note("put cards in one after the other; Ctrl-C ends")
        while not (station.is_over or (stopped.is_set() and not crew.is_busy)):
            if not stopped.is_set():
                cards.tell(station, view, _POLL_SECONDS)
            for key in keys():
                if key in "\r\n":
                    station.begin()
                elif key == "s":
                    station.skip()
            station.look()
            crew.turn(_POLL_SECONDS)
            if stopped.is_set():
                station.skip()
                crew.stop()
        missing = [node.name for node in station.missing]
        results = list(crew.results)
    outcome = show_results(session, _last_of_each(results), missing)
    if stopped.is_set() and outcome["exit_code"] in (0, BatchFailed.exit_code):
        session.console.error(
            Interrupted(
                f"stopped; {len(missing)} nodes have no card yet",
                hint="run the same command again to go on",
            )
        )
        return {**outcome, "exit_code": Interrupted.exit_code}
    # A bad card does not count if its node got a good one afterwards.
    return outcome if missing else {**outcome, "exit_code": 0}


def _last_of_each(results: list[CardResult]) -> list[CardResult]:
    return list({result.job.name: result for result in results}.values())


class _StationConsole:
    """Shows the person what the station does (a ``imager.rack.batch.station.Teller``)."""

    def __init__(self, session: Session, *, eject: bool) -> None:
        self._console = session.console
        self._eject = eject
        self._station: Station | None = None
        self.screen = Screen(
            session.console,
            on_end=self._ended,
            standing=self._offer_lines,
            wanting=self.nodes_without_card,
        )

    def attend(self, station: Station) -> None:
        """Show the offers of ``station`` from now on."""
        self._station = station

    def offered(self, offer: Offer) -> None:
        """See Teller."""
        candidate, node = offer.step.candidate, offer.step.node
        self._console.event(
            "offer",
            node=node.name,
            target=candidate.target.node,
            slot=candidate.slot,
            holds=candidate.holds,
            about=candidate.about,
            because=offer.step.why,
            asks=offer.due is None,
        )
        if offer.due is None and not self._console.can_ask:
            self.screen.say(
                f"{_where(candidate)} holds {candidate.about}; it is left alone, for nobody is "
                "there to ask"
            )
        elif not self.screen.draws:
            asks = "waits for Enter" if offer.due is None else "begins by itself"
            self.screen.say(f"{_where(candidate)}: {candidate.about} → {node.name}; {asks}")

    def withdrawn(self, offer: Offer) -> None:
        """See Teller."""
        self.screen.say(f"{_where(offer.step.candidate)} is gone again")

    def left(self, candidate: Candidate, because: str) -> None:
        """See Teller."""
        self._console.event(
            "left", target=candidate.target.node, slot=candidate.slot, because=because
        )
        self.screen.say(f"{_where(candidate)}: {because}")

    def refused(self, unfit: Unfit) -> None:
        """See Teller."""
        self._console.event(
            "refused", target=unfit.target.node, slot=unfit.slot, reasons=list(unfit.reasons)
        )
        self.screen.say(f"{unfit.slot or unfit.target.node} is refused: {unfit.reasons[0]}")

    def absent(self, name: str, why: str) -> None:
        """See Teller."""
        self._console.event("left_out", station=name, because=why)
        self.screen.say(f"left out: {name}: {why}")

    def _ended(self, result: CardResult) -> None:
        if self._station is not None:
            self._station.ended(result)
        target = result.job.target
        if result.is_verified:
            gone = self._eject and target.eject()
            where = result.job.slot or target.node
            more = self._station is not None and self._station.missing
            self.screen.say(
                f"{result.job.name} is verified: take it out of {where}"
                f"{' (ejected)' if gone else ''}{' and put the next card in' if more else ''}"
            )
        elif result.error is not None:
            self.screen.say(f"{result.job.name}: {result.fault}")
            self.screen.say(f"  → {self._console.pasted(result.error.hint)}")

    def nodes_without_card(self) -> list[str]:
        """The nodes that have no good card yet, by name."""
        return [node.name for node in self._station.missing] if self._station is not None else []

    def _offer_lines(self) -> list[str]:
        """Those of ``offers`` for the terminal, and one for the keys."""
        lines = self.offers()
        columns = self._console.screen.columns - 1
        return [part for line in (*lines, _KEYS) for part in folded(line, columns) if lines]

    def offers(self) -> list[str]:
        """A line for every card that is offered."""
        if self._station is None:
            return []
        lines = []
        for offer in self._station.offers.values():
            left = None if offer.due is None else max(0.0, offer.due - time.monotonic())
            when = "waits for Enter" if left is None else f"begins in {left:.0f} s"
            candidate = offer.step.candidate
            lines.append(f"{_where(candidate)}: {candidate.about} → {offer.step.node.name}, {when}")
        return lines


def _where(candidate: Candidate) -> str:
    slot = f"{candidate.slot} " if candidate.slot else ""
    return f"{slot}({candidate.target.node})" if slot else candidate.target.node

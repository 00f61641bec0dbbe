"""``rack watch``: the flashing station. Put a card in, take it out when it is done, next one.

In: cards as they are put in. Out: one card for each node asked for; it ends by itself when all of
them have theirs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from imager.base.errors import Interrupted
from imager.cli.consent import SIZE
from imager.cli.rack_choice import chosen_nodes, golden_images, open_rack
from imager.cli.rack_flash_command import columns, limits_of_batch, told
from imager.cli.rack_screen import Screen
from imager.cli.session import Outcome, Session, command

if TYPE_CHECKING:
    from imager.card.arrivals import Arrivals
    from imager.node.rack import Node, Rack
    from imager.rack.candidates import Candidate, Unfit
    from imager.rack.crew import Orders, Result
    from imager.rack.station import Offer, Plans, Station

_POLL_SECONDS = 0.05
_KEYS = "Enter: begin now, s: skip"


def add_watch_command(rack_group: click.Group) -> None:
    """Add ``watch`` to the group ``rack``."""

    @command(rack_group, "watch")
    @click.option(
        "--countdown",
        type=click.FloatRange(0),
        default=5.0,
        show_default=True,
        help="Seconds from the moment a card is in until it is begun.",
    )
    @click.option("--again", is_flag=True, help="Also the nodes that are done.")
    @click.option("--eject", is_flag=True, help="Ask the reader to let go of a finished card.")
    @click.option("--jobs", type=click.IntRange(1), help="Cards at a time. [what the bus bears]")
    @click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]")
    @click.argument("nodes", required=False, metavar="[NODES]")
    def watch(session: Session, **given: object) -> Outcome:
        """Write each card that is put in, until every node has one.

        NODES are names such as pi[1-13]; all of the rack when left out. A card in a slot of the
        rack, a blank one and one of this rack begin by themselves after the countdown; any other
        one only when Enter is pressed. s leaves the cards that wait alone.
        """
        from imager.card.arrivals import arrivals
        from imager.rack.ledger import batch_lock

        rack = open_rack(session)
        nodes = chosen_nodes(rack, given["nodes"])
        with batch_lock(rack.folder), arrivals() as cards:
            return _watch(session, rack, nodes, cards, given)


def _watch(
    session: Session,
    rack: Rack,
    nodes: tuple[Node, ...],
    cards: Arrivals,
    given: Mapping[str, object],
) -> Outcome:
    from imager.node.edit import opened
    from imager.rack.crew import Orders
    from imager.rack.slots import load_slots
    from imager.rack.station import Plans

    images = golden_images(session, rack, nodes)
    seconds = given["countdown"]
    assert isinstance(seconds, float)  # noqa: S101 - click says so
    plans = Plans(nodes, images, load_slots(rack.folder), seconds, again=bool(given["again"]))
    with ExitStack() as held:
        views = {model: held.enter_context(opened(images[model])) for model in images}
        orders = Orders(
            rack=rack,
            golden_of=lambda node: views[node.model],
            limits=limits_of_batch(session, rack, given),
            at_once=given["jobs"] if isinstance(given["jobs"], int) else None,
        )
        return _at_the_station(session, orders, plans, cards, eject=bool(given["eject"]))


def _at_the_station(
    session: Session, orders: Orders, plans: Plans, cards: Arrivals, *, eject: bool
) -> Outcome:
    from imager.cli.key_presses import key_presses
    from imager.rack.flash import begun
    from imager.rack.station import Station

    desk = _Desk(session, eject=eject)
    names = [node.name for node in plans.nodes]
    with desk.screen, key_presses() as keys, begun(orders, names, desk.screen) as (crew, stopped):
        station = Station(orders, plans, crew, desk, time.monotonic)
        desk.attend(station)
        session.console.note("put cards in one after the other; Ctrl-C ends")
        for disk in cards.present:
            station.arrived(disk)
        while not (station.is_over or (stopped.is_set() and not crew.is_busy)):
            change = cards.wait(_POLL_SECONDS)
            if change is not None and not stopped.is_set():
                if change.disk is None:
                    station.gone(change.name)
                else:
                    station.arrived(change.disk)
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
    outcome = told(session, _last_of_each(results), missing)
    if stopped.is_set() and outcome["exit_code"] in (0, 30):
        session.console.error(
            Interrupted(
                f"stopped; {len(missing)} nodes have no card yet",
                hint="run the same command again to go on",
            )
        )
        return {**outcome, "exit_code": Interrupted.exit_code}
    # A node whose first card was bad and whose second is good is served.
    return outcome if missing else {**outcome, "exit_code": 0}


def _last_of_each(results: list[Result]) -> list[Result]:
    return list({result.job.name: result for result in results}.values())


class _Desk:
    """Tells the person at the station (``imager.rack.station.Teller``)."""

    def __init__(self, session: Session, *, eject: bool) -> None:
        self._console = session.console
        self._eject = eject
        self._station: Station | None = None
        self.screen = Screen(session.console, on_end=self._ended, standing=self._standing)

    def attend(self, station: Station) -> None:
        """Whose offers are shown."""
        self._station = station

    def offered(self, offer: Offer) -> None:
        """See Teller."""
        candidate, node = offer.step.candidate, offer.step.node
        self._console.event(
            "offer",
            node=node.name,
            target=offer.disk.node,
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

    def _ended(self, result: Result) -> None:
        from imager.card.devices import Disk
        from imager.card.eject import eject

        if self._station is not None:
            self._station.ended(result)
        target = result.job.target
        if result.is_verified and isinstance(target, Disk):
            gone = self._eject and eject(target)
            where = result.job.slot or target.node
            self.screen.say(
                f"{result.job.name} is verified: take it out of {where}"
                f"{' (ejected)' if gone else ''} and put the next card in"
            )
        elif result.error is not None:
            self.screen.say(f"{result.job.name}: {result.outcome}: {result.error.what}")
            self.screen.say(f"  → {result.error.hint}")

    def _standing(self) -> list[str]:
        """Lines for what waits."""
        if self._station is None or not self._station.offers:
            return []
        lines = []
        for offer in self._station.offers.values():
            left = None if offer.due is None else max(0.0, offer.due - time.monotonic())
            when = "waits for Enter" if left is None else f"begins in {left:.0f} s"
            candidate = offer.step.candidate
            lines.append(f"{_where(candidate)}: {candidate.about} → {offer.step.node.name}, {when}")
        return [line[: columns() - 1] for line in (*lines, _KEYS)]


def _where(candidate: Candidate) -> str:
    slot = f"{candidate.slot} " if candidate.slot else ""
    return f"{slot}({candidate.target.node})" if slot else candidate.target.node

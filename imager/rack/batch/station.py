"""The flashing station: a card is put in, gets the next node, is written, and makes room for one.

In: cards as they come and go, a clock, and now and then a word from a person. Out: jobs for the
crew, and what to tell. A card begins by itself after a countdown only where that can hurt nobody:
the rack names the slot, or the card is blank or the rack's own. A stranger's card waits for a word,
and one that is taken out before its turn is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from imager.card.host.disks import Disk
from imager.config.rack import Node
from imager.rack.batch.crew import CardJob, CardResult, Crew, Orders
from imager.rack.history.ledger import read_ledger
from imager.rack.plan.candidates import Candidate, Holds, Unfit, look_at, sort_disks
from imager.rack.plan.plan import Action, PlannedCard, Want, make_plan
from imager.rack.plan.slots import Slots
from imager.rack.plan.survey import GoldenImages, wants_of


@dataclass(frozen=True, slots=True)
class Offer:
    """A card that could be written. ``due`` is when it begins by itself (seconds of the station's
    clock); None when somebody has to say so."""

    step: PlannedCard
    disk: Disk
    due: float | None


class Teller(Protocol):
    """Whoever is told what the station does."""

    def offered(self, offer: Offer) -> None:
        """A card is there for a node."""

    def withdrawn(self, offer: Offer) -> None:
        """It was taken out again before its turn."""

    def left(self, candidate: Candidate, because: str) -> None:
        """A card is left as it is."""

    def refused(self, unfit: Unfit) -> None:
        """A card may not be written."""


@dataclass(frozen=True, slots=True)
class Plans:
    """What the station is to do: cards for ``nodes``, each begun ``seconds`` after it came."""

    nodes: tuple[Node, ...]
    images: GoldenImages
    slots: Slots
    seconds: float
    again: bool = False


class Station:
    """Cards by the kernel name of their disk; used by one thread."""

    def __init__(
        self, orders: Orders, plans: Plans, crew: Crew, tell: Teller, clock: Callable[[], float]
    ) -> None:
        self._orders, self._plans, self._crew = orders, plans, crew
        self._tell, self._clock = tell, clock
        self._missing = {node.name for node in plans.nodes}
        if not plans.again:
            self._missing -= {want.node.name for want in self._wants(plans.nodes) if want.is_done}
        self._put_off: dict[str, Disk] = {}
        self._said: dict[str, tuple[Disk, str]] = {}
        self.offers: dict[str, Offer] = {}

    @property
    def missing(self) -> tuple[Node, ...]:
        """The nodes that still need a card, also those whose card is under way."""
        return tuple(node for node in self._plans.nodes if node.name in self._missing)

    @property
    def is_over(self) -> bool:
        """Whether every node has its card and nothing is under way."""
        return not (self._missing or self.offers or self._crew.is_busy)

    def arrived(self, disk: Disk) -> None:
        """A card was put in."""
        orders, plans = self._orders, self._plans
        self.offers.pop(_name(disk), None)
        self._put_off.pop(_name(disk), None)
        goldens = plans.images.values()
        fit, unfit = sort_disks([disk], plans.slots, goldens, orders.rack, orders.limits)
        for refused in unfit:
            self._tell.refused(refused)
        for card in fit:
            self._offer(card, look_at(card, plans.slots, orders.rack.folder))

    def gone(self, name: str) -> None:
        """A card was taken out. One that is being written is missed by its worker."""
        self._put_off.pop(name, None)
        self._said.pop(name, None)
        offer = self.offers.pop(name, None)
        if offer is not None:
            self._tell.withdrawn(offer)

    def begin(self) -> None:
        """Somebody says: do all that is offered, a stranger's card too, and do it now."""
        for name, offer in list(self.offers.items()):
            self._begin(name, offer)

    def skip(self) -> None:
        """Somebody says: leave the cards that are offered alone."""
        for name, offer in list(self.offers.items()):
            del self.offers[name]
            self._tell.left(offer.step.candidate, "it was skipped; put it in again to have it")

    def look(self) -> None:
        """Begin what is due."""
        now = self._clock()
        for name, offer in list(self.offers.items()):
            if offer.due is not None and now >= offer.due:
                self._begin(name, offer)

    def ended(self, result: CardResult) -> None:
        """A card is done, one way or the other; one that is here for the same node, perhaps the
        same card put in again, has its turn if it went wrong."""
        if result.is_verified:
            self._missing.discard(result.job.name)
        waiting, self._put_off = self._put_off, {}
        for disk in waiting.values():
            self.arrived(disk)

    def _offer(self, disk: Disk, candidate: Candidate) -> None:
        orders, plans = self._orders, self._plans
        slots = {node.slot for node in orders.rack.nodes if node.slot is not None}
        stranger = candidate.holds is Holds.FOREIGN and candidate.slot not in slots
        # A stranger's card that waits for a word holds no node back from a card that needs none.
        offered = [
            offer.step.node.name
            for offer in self.offers.values()
            if stranger or offer.due is not None
        ]
        busy = {*self._crew.at_work, *(job.name for job in self._crew.waiting), *offered}
        # What this run has made is not made again, though all that was made before is.
        again = plans.again and bool(self._missing)
        nodes = self.missing if again else plans.nodes
        wants = self._wants(nodes)
        plan = make_plan(wants, [candidate], orders.rack.nodes, again=again, busy=busy)
        for left in plan.left:
            # A card that was put off is judged again whenever another one is done.
            if self._said.get(_name(disk)) != (disk, left.because):
                self._said[_name(disk)] = (disk, left.because)
                self._tell.left(left.candidate, left.because)
            if busy:
                self._put_off[_name(disk)] = disk
        for step in plan.steps:
            if step.action is Action.NOTHING:
                self._tell.left(candidate, f"it is {step.node.name}'s, and is done")
                continue
            due = None if step.needs_a_word else self._clock() + plans.seconds
            self.offers[_name(disk)] = Offer(step, disk, due)
            self._tell.offered(self.offers[_name(disk)])
            self._move_on(_name(disk), step.node)

    def _move_on(self, name: str, node: Node) -> None:
        """Find another node for the cards that were offered ``node`` before the disk ``name``."""
        for other, offer in list(self.offers.items()):
            if other != name and offer.step.node == node:
                self.arrived(offer.disk)

    def _begin(self, name: str, offer: Offer) -> None:
        del self.offers[name]
        slot = offer.step.candidate.slot or ""
        self._crew.add(CardJob(offer.step.node, offer.disk, offer.disk.size_bytes, slot))

    def _wants(self, nodes: Sequence[Node]) -> tuple[Want, ...]:
        rack = self._orders.rack
        return wants_of(rack, nodes, read_ledger(rack.folder), self._plans.images)


def _name(disk: Disk) -> str:
    return disk.node.rpartition("/")[2]

"""The flashing station: a card that is put in becomes the card of the next node.

In: cards as they are put in and taken out, a clock, and what a person decides. Out: jobs for the
crew, and what the person is told. A card begins by itself after a countdown only where that
is safe: the rack names the slot, or the card is blank, or it is a card of this rack. Any
other card waits until a person says that it may be written. One that is taken out before that is
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from imager.card.host.disks import Disk
from imager.card.host.target import Target
from imager.config.rack import Node
from imager.rack.batch.crew import Orders
from imager.rack.batch.workers import CardResult
from imager.rack.history.ledger import read_ledger
from imager.rack.plan.candidates import (
    Candidate,
    Holds,
    Unfit,
    look_at,
    reasons_against,
    sort_disks,
)
from imager.rack.plan.plan import Action, PlannedCard, Want, make_plan
from imager.rack.plan.slots import Slots
from imager.rack.plan.survey import GoldenImages, wants_of


@dataclass(frozen=True, slots=True)
class Offer:
    """A card that could be written. ``due`` is when it begins by itself, in seconds of the
    station's clock; None if a person has to say so. ``judge`` judges the card once more."""

    step: PlannedCard
    due: float | None
    judge: Callable[[], None]


class Teller(Protocol):
    """Is told what the station does, and shows it to a person."""

    def offered(self, offer: Offer) -> None:
        """A card was put in that can become a node's."""

    def withdrawn(self, offer: Offer) -> None:
        """The card was taken out before it was begun."""

    def left(self, candidate: Candidate, because: str) -> None:
        """A card is not written; ``because`` says why."""

    def refused(self, unfit: Unfit) -> None:
        """A card may not be written."""

    def absent(self, name: str, why: str) -> None:
        """A computer whose cards were asked for cannot take part now."""


class Makers(Protocol):
    """Who makes the cards that are begun."""

    @property
    def is_busy(self) -> bool:
        """Whether any card is being made or waits."""

    @property
    def busy(self) -> tuple[str, ...]:
        """The nodes whose cards are being made or wait."""

    def make(self, step: PlannedCard) -> None:
        """Add a card to be made; it is begun as soon as the limits allow it."""


@dataclass(frozen=True, slots=True)
class Plans:
    """What the station is to do: make cards for ``nodes``, each begun ``seconds`` after it was put
    in."""

    nodes: tuple[Node, ...]
    images: GoldenImages
    slots: Slots
    seconds: float
    again: bool


class Station:
    """Which cards are offered, by the names of their disks. Only one thread may use it."""

    def __init__(
        self, orders: Orders, plans: Plans, crew: Makers, tell: Teller, clock: Callable[[], float]
    ) -> None:
        self._orders, self._plans, self._crew = orders, plans, crew
        self._tell, self._clock = tell, clock
        self._missing = {node.name for node in plans.nodes}
        if not plans.again:
            self._missing -= {want.node.name for want in self._wants(plans.nodes) if want.is_done}
        self._put_off: dict[str, Callable[[], None]] = {}
        self._said: dict[str, tuple[Target, str]] = {}
        self.offers: dict[str, Offer] = {}

    @property
    def missing(self) -> tuple[Node, ...]:
        """The nodes that still need a card, with those whose card is being made."""
        return tuple(node for node in self._plans.nodes if node.name in self._missing)

    @property
    def is_over(self) -> bool:
        """Whether every node has its card and no card is offered or being made."""
        return not (self._missing or self.offers or self._crew.is_busy)

    def arrived(self, disk: Disk) -> None:
        """A card was put in."""
        orders, plans = self._orders, self._plans
        self._forget(name_of(disk))
        goldens = plans.images.values()
        fit, unfit = sort_disks(
            [disk],
            plans.slots,
            lambda card: reasons_against(card, goldens, orders.rack, orders.limits),
        )
        for refused in unfit:
            self._tell.refused(refused)
        for card in fit:
            candidate = look_at(card, plans.slots, orders.rack.folder)
            self._offer(candidate, partial(self.arrived, disk))

    def came(self, candidate: Candidate) -> None:
        """A card that another computer looked at was put in there."""
        self._forget(name_of(candidate.target))
        self._offer(candidate, partial(self.came, candidate))

    def _forget(self, name: str) -> None:
        self.offers.pop(name, None)
        self._put_off.pop(name, None)

    def gone(self, name: str) -> None:
        """The card of the disk ``name`` (``name_of``) was taken out. If it is being written, its
        worker finds that out by itself."""
        self._put_off.pop(name, None)
        self._said.pop(name, None)
        offer = self.offers.pop(name, None)
        if offer is not None:
            self._tell.withdrawn(offer)
            self._judge_again()

    def begin(self) -> None:
        """A person says: begin all offered cards now, also those that hold something."""
        for name, offer in list(self.offers.items()):
            self._begin(name, offer)

    def skip(self) -> None:
        """A person says: do not write the cards that are offered."""
        for name, offer in list(self.offers.items()):
            del self.offers[name]
            self._tell.left(offer.step.candidate, "it was skipped; put it in again to have it")
        self._judge_again()

    def look(self) -> None:
        """Begin the cards whose countdown is over."""
        now = self._clock()
        for name, offer in list(self.offers.items()):
            if offer.due is not None and now >= offer.due:
                self._begin(name, offer)

    def ended(self, result: CardResult) -> None:
        """A job has ended, well or not. If it failed, another card that is in for the same node,
        perhaps the same one put in again, may be offered now."""
        if result.is_verified:
            self._missing.discard(result.job.name)
        self._judge_again()

    def _judge_again(self) -> None:
        """A node is nobody's any more: a card that was put off for another one may have it."""
        waiting, self._put_off = self._put_off, {}
        for judge in waiting.values():
            judge()

    def _offer(self, candidate: Candidate, judge: Callable[[], None]) -> None:
        orders, plans = self._orders, self._plans
        slots = {node.slot for node in orders.rack.nodes if node.slot is not None}
        stranger = candidate.holds is Holds.FOREIGN and candidate.slot not in slots
        # A node whose offered card waits for a person can still be given to a card that does not.
        offered = [
            offer.step.node.name
            for offer in self.offers.values()
            if stranger or offer.due is not None
        ]
        busy = {*self._crew.busy, *offered}
        name, target = name_of(candidate.target), candidate.target
        # With ``again`` every card is made anew, but only once in this run.
        again = plans.again and bool(self._missing)
        nodes = self.missing if again else plans.nodes
        wants = self._wants(nodes)
        plan = make_plan(wants, [candidate], orders.rack.nodes, again=again, busy=busy)
        for left in plan.left:
            # A card that was put off is judged again whenever another one is done or gone.
            if self._said.get(name) != (target, left.because):
                self._said[name] = (target, left.because)
                self._tell.left(left.candidate, left.because)
            if busy:
                self._put_off[name] = judge
        for step in plan.steps:
            if step.action is Action.NOTHING:
                self._tell.left(candidate, f"it is {step.node.name}'s, and is done")
                continue
            due = None if step.needs_a_word else self._clock() + plans.seconds
            self.offers[name] = Offer(step, due, judge)
            self._tell.offered(self.offers[name])
            self._move_on(name, step.node)

    def _move_on(self, name: str, node: Node) -> None:
        """Find another node for the cards that were offered ``node`` before the disk ``name``."""
        for other, offer in list(self.offers.items()):
            if other != name and offer.step.node == node:
                offer.judge()

    def _begin(self, name: str, offer: Offer) -> None:
        del self.offers[name]
        self._crew.make(offer.step)

    def _wants(self, nodes: Sequence[Node]) -> tuple[Want, ...]:
        rack = self._orders.rack
        return wants_of(rack, nodes, read_ledger(rack.folder), self._plans.images)


def name_of(target: Target) -> str:
    """What a disk is called here: its kernel name, behind that of its computer where it is another
    one (``sdb``, ``desk2:sdb``)."""
    name = target.node.rpartition("/")[2]
    return f"{target.station}:{name}" if target.station else name

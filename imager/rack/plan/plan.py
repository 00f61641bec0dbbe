"""Decides which card becomes which node, and what is done to it, before anything is written.

In: the nodes that are wanted, the cards that are there, what the ledger says about each node. Out:
a RackPlan, which the person sees and confirms as a whole. Pure.

A card is for the node whose slot it is in, else for the node that its stamp names, else for the
next node that needs a card. A node that has its card gets no second one, nor does one whose card a
station began and whose end nobody knows; and a card that is right is left as it is. All that
changes when cards are to be made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from imager.config.rack import Node
from imager.rack.history.events import NodeState, Standing
from imager.rack.plan.candidates import Candidate, Holds


class Why(StrEnum):
    """Why a card is for its node."""

    NAME = "the file's name"
    SLOT = "its slot"
    STAMP = "its stamp"
    NEXT = "next free"


class Action(StrEnum):
    """What will be done to a card."""

    WRITE = "write"
    UPDATE = "update"
    """It holds the same golden image already: compare all of it and write what differs."""
    NOTHING = "nothing"
    """Nothing: it was verified, and a card made now would be the same."""


@dataclass(frozen=True, slots=True)
class Want:
    """A node that shall get a card. ``state`` is from the ledger. ``recipe`` and ``golden_key`` say
    what a card made now would be made from; None while the release is not composed."""

    node: Node
    state: NodeState
    recipe: str | None = None
    golden_key: str | None = None

    @property
    def standing(self) -> Standing:
        """What is known of its card."""
        return self.state.standing(self.recipe)

    @property
    def is_done(self) -> bool:
        """Whether it has a verified card that is the same as one made now."""
        return self.standing is Standing.CURRENT

    @property
    def elsewhere(self) -> str:
        """Where a station began a card of which nobody knows the end; empty where none did."""
        begun = self.state.begun
        return begun.where if begun is not None and begun.station else ""


@dataclass(frozen=True, slots=True)
class PlannedCard:
    """One card for one node."""

    node: Node
    candidate: Candidate
    why: Why
    action: Action

    @property
    def needs_a_word(self) -> bool:
        """Whether a person must say yes even with ``--yes``: the slot has no label, and on the card
        is something that this rack did not write."""
        return (
            self.action is not Action.NOTHING
            and self.why is not Why.SLOT
            and self.candidate.holds is Holds.FOREIGN
        )


@dataclass(frozen=True, slots=True)
class Left:
    """A card that is left alone, and why."""

    candidate: Candidate
    because: str


@dataclass(frozen=True, slots=True)
class RackPlan:
    """``without`` are the nodes that need a card but get none, because too few are there; ``done``
    are the nodes that need none. ``elsewhere`` says of nodes that get none where their card was
    begun, of which nobody knows the end."""

    steps: tuple[PlannedCard, ...]
    left: tuple[Left, ...]
    without: tuple[Node, ...]
    done: tuple[Node, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def to_do(self) -> tuple[PlannedCard, ...]:
        """The cards to which something is written."""
        return tuple(step for step in self.steps if step.action is not Action.NOTHING)


def make_plan(
    wants: Sequence[Want],
    candidates: Iterable[Candidate],
    rack_nodes: Sequence[Node],
    *,
    again: bool = False,
    busy: Collection[str] = (),
) -> RackPlan:
    """The plan for the nodes ``wants`` of a rack with ``rack_nodes``. With ``again`` every card is
    made anew, even one that is right. A card for each node in ``busy`` is being made already."""
    matching = _Matching({want.node.name: want for want in wants}, rack_nodes, again, busy)
    rest = list(candidates)
    for match in (matching.by_name, matching.by_slot, matching.by_stamp, matching.next_free):
        rest = [candidate for candidate in rest if not match(candidate)]
    order = {want.node.name: place for place, want in enumerate(wants)}
    idle = [want for want in wants if want.node.name not in matching.taken]
    return RackPlan(
        steps=tuple(sorted(matching.steps, key=lambda step: order[step.node.name])),
        left=tuple(matching.left),
        without=tuple(want.node for want in idle if not want.is_done),
        done=tuple(want.node for want in idle if want.is_done),
        elsewhere={want.node.name: want.elsewhere for want in idle if want.elsewhere and not again},
    )


class _Matching:
    """The rules. Each returns True when it has dealt with a card, else the next rule is tried."""

    def __init__(
        self,
        wants: Mapping[str, Want],
        rack_nodes: Sequence[Node],
        again: bool,
        busy: Collection[str],
    ) -> None:
        self._wants, self._again, self._busy = wants, again, busy
        self._names = {node.name for node in rack_nodes}
        self._slots = {node.slot: node.name for node in rack_nodes if node.slot is not None}
        self._free = list(self._in_need())
        self.steps: list[PlannedCard] = []
        self.taken: set[str] = set()
        self.left: list[Left] = []

    def _in_need(self) -> Iterator[str]:
        """The nodes that need a card. Those without a good one come first, because a node with a
        stale card still works."""
        for stale in (False, True):
            for name, want in self._wants.items():
                done = (want.is_done or want.elsewhere) and not self._again
                if (
                    not done
                    and name not in self._busy
                    and (want.standing is Standing.STALE) is stale
                ):
                    yield name

    def by_name(self, candidate: Candidate) -> bool:
        return candidate.wanted is not None and self._for(candidate, candidate.wanted, Why.NAME)

    def by_slot(self, candidate: Candidate) -> bool:
        name = self._slots.get(candidate.slot) if candidate.slot is not None else None
        return name is not None and self._for(candidate, name, Why.SLOT)

    def by_stamp(self, candidate: Candidate) -> bool:
        name = candidate.stamp.node if candidate.stamp is not None else None
        return name in self._names and self._for(candidate, str(name), Why.STAMP)

    def next_free(self, candidate: Candidate) -> bool:
        name = next((name for name in self._free if name not in self.taken), None)
        if name is None:
            return self._leave(candidate, "no node needs a card any more")
        return self._for(candidate, name, Why.NEXT)

    def _for(self, candidate: Candidate, name: str, why: Why) -> bool:
        """Give the card to the node, or leave it and note the reason; always True."""
        want = self._wants.get(name)
        if want is None:
            return self._leave(candidate, f"it is for {name} ({why}), which was not asked for")
        if name in self._busy or name in self.taken:
            return self._leave(candidate, f"it is for {name} ({why}), as is another card here")
        if want.elsewhere and not self._again:
            return self._leave(
                candidate,
                f"it is for {name} ({why}), whose card was begun in {want.elsewhere}: look at that "
                "one; --again makes one more",
            )
        if want.is_done and not self._again:
            if not _is_its_card(candidate, want):
                done = f"{name} ({why}) is done with another card; --again makes one more"
                return self._leave(candidate, done)
            action = Action.NOTHING
        else:
            action = _action(candidate, want)
        self.steps.append(PlannedCard(want.node, candidate, why, action))
        self.taken.add(name)
        return True

    def _leave(self, candidate: Candidate, because: str) -> bool:
        self.left.append(Left(candidate, because))
        return True


def _is_its_card(candidate: Candidate, want: Want) -> bool:
    last = want.state.last
    return (
        candidate.stamp is not None
        and last is not None
        and candidate.stamp.node == want.node.name
        and candidate.stamp.image_id == last.image_id
    )


def _action(candidate: Candidate, want: Want) -> Action:
    """What will be done to the card, as far as is known now; ``make_card`` checks again."""
    stamp = candidate.stamp
    same = stamp is not None and stamp.golden_key == want.golden_key
    fits = stamp is not None and stamp.layout.size_bytes == candidate.size_bytes
    return Action.UPDATE if same and fits else Action.WRITE

"""Which card becomes which node, as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import GiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.config.rack import Node
from imager.disk.extents import Extent
from imager.disk.layout import Layout
from imager.node.stamp.facts import StampFacts
from imager.rack.history.events import Assigned, CardFinished, NodeState
from imager.rack.plan.candidates import Candidate, Holds
from imager.rack.plan.plan import Action, RackPlan, Want, Why, make_plan

SIZE = 8 * GiB
LAYOUT = Layout(SIZE, Extent(8 << 20, 256 << 20), Extent(264 << 20, SIZE - (264 << 20)))
RACK = tuple(Node(f"pi{n}", "pi2", (), None, (), slot=f"A{n}") for n in range(4))
GOLDEN = "golden"


def stamp(node: str, image_id: str = "its", golden_key: str = GOLDEN) -> StampFacts:
    return StampFacts(
        "rack", node, "pi2", "r", "0" * 64, golden_key, image_id, "", "1", 1_790_000_000, 7, LAYOUT
    )  # fmt: skip


def card(
    name: str,
    *,
    slot: str | None = None,
    of: StampFacts | None = None,
    holds: Holds | None = None,
    size_bytes: int = SIZE,
) -> Candidate:
    disk = Disk(f"/dev/{name}", "8:0", size_bytes, Bus.USB, removable=True)
    what = holds or (Holds.OURS if of else Holds.BLANK)
    return Candidate(disk, what, "something", slot, of)


def done(
    node: str, *, recipe: str = "now", image_id: str = "its", outcome: str = "verified"
) -> NodeState:
    last = CardFinished("", "", node, "", "", outcome, "", "", "", image_id, recipe, "")
    return NodeState(last=last, verified=last if outcome == "verified" else None)


CUT_SHORT = NodeState(begun=Assigned("", "", "pi1", "", "", 0, "", "", "", 0))

ELSEWHERE = NodeState(
    begun=Assigned("", "", "pi1", "desk2:/dev/sdb", "C3", 0, "", "", "", 0, "desk2")
)


@dataclass(frozen=True)
class Row:
    """Cards and what is known, and what must come of it: card -> (node, why, action)."""

    what: str
    cards: tuple[Candidate, ...]
    to: dict[str, tuple[str, Why, Action]]
    left: tuple[str, ...] = ()
    states: tuple[tuple[str, NodeState], ...] = ()
    asked: tuple[str, ...] = ("pi0", "pi1", "pi2", "pi3")
    again: bool = False


W, U, N = Action.WRITE, Action.UPDATE, Action.NOTHING
ROWS = (
    Row("blank cards go to the nodes in order", (card("b"), card("c")),
        {"b": ("pi0", Why.NEXT, W), "c": ("pi1", Why.NEXT, W)}),
    Row("a slot says which", (card("b", slot="A2"),), {"b": ("pi2", Why.SLOT, W)}),
    Row("a slot of no node is as none", (card("b", slot="Z9"),), {"b": ("pi0", Why.NEXT, W)}),
    Row("a stamp says which", (card("b", of=stamp("pi3")),), {"b": ("pi3", Why.STAMP, U)}),
    Row("a stamp of another golden image is written anew",
        (card("b", of=stamp("pi3", golden_key="old")),), {"b": ("pi3", Why.STAMP, W)}),
    Row("a stamp of a card of another size is written anew",
        (card("b", of=stamp("pi3"), size_bytes=2 * SIZE),), {"b": ("pi3", Why.STAMP, W)}),
    Row("the slot wins over the stamp", (card("b", slot="A2", of=stamp("pi3")),),
        {"b": ("pi2", Why.SLOT, U)}),
    Row("a stamp of a node that is no more goes to the next",
        (card("b", of=stamp("pi99")),), {"b": ("pi0", Why.NEXT, U)}),
    Row("slots and stamps before the next free, in whatever order the cards come",
        (card("b"), card("c", of=stamp("pi0")), card("d", slot="A1")),
        {"b": ("pi2", Why.NEXT, W), "c": ("pi0", Why.STAMP, U), "d": ("pi1", Why.SLOT, W)}),
    Row("a node that was not asked for keeps its card", (card("b", of=stamp("pi0")),), {},
        left=("b",), asked=("pi1",)),
    Row("nor does its slot's card go elsewhere", (card("b", slot="A0"),), {}, left=("b",),
        asked=("pi1",)),
    Row("two cards of one node: the second is left",
        (card("b", of=stamp("pi1")), card("c", of=stamp("pi1"))),
        {"b": ("pi1", Why.STAMP, U)}, left=("c",)),
    Row("more cards than nodes", (card("b"), card("c")), {"b": ("pi1", Why.NEXT, W)},
        left=("c",), asked=("pi1",)),
    Row("a card that is done is not done twice", (card("b", of=stamp("pi1")),),
        {"b": ("pi1", Why.STAMP, N)}, states=(("pi1", done("pi1")),)),
    Row("again does it", (card("b", of=stamp("pi1")),), {"b": ("pi1", Why.STAMP, U)},
        states=(("pi1", done("pi1")),), again=True),
    Row("a stale one is done", (card("b", of=stamp("pi1")),), {"b": ("pi1", Why.STAMP, U)},
        states=(("pi1", done("pi1", recipe="then")),)),
    Row("a failed one is done", (card("b", of=stamp("pi1")),), {"b": ("pi1", Why.STAMP, U)},
        states=(("pi1", done("pi1", outcome="faulty")),)),
    Row("one that was cut short is done", (card("b", of=stamp("pi1")),),
        {"b": ("pi1", Why.STAMP, U)}, states=(("pi1", CUT_SHORT),)),
    Row("an older card of a node that is done is left",
        (card("b", of=stamp("pi1", image_id="old")),), {}, left=("b",),
        states=(("pi1", done("pi1")),)),
    Row("a blank card in the slot of a node that is done is left", (card("b", slot="A1"),), {},
        left=("b",), states=(("pi1", done("pi1")),)),
    Row("blank cards pass over nodes that are done", (card("b"),), {"b": ("pi1", Why.NEXT, W)},
        states=(("pi0", done("pi0")),)),
    Row("and take nodes without a good card before stale ones", (card("b"), card("c")),
        {"b": ("pi3", Why.NEXT, W), "c": ("pi0", Why.NEXT, W)},
        states=tuple((f"pi{n}", done(f"pi{n}", recipe="then")) for n in range(3))),
    Row("a file is for the node it is called after", (replace(card("b"), wanted="pi2"),),
        {"b": ("pi2", Why.NAME, W)}),
)  # fmt: skip


def plan_of(row: Row) -> RackPlan:
    states = dict(row.states)
    wants = [
        Want(node, states.get(node.name, NodeState()), "now", GOLDEN)
        for node in RACK
        if node.name in row.asked
    ]
    return make_plan(wants, row.cards, RACK, again=row.again)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what.replace(" ", "_"))
def test_the_table(row: Row) -> None:
    plan = plan_of(row)
    short = {
        step.candidate.target.node.removeprefix("/dev/"): (step.node.name, step.why, step.action)
        for step in plan.steps
    }
    assert short == row.to
    assert tuple(left.candidate.target.node.removeprefix("/dev/") for left in plan.left) == row.left


def test_steps_are_in_the_order_of_the_rack_and_the_rest_is_named() -> None:
    row = Row("", (card("b", slot="A3"), card("c", slot="A1")), {}, states=(("pi0", done("pi0")),))
    plan = plan_of(row)
    assert [step.node.name for step in plan.steps] == ["pi1", "pi3"]
    assert [node.name for node in plan.without] == ["pi2"]
    assert [node.name for node in plan.done] == ["pi0"]


def test_a_node_whose_card_a_station_began_gets_no_second_one() -> None:
    states = (("pi1", ELSEWHERE),)
    for its in (card("b", slot="A1"), card("b", of=stamp("pi1"))):
        plan = plan_of(Row("", (its,), {}, states=states))
        assert plan.steps == ()
        (left,) = plan.left
        assert "begun in desk2's slot C3: look at that one" in left.because
    row = Row("", (card("b"), card("c"), card("d"), card("e")), {}, states=states)
    plan = plan_of(row)
    assert [step.node.name for step in plan.steps] == ["pi0", "pi2", "pi3"]
    assert plan.elsewhere == {"pi1": "desk2's slot C3"}
    said = plan_of(replace(row, again=True))
    assert [step.node.name for step in said.steps] == ["pi0", "pi1", "pi2", "pi3"]
    assert said.elsewhere == {}


@pytest.mark.parametrize(
    ("candidate", "asks"),
    [
        (card("b"), False),
        (card("b", of=stamp("pi1")), False),
        (card("b", slot="A1", holds=Holds.FOREIGN), False),
        (card("b", holds=Holds.FOREIGN), True),
        (card("b", slot="Z9", holds=Holds.FOREIGN), True),
    ],
)
def test_a_stranger_s_card_needs_a_word_unless_the_rack_names_its_slot(
    candidate: Candidate, asks: bool
) -> None:
    (step,) = plan_of(Row("", (candidate,), {})).steps
    assert step.needs_a_word is asks


cards = st.builds(
    lambda number, slot, node, holds: card(
        f"sd{number}", slot=slot, of=stamp(node) if node else None, holds=holds
    ),
    st.integers(0, 99),
    st.sampled_from([None, "A0", "A1", "A2", "Z1"]),
    st.sampled_from([None, "pi0", "pi1", "pi9"]),
    st.sampled_from([None, Holds.FOREIGN]),
)
states = st.sampled_from([NodeState(), CUT_SHORT, done("pi1"), done("pi1", recipe="then")])


@given(
    st.lists(cards, max_size=8, unique_by=lambda card: card.target.node),
    st.lists(states, min_size=4, max_size=4),
    st.booleans(),
)
def test_every_card_is_dealt_with_once_and_no_node_twice(
    some: list[Candidate], known: list[NodeState], again: bool
) -> None:
    wants = [Want(node, state, "now", GOLDEN) for node, state in zip(RACK, known, strict=True)]
    plan = make_plan(wants, some, RACK, again=again)
    dealt = [step.candidate for step in plan.steps] + [left.candidate for left in plan.left]
    assert sorted(c.target.node for c in dealt) == sorted(c.target.node for c in some)
    names = [step.node.name for step in plan.steps]
    everyone = names + [node.name for node in (*plan.without, *plan.done)]
    assert sorted(everyone) == [node.name for node in RACK]
    for step in plan.to_do:
        want = next(want for want in wants if want.node is step.node)
        assert again or not want.is_done

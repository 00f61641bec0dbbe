"""A station begins by itself only what can hurt nobody; tests/device puts real cards in.

The disks here are files with a disk's facts: a station looks at cards, and never writes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from imager.base.errors import HostStorage
from imager.base.units import GiB, MiB
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import Disk
from imager.card.host.target import Limits, TargetFacts
from imager.config.rack import Node, Rack
from imager.node.edit.edit import OpenGolden
from imager.node.keys.signing import rack_key
from imager.node.stamp.stamp import STAMP_AREA, encode_stamp
from imager.rack.batch.card_progress import CardEvent
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.station import Offer, Plans, Station
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.events import CardFinished
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Candidate, Holds, Unfit
from imager.rack.plan.plan import Want
from imager.rack.plan.slots import Slots
from imager.rack.plan.survey import wants_of
from imager.stations.head.remote import RemoteCard, candidate_of
from imager.stations.wire.survey import SurveyedCard
from tests.support.racks import rack_in
from tests.support.stamps import FACTS
from tests.unit.node.stamp.test_stamp import FILES, MANIFEST

SECONDS = 30.0
FOREIGN = b"somebody's photographs"
RACK = '[rack]\nnodes = "pi[0-2]"\nslots = "A[0-2]"\n'
SLOTS = Slots({f"A{n}": f"usb-{n}" for n in range(3)} | {"Z9": "usb-9"})


class Nobody:
    """A Watch that is not interested."""

    def began(self, job: Job) -> None:
        pass

    def heard(self, job: Job, event: CardEvent) -> None:
        pass

    def ended(self, result: CardResult) -> None:
        pass

    def turn(self, crew: AtWork) -> None:
        pass


def no_golden(node: Node) -> OpenGolden:
    raise HostStorage("full", hint="free some space")


@dataclass
class Told:
    """A Teller that remembers: what, and of which disk or node."""

    said: list[tuple[str, str]] = field(default_factory=list)

    def offered(self, offer: Offer) -> None:
        self.said.append(("offered", offer.step.node.name))

    def withdrawn(self, offer: Offer) -> None:
        self.said.append(("withdrawn", offer.step.node.name))

    def left(self, candidate: Candidate, because: str) -> None:
        self.said.append(("left", because))

    def refused(self, unfit: Unfit) -> None:
        self.said.append(("refused", unfit.reasons[0]))

    def absent(self, name: str, why: str) -> None:
        raise AssertionError(f"{name}: {why}")

    def new(self) -> list[tuple[str, str]]:
        """What was said since the last time."""
        new, self.said = self.said, []
        return new


@dataclass
class Place:
    """A station, its crew, and a clock that is set by hand."""

    rack: Rack
    folder: Path
    told: Told = field(default_factory=Told)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.orders = Orders(self.rack, no_golden, Limits(), at_once=0)
        self.crew = Crew(self.orders, Nobody())
        self.station = self.started()

    def started(self, *, again: bool = False) -> Station:
        plans = Plans(self.rack.nodes, {}, SLOTS, SECONDS, again)
        return Station(self.orders, plans, self.crew, self.told, lambda: self.now)

    def disk(self, name: str, holds: bytes = b"", port: int | None = None) -> Disk:
        """A card of 1 MiB that holds ``holds``, in the slot ``port``."""
        path = self.folder / name
        path.write_bytes(holds.ljust(MiB, b"\0"))
        links = (f"/dev/disk/by-path/usb-{port}",) if port is not None else ()
        return Disk(str(path), "8:0", MiB, Bus.USB, removable=True, by_path=links)

    def waiting(self) -> list[tuple[str, str]]:
        """The jobs that the crew was given: node and slot."""
        return [(job.name, job.slot) for job in self.crew.waiting]


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", RACK)


@pytest.fixture
def place(rack: Rack, tmp_path: Path) -> Place:
    return Place(rack, tmp_path)


def result_of(node: Node, disk: Disk, outcome: Outcome) -> CardResult:
    return CardResult(CardJob(node, disk, MiB), outcome)


@pytest.mark.parametrize(
    ("holds", "port", "offered"), [(b"", 1, "pi1"), (FOREIGN, 1, "pi1"), (b"", None, "pi0")]
)
def test_what_hurts_nobody_begins_by_itself_when_it_is_due(
    place: Place, holds: bytes, port: int | None, offered: str
) -> None:
    """A slot that the rack names says what its card is for, whatever is on it."""
    place.station.arrived(place.disk("sdb", holds, port))
    assert place.told.new() == [("offered", offered)]
    place.now += SECONDS - 0.5
    place.station.look()
    assert place.waiting() == []
    place.now += 0.5
    place.station.look()
    assert place.waiting() == [(offered, f"A{port}" if port is not None else "")]
    assert place.station.offers == {}
    assert not place.station.is_over


@pytest.mark.parametrize("port", [None, 9])
def test_a_strangers_card_waits_for_a_word(place: Place, port: int | None) -> None:
    place.station.arrived(place.disk("sdb", FOREIGN, port))
    assert place.told.new() == [("offered", "pi0")]
    place.now += 100 * SECONDS
    place.station.look()
    assert place.waiting() == []
    place.station.begin()
    assert place.waiting() == [("pi0", "Z9" if port else "")]


def test_a_strangers_card_holds_no_node_back(place: Place) -> None:
    place.station.arrived(place.disk("sdb", FOREIGN))
    place.station.arrived(place.disk("sdc"))
    assert place.told.new() == [("offered", "pi0"), ("offered", "pi0"), ("offered", "pi1")]
    nodes = {name: offer.step.node.name for name, offer in place.station.offers.items()}
    assert nodes == {"sdc": "pi0", "sdb": "pi1"}


def test_a_strangers_card_in_a_slot_the_rack_names_does_not_wait(place: Place) -> None:
    place.station.arrived(place.disk("sdb", FOREIGN))
    place.station.arrived(place.disk("sdc", FOREIGN, 0))
    place.station.arrived(place.disk("sdd", FOREIGN))
    offers = {name: (o.step.node.name, o.due) for name, o in place.station.offers.items()}
    assert offers == {"sdb": ("pi1", None), "sdc": ("pi0", 100.0 + SECONDS), "sdd": ("pi2", None)}


def test_a_card_that_is_put_in_again_is_judged_anew(place: Place) -> None:
    card = place.disk("sdb")
    place.station.arrived(card)
    place.station.arrived(replace(card, read_only=True))
    assert [word for word, _ in place.told.new()] == ["offered", "refused"]
    assert place.station.offers == {}


def test_a_card_too_many_that_cannot_be_written_any_more_has_no_turn(place: Place) -> None:
    disks = begun_for_all(place)
    spare = place.disk("sde")
    place.station.arrived(spare)
    place.station.arrived(replace(spare, read_only=True))
    place.told.new()
    place.crew.waiting.pop(0)
    place.station.ended(result_of(place.rack.nodes[0], disks[0], Outcome.FAULTY))
    assert place.told.new() == []


def test_a_card_too_many_that_was_taken_out_has_no_turn(place: Place) -> None:
    disks = begun_for_all(place)
    place.station.arrived(place.disk("sde"))
    place.station.gone("sde")
    place.told.new()
    place.crew.waiting.pop(0)
    place.station.ended(result_of(place.rack.nodes[0], disks[0], Outcome.FAULTY))
    assert place.told.new() == []


def test_cards_that_are_offered_or_waiting_are_for_different_nodes(place: Place) -> None:
    for name in ("sdb", "sdc"):
        place.station.arrived(place.disk(name))
    place.station.begin()
    place.station.arrived(place.disk("sdd"))
    place.station.arrived(place.disk("sde"))
    assert [word for word, _ in place.told.said] == ["offered"] * 3 + ["left"]
    place.station.begin()
    assert [node for node, _ in place.waiting()] == ["pi0", "pi1", "pi2"]


def test_a_card_that_is_taken_out_is_forgotten(place: Place) -> None:
    place.station.arrived(place.disk("sdb"))
    place.station.gone("sdb")
    place.station.gone("sdx")
    assert place.told.new() == [("offered", "pi0"), ("withdrawn", "pi0")]
    place.now += 2 * SECONDS
    place.station.look()
    assert place.waiting() == []
    place.station.arrived(place.disk("sdc"))
    assert place.told.new() == [("offered", "pi0")], "its node is free again"


def test_skipped_cards_are_left_alone(place: Place) -> None:
    place.station.arrived(place.disk("sdb"))
    place.station.skip()
    assert place.told.new()[1][0] == "left"
    place.station.begin()
    assert place.waiting() == []


def test_a_card_that_may_not_be_written_is_refused(place: Place) -> None:
    locked = replace(place.disk("sdb"), read_only=True)
    place.station.arrived(locked)
    ((word, why),) = place.told.new()
    assert word == "refused"
    assert why.startswith(locked.node)
    assert place.station.offers == {}


def begun_for_all(place: Place) -> list[Disk]:
    disks = [place.disk(f"sd{letter}") for letter in "bcd"]
    for disk in disks:
        place.station.arrived(disk)
    place.station.begin()
    place.told.new()
    return disks


def test_a_card_too_many_has_its_turn_when_another_one_fails(place: Place) -> None:
    disks = begun_for_all(place)
    place.station.arrived(place.disk("sde"))
    assert [word for word, _ in place.told.new()] == ["left"]
    place.crew.waiting.pop(0)
    place.station.ended(result_of(place.rack.nodes[0], disks[0], Outcome.FAULTY))
    assert place.told.new() == [("offered", "pi0")]
    assert [node.name for node in place.station.missing] == ["pi0", "pi1", "pi2"]


def test_a_card_too_many_has_its_turn_when_an_offered_one_is_taken_out_or_skipped(
    place: Place,
) -> None:
    """A card that is put in again, in another reader, may be heard of before it is gone."""
    for letter in "bcde":
        place.station.arrived(place.disk(f"sd{letter}"))
    assert [word for word, _ in place.told.new()] == ["offered"] * 3 + ["left"]
    place.station.gone("sdc")
    assert place.told.new() == [("withdrawn", "pi1"), ("offered", "pi1")]
    place.station.arrived(place.disk("sdf"))
    place.told.new()
    place.station.skip()
    assert [word for word, _ in place.told.new()] == ["left"] * 3 + ["offered"]


def test_a_card_too_many_is_told_once_and_again_when_it_was_out(place: Place) -> None:
    disks = begun_for_all(place)
    spare = place.disk("sde")
    place.station.arrived(spare)
    place.station.ended(result_of(place.rack.nodes[0], disks[0], Outcome.FAULTY))
    assert [word for word, _ in place.told.new()] == ["left"]
    place.station.gone("sde")
    place.station.arrived(spare)
    assert [word for word, _ in place.told.new()] == ["left"]


def test_it_is_over_when_every_node_has_its_card(place: Place) -> None:
    disks = begun_for_all(place)
    for node, disk in zip(place.rack.nodes, disks, strict=True):
        assert not place.station.is_over
        place.crew.waiting.pop(0)
        place.station.ended(result_of(node, disk, Outcome.VERIFIED))
    assert place.station.missing == ()
    assert place.station.is_over


def verified(place: Place, node: str) -> bytes:
    """A good card of ``node``, in the ledger; gives what it holds."""
    key = rack_key(place.rack)
    facts = replace(FACTS, node=node, image_id="12" * 32)
    stamp = encode_stamp(facts, MANIFEST, FILES, key.public, key.sign)
    done = CardFinished("", "", node, "", "", "verified", "", "", "", facts.image_id, "now", "")
    append(place.rack.folder, done)
    return bytes(STAMP_AREA.offset) + stamp


def test_a_node_that_has_its_card_is_not_missing_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wants(*words: Any) -> tuple[Want, ...]:
        """As if a card made now would be made from what the last one was."""
        return tuple(replace(want, recipe="now") for want in wants_of(*words))

    monkeypatch.setattr("imager.rack.batch.station.wants_of", wants)
    holds = verified(place, "pi1")
    place.station = place.started()
    assert [node.name for node in place.station.missing] == ["pi0", "pi2"]
    place.station.arrived(place.disk("sdb", holds))
    assert place.told.new() == [("left", "it is pi1's, and is done")]
    assert place.station.offers == {}


def test_again_makes_it_anew_and_only_once(place: Place) -> None:
    holds = verified(place, "pi1")
    place.station = place.started(again=True)
    assert len(place.station.missing) == 3
    card = place.disk("sdb", holds)
    place.station.arrived(card)
    assert place.told.new() == [("offered", "pi1")]
    place.station.begin()
    place.crew.waiting.clear()
    place.station.ended(result_of(place.rack.node("pi1"), card, Outcome.VERIFIED))
    place.station.arrived(card)
    assert ("offered", "pi1") not in place.told.new()


def test_loops_and_fixed_disks_are_no_cards(place: Place) -> None:
    changes: list[Callable[[Disk], Disk]] = [
        lambda disk: replace(disk, bus=Bus.LOOP, removable=False),
        lambda disk: replace(disk, bus=Bus.ATA, removable=False, size_bytes=GiB),
    ]
    for change in changes:
        place.station.arrived(change(place.disk("sdb")))
    assert place.told.new() == []


def test_a_card_of_another_computer_comes_and_goes_under_its_computer_s_name(place: Place) -> None:
    seen = SurveyedCard(
        TargetFacts("/dev/sdb", MiB, "usb"), "a card", Holds.BLANK, "blank", None, None, None
    )
    for computer in ("desk1", "desk2"):
        place.station.came(candidate_of(RemoteCard(computer, seen)))
    assert list(place.station.offers) == ["desk1:sdb", "desk2:sdb"]
    place.station.gone("desk1:sdb")
    assert list(place.station.offers) == ["desk2:sdb"]


def test_a_card_that_was_exchanged_at_another_computer_is_judged_anew(place: Place) -> None:
    """Also where nobody saw it go: the card before holds no node back."""
    seen = SurveyedCard(
        TargetFacts("/dev/sdb", MiB, "usb"), "a card", Holds.BLANK, "blank", None, None, None
    )
    for _ in range(2):
        place.station.came(candidate_of(RemoteCard("desk1", seen)))
        assert place.told.new() == [("offered", "pi0")]

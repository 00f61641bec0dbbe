"""A run is seen from outside while it works, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import HostStorage
from imager.base.units import MiB
from imager.card.host.target import Limits
from imager.config.rack import Node, Rack
from imager.node.edit.edit import OpenGolden
from imager.rack.batch.batch import flash
from imager.rack.batch.card_progress import CardEvent, Moment, Said
from imager.rack.batch.crew import CardJob, Orders
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.lock import batch_lock
from imager.rack.history.outcome import Outcome
from imager.rack.live import keeper
from imager.rack.live.keeper import kept_live
from imager.rack.live.snapshot import LiveRun, read_live
from imager.rack.plan.candidates import Holds
from imager.stations.head.remote import RemoteCard
from imager.stations.wire.survey import SurveyedCard
from tests.support.liverun import moment_at
from tests.support.memorycard import memory_card
from tests.support.racks import rack_in


class Shown:
    """A Watch that remembers what it was handed, and what others could see at each turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.seen: list[LiveRun | None] = []

    def began(self, job: Job) -> None:
        self.told.append(f"began {job.name}")

    def heard(self, job: Job, event: CardEvent) -> None:
        self.told.append(f"heard {job.name}")

    def ended(self, result: CardResult) -> None:
        self.told.append(f"ended {result.job.name}")

    def turn(self, crew: AtWork) -> None:
        self.seen.append(read_live(self.folder))


class Working:
    """Workers of which one card is at work."""

    at_work = ("pi1",)

    def moment(self, name: str) -> Moment | None:
        return moment_at(0.5)


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path, '[rack]\nnodes = "pi[0-2]"\nslots = "A[1-3]"\n')


@pytest.fixture
def jobs(rack: Rack) -> Iterator[list[CardJob]]:
    with ExitStack() as held:
        cards = [held.enter_context(memory_card(MiB)) for _ in rack.nodes]
        yield [
            CardJob(node, card, MiB, node.slot or "")
            for node, card in zip(rack.nodes, cards, strict=True)
        ]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_SECONDS", 0.0)


def test_each_card_is_seen_waiting_at_work_and_ended(rack: Rack, jobs: list[CardJob]) -> None:
    shown = Shown(rack.folder)
    facts = replace(jobs[2].target.facts, path="/dev/sdb")
    seen = SurveyedCard(facts, "a card", Holds.BLANK, "blank", None, None, None)
    jobs[2] = replace(jobs[2], target=RemoteCard("desk2", seen))
    with (
        batch_lock(rack.folder),
        kept_live(
            rack.folder,
            "rack flash",
            shown,
            jobs,
            wanting=lambda: ["pi1", "pi8", "pi9"],
            offers=lambda: ["A9: blank → pi9"],
        ) as watch,
    ):
        watch.began(jobs[1])
        watch.heard(jobs[1], Said("a note", warning=False))
        watch.heard(jobs[1], Said("no flock", warning=True))
        watch.turn(Working())
        error = HostStorage("no room", hint="make some")
        watch.ended(CardResult(jobs[1], Outcome.FAILED, 3.2, error=error))
        watch.turn(_Idle())
    first, second = shown.seen
    assert first is not None
    assert second is not None
    assert (first.command, first.cardless, first.said) == ("rack flash", 2, ("pi1: no flock",))
    assert first.offers == ("A9: blank → pi9",)
    assert [card.node for card in first.cards] == ["pi0", "pi1", "pi2"]
    assert first.cards[2].target == "desk2:/dev/sdb"
    assert [card.station for card in first.cards] == ["", "", "desk2"]
    assert [card.moment for card in first.cards] == [None, moment_at(0.5), None]
    assert first.cards[1].slot == "A2"
    ending = second.cards[1].ending
    assert ending is not None
    assert (ending.outcome, ending.seconds) == ("failed", 3)
    assert (ending.reason, ending.hint) == ("no room", "make some")
    assert second.cards[1].moment is None
    assert shown.told == ["began pi1", "heard pi1", "heard pi1", "ended pi1"]
    assert not (rack.folder / ".picloud/live.json").exists()


def test_a_card_that_nobody_expected_is_seen(rack: Rack, jobs: list[CardJob]) -> None:
    """As in rack watch; also one that ends before it is begun, after Ctrl-C."""
    shown = Shown(rack.folder)
    with batch_lock(rack.folder), kept_live(rack.folder, "rack watch", shown) as watch:
        watch.began(jobs[1])
        watch.turn(_Idle())
        watch.ended(CardResult(jobs[0], Outcome.INTERRUPTED))
        watch.turn(_Idle())
    first, second = shown.seen
    assert first is not None
    assert second is not None
    assert [card.node for card in first.cards] == ["pi1"]
    assert {card.node: card.is_good for card in second.cards} == {"pi1": None, "pi0": False}


def test_the_last_warnings_are_kept(rack: Rack, jobs: list[CardJob]) -> None:
    shown = Shown(rack.folder)
    with batch_lock(rack.folder), kept_live(rack.folder, "rack flash", shown, jobs) as watch:
        for number in range(21):
            watch.heard(jobs[0], Said(str(number), warning=True))
        watch.turn(_Idle())
    assert shown.seen[0] is not None
    assert shown.seen[0].said == tuple(f"pi0: {number}" for number in range(1, 21))


def test_what_is_said_of_many_nodes_is_one_warning(rack: Rack, jobs: list[CardJob]) -> None:
    shown = Shown(rack.folder)
    with batch_lock(rack.folder), kept_live(rack.folder, "rack flash", shown, jobs) as watch:
        for job in jobs:
            watch.heard(job, Said(f"nobody can log in to {job.name}: no keys", warning=True))
            watch.heard(job, Said(f"no flock on {job.target.node}", warning=True))
        watch.turn(_Idle())
        watch.heard(jobs[0], Said("nobody can log in to pi0: no keys", warning=True))
        watch.turn(_Idle())
    first, second = shown.seen
    assert first is not None
    assert second is not None
    *flocks, every = second.said
    assert every == "pi0: nobody can log in to pi0: no keys (the same of pi[1-2])"
    assert len(flocks) == 3
    assert {*first.said} == {*second.said}


def test_the_file_is_written_once_a_second(
    rack: Rack, jobs: list[CardJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, times, clock = Shown(rack.folder), [], [0.0]
    monkeypatch.setattr(keeper, "_SECONDS", 1.0)
    monkeypatch.setattr(keeper, "write_live", lambda *_: times.append(clock[0]))
    monkeypatch.setattr("imager.rack.live.keeper.time.monotonic", lambda: clock[0])
    with batch_lock(rack.folder), kept_live(rack.folder, "rack flash", shown, jobs) as watch:
        for now in (100.0, 100.5, 100.9, 101.0, 101.5, 102.0):
            clock[0] = now
            watch.turn(_Idle())
    assert times == [100.0, 101.0, 102.0]
    assert len(shown.seen) == 6


class _Idle:
    at_work = ()

    def moment(self, name: str) -> Moment | None:
        return None


def no_golden(node: Node) -> OpenGolden:
    raise HostStorage(f"no image for {node.name}", hint="free some space")


def test_a_batch_that_fails_leaves_nothing_behind(rack: Rack, jobs: list[CardJob]) -> None:
    shown = Shown(rack.folder)
    orders = Orders(rack, no_golden, Limits(), at_once=1)
    with batch_lock(rack.folder), kept_live(rack.folder, "rack flash", shown, jobs) as watch:
        results = flash(orders, jobs, watch)
    assert [result.outcome for result in results] == [Outcome.FAILED] * 3
    last = shown.seen[-1]
    assert last is not None
    assert [card.is_good for card in last.cards] == [False] * 3
    assert not (rack.folder / ".picloud/live.json").exists()


def test_a_disk_that_is_full_costs_no_card(
    rack: Rack, jobs: list[CardJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise HostStorage("live.json: No space left on device", hint="free some space")

    monkeypatch.setattr(keeper, "write_live", full)
    shown = Shown(rack.folder)
    with batch_lock(rack.folder), kept_live(rack.folder, "rack flash", shown, jobs) as watch:
        watch.began(jobs[1])
        watch.turn(Working())
    assert shown.seen == [None]

"""The cards of many stations in one batch, whatever the stations say or do not say.

A station is what a test lets it say; tests/device and tests/salt have real ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imager.base.errors import HostStorage, Interrupted, NetworkError, PicloudError
from imager.base.json_fields import JsonObject
from imager.base.programs import tool_version
from imager.base.progress import Progress
from imager.base.units import MiB
from imager.card.host.target import Limits, TargetFacts
from imager.config.rack import Rack
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest
from imager.image.compose.golden import GoldenImage
from imager.image.compose.ingredients import Ingredients
from imager.node.keys.signing import rack_key
from imager.rack.batch.card_progress import CardEvent, Moment, PhaseBegan, Said
from imager.rack.batch.crew import Orders
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Holds
from imager.release.verified import VerifiedRelease
from imager.stations.head import asking as head_asking
from imager.stations.head import crew as head_crew
from imager.stations.head.crew import StationCrew
from imager.stations.head.prepare import Prepared
from imager.stations.head.remote import RemoteCard, RemoteJob
from imager.stations.wire.bus import Document, StationAnswer, StationSaid
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.made_of import made_of, made_of_in
from imager.stations.wire.order import CardWork
from imager.stations.wire.report import (
    CardReport,
    NodeMoment,
    StationProgress,
    Told,
)
from imager.stations.wire.reports import AtDesk, Reports
from imager.stations.wire.survey import Survey, SurveyedCard
from tests.support.liverun import moment_at
from tests.support.rackhistory import receipt_of
from tests.support.racks import rack_in
from tests.support.scriptbus import ScriptBus

SHA, IMAGE = "c" * 64, "ab" * 32
PATIENCE_SECONDS = 60.0
BATCH = "b"
LAYOUT = Layout(16 * MiB, Extent(MiB, 8 * MiB), Extent(9 * MiB, 7 * MiB))
GOLDEN = GoldenImage(
    Path("golden"),
    "5" * 32,
    "made-up",
    "6" * 64,
    ("pi2",),
    LAYOUT,
    Manifest(16 * MiB, ExtentMap([Extent(0, 4096)]), (b"1" * 32,)),
    {},
    made_of=Ingredients(
        VerifiedRelease("made-up", ("pi2",), "6" * 64, Path("r"), 5, "F" * 40, "http://x", "now"),
        None,
        None,
    ),
)


class Seen:
    """A Watch that remembers."""

    def __init__(self) -> None:
        self.began_: list[str] = []
        self.events: list[tuple[str, CardEvent]] = []
        self.results: dict[str, CardResult] = {}
        self.turns = 0

    def began(self, job: Job) -> None:
        self.began_.append(job.name)

    def heard(self, job: Job, event: CardEvent) -> None:
        self.events.append((job.name, event))

    def ended(self, result: CardResult) -> None:
        assert result.job.name not in self.results
        self.results[result.job.name] = result

    def turn(self, crew: AtWork) -> None:
        self.turns += 1


class Head:
    """A crew over ``desk1``, which has the golden image, and ``desk2``, which has none."""

    def __init__(self, rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rack, self.bus, self.seen = rack, ScriptBus(), Seen()
        self.key = rack_key(rack).public.hex()
        self.published: list[str] = []
        self.failing: dict[str, PicloudError] = {}
        self.ready, self.reporting = True, False
        wanted = wanted_golden(GOLDEN)
        self.surveys = {
            name: Survey(tool_version(), 0.0, 0, goldens, (), ())
            for name, goldens in (("desk1", {wanted.key: wanted.digest}), ("desk2", {}))
        }
        self.orders = Orders(
            rack,
            lambda _: cast(Any, SimpleNamespace(image=GOLDEN)),
            Limits(max_size_bytes=2**38),
            batch=BATCH,
            at_once=2,
            update=False,
        )
        monkeypatch.setattr(head_crew, "prepare", self._prepare)
        monkeypatch.setattr(head_asking, "_LEAST_SECONDS", 0.0)
        self.crew = StationCrew(self.orders, self.seen, self.bus, self.surveys, self._publish)
        self.bus.answers = {name: self.answer(()) for name in ("desk1", "desk2")}

    def _publish(self, golden: GoldenImage) -> None:
        self.published.append(golden.key)

    def _prepare(
        self, job: RemoteJob, golden: object, rack: Rack, secret: str, progress: Progress
    ) -> Prepared:
        progress.note(f"preparing {job.name}")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ready and time.monotonic() < deadline:
            time.sleep(0.002)
            if self.reporting:
                with progress.phase("prepare"):
                    pass
        if job.name in self.failing:
            raise self.failing[job.name]
        path = job.target.seen.facts.path
        work = CardWork(job.name, "pi2", path, job.slot, MiB, 7, None, IMAGE, SHA, secret)
        return Prepared(job, work, f"keys of {job.name}".encode())

    def job(self, node: str, station: str) -> RemoteJob:
        number = node[-1]
        facts = TargetFacts(f"/dev/sd{number}", MiB, "usb", model="SD", serial=f"s{number}")
        facts = replace(facts, diskseq=7)
        seen = SurveyedCard(facts, "a card", Holds.BLANK, "blank", f"A{number}", None, None)
        return RemoteJob(self.rack.node(node), RemoteCard(station, seen), f"A{number}")

    def add(self, **stations: str) -> None:
        self.crew.add([self.job(node, station) for node, station in stations.items()])

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            self.crew.turn(0.005)
            assert time.monotonic() < deadline, (self.crew.at_work, self.bus.asked[-3:])

    def ordered(self, **stations: str) -> None:
        """Add the cards, and go on until every station has its orders."""
        self.add(**stations)
        self.until(lambda: len(self.bus.begun) == len(set(stations.values())))

    def answer(
        self,
        reports: tuple[CardReport, ...],
        *,
        making: tuple[AtDesk, ...] = (),
        over: tuple[str, ...] = (),
    ) -> StationAnswer:
        return StationAnswer(Reports(reports, (), making, over, 0.0).to_json())

    def report(self, node: str, **changes: Any) -> CardReport:
        receipt = receipt_of(node, 1)
        report = CardReport(
            f"b.1+{node}", BATCH, node, f"/dev/sd{node[-1]}", f"A{node[-1]}", Outcome.VERIFIED,
            "", "", (), 2.5, SHA, "d" * 64, receipt,
        )  # fmt: skip
        return replace(report, **changes)

    def gives(self, station: str, *reports: CardReport) -> None:
        """The station has these reports until the head says that it has them."""

        def answer(asked: Any) -> StationAnswer:
            return self.answer(tuple(one for one in reports if one.name not in asked["done"]))

        self.bus.answers[station] = answer

    def say(self, station: str, job: str, **said: Any) -> None:
        document = {"event": "progress"} | StationProgress(job, **said).to_json()
        self.bus.saying.append(StationSaid(station, document))

    def actions(self, action: str) -> list[str]:
        return [station for station, asked, _ in self.bus.asked if asked == action]


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n')
    found = Head(rack, monkeypatch)
    try:
        yield found
    finally:
        found.ready = True
        found.crew.close()


def test_the_cards_of_a_station_are_ordered_together_once_the_ledger_knows(head: Head) -> None:
    known: dict[str, list[str]] = {}

    def beginning(station: str) -> None:
        ledger = read_ledger(head.rack.folder)
        states = [ledger.state_of(f"pi{n}").begun for n in range(4)]
        known[station] = [one.node for one in states if one and one.station == station]

    head.bus.beginning = beginning
    before = time.time()
    head.ordered(pi0="desk1", pi2="desk2", pi1="desk1")
    assert known == {"desk1": ["pi0", "pi1"], "desk2": ["pi2"]}
    assert sorted(head.crew.at_work) == ["pi0", "pi1", "pi2"]
    assert head.crew.is_busy
    assert head.seen.began_ == ["pi0", "pi1", "pi2"]
    orders = {
        station: (action, dict(order), names) for station, action, order, names in head.bus.begun
    }
    action, order, secrets = orders["desk1"]
    assert action == "work"
    assert secrets == ("b.1+pi0", "b.1+pi1")
    assert (order["job"], order["batch"], order["rack"]) == ("b.1", BATCH, head.key)
    assert (order["version"], order["at_once"]) == (tool_version(), 2)
    assert (order["update"], order["probe"]) == (False, True)
    assert order["max_size_bytes"] == 2**38
    assert before <= cast(float, order["at"]) <= time.time()
    cards = cast(list[dict[str, object]], order["cards"])
    assert [card["node"] for card in cards] == ["pi0", "pi1"]
    assert orders["desk2"][1]["job"] == "b.2"
    assert head.bus.handed["desk1", "b.1+pi0"] == b"keys of pi0"
    assert head.published == [GOLDEN.key], "desk1 has it"
    begun = read_ledger(head.rack.folder).state_of("pi0").begun
    assert begun is not None
    assert (begun.target, begun.slot, begun.batch) == ("desk1:/dev/sd0", "A0", BATCH)
    assert (begun.card_size_bytes, begun.model, begun.serial, begun.diskseq) == (MiB, "SD", "s0", 7)
    assert ("pi0", Said("preparing pi0", warning=False)) in head.seen.events


def test_who_can_make_the_image_is_sent_none_until_it_says_that_it_cannot(head: Head) -> None:
    desk2 = head.surveys["desk2"]
    head.surveys["desk2"] = replace(desk2, makes=(GOLDEN.key,))
    head.ordered(pi2="desk2")
    head.surveys["desk2"] = desk2  # as rack watch learns when it asks again
    head.add(pi3="desk2")
    head.until(lambda: len(head.bus.begun) == 2)
    first, second = (order for _, _, order, _ in head.bus.begun)
    assert made_of_in(JsonObject(first)) == made_of(GOLDEN)
    assert second["made_of"] is None
    assert head.published == [GOLDEN.key], "for the second"


def test_each_card_that_is_reported_is_a_result(head: Head) -> None:
    head.ordered(pi0="desk1", pi1="desk1", pi2="desk2")
    faulty = head.report(
        "pi1", outcome=Outcome.FAULTY, reason="it flips bits", hint="throw it away",
        details=("byte 7",), receipt=None,
    )  # fmt: skip
    head.gives("desk1", head.report("pi0"), faulty)
    head.say("desk1", "b.1", ended=("pi0",))
    head.until(lambda: {"pi0", "pi1"} <= head.seen.results.keys())
    good, bad = (head.seen.results[name] for name in ("pi0", "pi1"))
    assert (good.outcome, good.seconds, good.receipt) == (
        Outcome.VERIFIED,
        2.5,
        receipt_of("pi0", 1),
    )
    assert (head.rack.receipts.path / good.receipt_name).exists()
    assert good.error is None
    assert (bad.outcome, bad.receipt_name) == (Outcome.FAULTY, "")
    assert bad.error is not None
    assert (bad.error.what, bad.error.hint) == ("desk1: it flips bits", "throw it away")
    assert bad.error.details == ("byte 7",)
    assert head.crew.at_work == ("pi2",)
    assert {result.job.name for result in head.crew.results} == {"pi0", "pi1"}
    last = read_ledger(head.rack.folder).state_of("pi0").last
    assert last is not None
    assert last.is_verified
    head.gives("desk2", replace(head.report("pi2"), name="b.2+pi2"))
    head.say("desk2", "b.2", ended=("pi2",))
    head.until(lambda: not head.crew.is_busy)
    assert head.seen.turns > 1


def test_a_card_with_another_image_than_was_ordered_is_not_good(head: Head) -> None:
    head.ordered(pi0="desk1")
    receipt = receipt_of("pi0", 1)
    other = replace(receipt, image=replace(receipt.image, image_id="f" * 64))
    head.gives("desk1", head.report("pi0", receipt=other))
    head.say("desk1", "b.1", ended=("pi0",))
    head.until(lambda: not head.crew.is_busy)
    result = head.seen.results["pi0"]
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert "which was not ordered" in result.error.what


def test_what_a_station_says_is_shown_of_its_own_cards(head: Head) -> None:
    head.ordered(pi0="desk1", pi2="desk2")
    there = moment_at(0.5)
    event = PhaseBegan("write", 5)
    head.say(
        "desk2", "b.1", moments=(NodeMoment("pi0", moment_at(0.9)),), told=(Told("pi0", event),)
    )
    head.say("desk3", "b.1", moments=(NodeMoment("pi0", moment_at(0.9)),))
    head.say("desk1", "b.9", moments=(NodeMoment("pi0", moment_at(0.9)),))
    head.bus.saying.append(StationSaid("desk1", {"event": "progress", "job": 7}))
    head.say(
        "desk1",
        "b.1",
        moments=(NodeMoment("pi0", there), NodeMoment("pi2", moment_at(0.9))),
        told=(Told("pi2", event),),
    )
    head.until(lambda: head.crew.moment("pi0") == there)
    assert ("pi0", event) not in head.seen.events
    assert head.crew.moment("pi2") == Moment("", 0, None, 0.0, 0, 0)
    assert head.crew.moment("pi3") is None
    head.say("desk1", "b.1", told=(Told("pi0", event),))
    head.until(lambda: ("pi0", event) in head.seen.events)
    assert ("pi2", event) not in head.seen.events
    head.until(lambda: ("desk1", "b.1+pi0") in head.bus.taken)
    assert list(head.bus.handed) == [("desk2", "b.2+pi2")], "that one may not have read it yet"


def test_a_card_whose_report_cannot_be_taken_is_unknown_and_holds_up_no_other(head: Head) -> None:
    """Its job is over, and it was not never begun."""
    head.ordered(pi0="desk1", pi1="desk1")
    answer = head.answer((head.report("pi1"),), over=("b.1",)).document
    assert answer is not None
    head.bus.answers["desk1"] = StationAnswer({**answer, "unreadable": {"b.1+pi0": "no JSON"}})
    head.say("desk1", "b.1", ended=("pi0", "pi1"))
    head.until(lambda: not head.crew.is_busy)
    assert head.seen.results["pi1"].outcome is Outcome.VERIFIED
    result = head.seen.results["pi0"]
    assert result.outcome is Outcome.UNKNOWN
    assert result.error is not None
    assert result.error.what == "desk1: its report cannot be taken: no JSON"
    assert read_ledger(head.rack.folder).state_of("pi0").begun is not None


def test_a_station_that_fell_silent_is_asked_to_speak_anew(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom its program told of its cards may be gone. One that never spoke has no such program."""
    monkeypatch.setattr(head_crew, "FOLLOW_SECONDS", 0.05)
    head.ordered(pi0="desk1", pi2="desk2")
    head.say("desk1", "b.1", moments=(NodeMoment("pi0", moment_at(0.5)),))
    head.until(lambda: len(head.bus.begun) >= 4)
    asked = {(station, *order.values()) for station, what, order, _ in head.bus.begun[2:]}
    assert {what for _, what, _, _ in head.bus.begun[2:]} == {"follow"}
    assert asked == {("desk1", BATCH)}
    head.say("desk1", "b.1", ended=("pi0",))
    head.gives("desk1", head.report("pi0"))
    head.until(lambda: "pi0" in head.seen.results)
    head.until(lambda: head.crew._lines["desk1"]._following.done())  # type: ignore[union-attr]
    count = len(head.bus.begun)
    for _ in range(30):
        head.crew.turn(0.005)
    assert len(head.bus.begun) == count, "it has nothing more to say"


def test_an_order_that_a_station_refuses_fails_with_its_reason(head: Head) -> None:
    head.ordered(pi0="desk1", pi1="desk1")
    head.bus.answers["desk1"] = head.answer((), making=(AtDesk(BATCH, "pi1", ""),))
    head.say("desk1", "b.1", fault="no room", hint="make some")
    head.until(lambda: "pi0" in head.seen.results)
    error = head.seen.results["pi0"].error
    assert head.seen.results["pi0"].outcome is Outcome.FAILED
    assert error is not None
    assert (error.what, error.hint) == ("desk1: no room", "make some")
    assert head.crew.at_work == ("pi1",), "it says that this one is being made"
    state = read_ledger(head.rack.folder).state_of("pi0")
    assert state.begun is None
    assert state.last is not None
    assert (state.last.outcome, state.last.reason) == ("failed", "desk1: no room")
    head.bus.answers["desk1"] = head.answer((), making=(AtDesk("other", "pi1", ""),))
    head.until(lambda: not head.crew.is_busy)


def test_a_job_that_is_over_without_a_report_was_never_begun(head: Head) -> None:
    head.ordered(pi0="desk1", pi2="desk2")
    head.bus.answers["desk1"] = head.answer((), over=("b.1",))
    head.bus.saying.append(StationSaid("desk1", {"event": "ended"}))
    head.until(lambda: "pi0" in head.seen.results)
    error = head.seen.results["pi0"].error
    assert error is not None
    assert error.what == "desk1 never began it"
    assert error.hint == "run the same command again for the rest"
    assert head.crew.at_work == ("pi2",)


def test_an_order_that_was_lost_is_taken_back_after_a_while(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was not begun, and if the station says that it will not be."""
    head.ordered(pi0="desk1")
    head.ordered(pi2="desk1")
    head.say("desk1", "b.2", moments=(NodeMoment("pi2", moment_at(0.5)),))
    closed: list[object] = []

    def answer(asked: Any) -> StationAnswer:
        closed[:] = asked["closed"]
        document = head.answer(()).document
        assert document is not None
        return StationAnswer({**document, "closed": list(closed)})

    head.bus.answers["desk1"] = answer
    head.bus.saying.append(StationSaid("desk1", {"event": "ended"}))
    head.until(lambda: len(head.actions("reports")) > 0)
    assert (closed, head.crew.at_work) == ([], ("pi0", "pi2"))
    monkeypatch.setattr(head_asking, "LOST_SECONDS", 0.0)
    head.bus.saying.append(StationSaid("desk1", {"event": "ended"}))
    head.until(lambda: "pi0" in head.seen.results)
    assert closed == ["b.1"], "of the other one it spoke"
    error = head.seen.results["pi0"].error
    assert error is not None
    assert error.what == "desk1 never began it"
    assert head.crew.at_work == ("pi2",)


def test_an_order_that_takes_long_to_be_handed_over_is_not_lost(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden image is published before; only then anything is told to the station."""
    monkeypatch.setattr(head_crew, "LATEST_SECONDS", 0.0)
    monkeypatch.setattr(head_asking, "LOST_SECONDS", 0.0)
    published = threading.Event()
    monkeypatch.setattr(head.crew, "_publish", lambda _: published.wait(PATIENCE_SECONDS))
    head.add(pi0="desk2")
    head.until(
        lambda: bool(head.crew._lines) and bool(head.crew._ordered(head.crew._lines["desk2"]))
    )
    head.bus.saying.append(StationSaid("desk2", {"event": "ended"}))
    head.until(lambda: "desk2" in head.actions("reports"))
    for _ in range(10):
        head.crew.turn(0.005)
    assert head.crew.at_work == ("pi0",)
    published.set()
    head.until(lambda: len(head.bus.begun) == 1)


def test_what_was_told_before_a_program_ended_is_not_all(head: Head) -> None:
    head.ordered(pi0="desk1")
    asked, go_on = threading.Event(), threading.Event()

    def answer(_: Document) -> StationAnswer:
        if asked.is_set():
            return head.answer((head.report("pi0"),))
        asked.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return head.answer(())

    head.bus.answers["desk1"] = answer
    head.bus.saying.append(StationSaid("desk1", {"event": "missed"}))
    head.until(asked.is_set)
    head.bus.saying.append(StationSaid("desk1", {"event": "ended", "job": "b.1", "fault": "-9"}))
    head.until(lambda: not head.bus.saying)
    go_on.set()
    head.until(lambda: "pi0" in head.seen.results)
    assert head.seen.results["pi0"].outcome is Outcome.VERIFIED


def test_a_program_that_ended_begins_nothing_any_more(head: Head) -> None:
    head.ordered(pi0="desk1", pi2="desk2")
    ended = {"event": "ended", "job": "b.1", "fault": "it ended with -9"}
    head.bus.saying.append(StationSaid("desk2", ended))
    head.until(lambda: "desk2" in head.actions("reports"))
    head.bus.saying.append(StationSaid("desk1", {"event": "missed"}))
    asked = head.actions("reports").count("desk1")
    head.until(lambda: head.actions("reports").count("desk1") > asked)
    assert head.seen.results == {}, "what another one says of it counts for nothing"
    head.bus.saying.append(StationSaid("desk1", ended))
    head.until(lambda: "pi0" in head.seen.results)
    error = head.seen.results["pi0"].error
    assert error is not None
    assert error.what == "desk1 never began it: it ended with -9"
    assert head.crew.at_work == ("pi2",)


def test_an_order_is_not_begun_any_more_when_it_is_old(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    head.ordered(pi0="desk1")
    head.bus.saying.append(StationSaid("desk1", {"event": "ended"}))
    head.until(lambda: "desk1" in head.actions("reports"))
    assert head.crew.is_busy, "it may begin it still"
    monkeypatch.setattr(head_crew, "LATEST_SECONDS", 0.0)
    head.bus.saying.append(StationSaid("desk1", {"event": "ended"}))
    head.until(lambda: not head.crew.is_busy)
    error = head.seen.results["pi0"].error
    assert error is not None
    assert error.what == "desk1 never began it"


@pytest.mark.parametrize("batch", ["other", BATCH])
def test_only_reports_of_this_batch_are_results_of_it(head: Head, batch: str) -> None:
    head.ordered(pi0="desk1")
    head.gives("desk1", head.report("pi0", batch=batch), head.report("pi3"))
    head.say("desk1", "b.1", ended=("pi0",))
    head.until(lambda: len(head.actions("reports")) >= 2)
    if batch == BATCH:
        head.until(lambda: not head.crew.is_busy)
        assert set(head.seen.results) == {"pi0"}
    else:
        head.crew.turn(0.02)
        assert head.crew.at_work == ("pi0",)


def test_a_card_that_cannot_be_prepared_costs_no_other(head: Head) -> None:
    head.failing = {"pi0": HostStorage("full", hint="make room")}
    head.ordered(pi0="desk1", pi1="desk1")
    assert head.seen.results["pi0"].outcome is Outcome.FAILED
    assert head.seen.results["pi0"].error is head.failing["pi0"]
    assert head.crew.at_work == ("pi1",)
    assert head.bus.begun[0][3] == ("b.1+pi1",)
    assert read_ledger(head.rack.folder).state_of("pi0").begun is None


def test_a_station_whose_cards_cannot_be_prepared_gets_no_order(head: Head) -> None:
    head.failing = {"pi0": HostStorage("full", hint="make room")}
    head.add(pi0="desk1")
    head.until(lambda: not head.crew.is_busy)
    assert not head.bus.begun


def test_what_could_not_be_handed_over_was_not_begun(head: Head) -> None:
    head.bus.broken = {"hand"}
    head.add(pi0="desk1")
    head.until(lambda: not head.crew.is_busy)
    result = head.seen.results["pi0"]
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert (result.error.what, result.error.hint) == ("hand fails", "wait")
    state = read_ledger(head.rack.folder).state_of("pi0")
    assert state.last is not None
    assert state.last.reason == "hand fails"


def test_an_order_that_may_have_arrived_is_asked_for(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_asking, "QUIET_SECONDS", 0.05)
    head.bus.broken = {"begin"}
    head.gives("desk1", head.report("pi0"))
    head.add(pi0="desk1")
    head.until(lambda: not head.crew.is_busy)
    assert head.seen.results["pi0"].outcome is Outcome.VERIFIED


def test_a_station_that_does_not_answer_is_given_up_at_last(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_asking, "QUIET_SECONDS", 0.01)
    head.ordered(pi0="desk1")
    head.bus.answers["desk1"] = StationAnswer(fault="it does not answer")
    head.until(lambda: len(head.actions("reports")) >= 3)
    assert head.crew.is_busy
    monkeypatch.setattr(head_crew, "GIVE_UP_SECONDS", 0.05)
    head.until(lambda: not head.crew.is_busy)
    result = head.seen.results["pi0"]
    assert result.outcome is Outcome.UNKNOWN
    assert isinstance(result.error, NetworkError)
    assert "it does not answer" in result.error.what
    assert "look at the card in desk1's slot A0" in result.error.hint
    assert read_ledger(head.rack.folder).state_of("pi0").begun is not None


def test_a_person_who_stops_waits_less_for_a_station_that_does_not_answer(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_asking, "QUIET_SECONDS", 0.01)
    head.ordered(pi0="desk1")
    head.bus.answers["desk1"] = StationAnswer(fault="it does not answer")
    head.crew.stop()
    head.until(lambda: len(head.actions("reports")) >= 3)
    assert head.crew.is_busy
    monkeypatch.setattr(head_crew, "STOPPED_SECONDS", 0.05)
    head.until(lambda: not head.crew.is_busy)
    assert head.seen.results["pi0"].outcome is Outcome.UNKNOWN


def test_a_station_is_asked_for_its_reports_only_where_something_is_to_be_had(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    head.ordered(pi0="desk1")
    head.say("desk1", "b.1", moments=(NodeMoment("pi0", moment_at(0.1)),))
    head.until(lambda: head.crew.moment("pi0") == moment_at(0.1))
    for _ in range(5):
        head.crew.turn(0.005)
    assert head.actions("reports") == []
    monkeypatch.setattr(head_asking, "QUIET_SECONDS", 0.05)
    head.until(lambda: head.actions("reports") == ["desk1"])


def test_a_station_that_has_ended_nothing_is_asked_once(head: Head) -> None:
    head.ordered(pi0="desk1")
    head.say("desk1", "b.1", ended=("pi0",))
    head.until(lambda: bool(head.actions("reports")))
    for _ in range(10):
        head.crew.turn(0.005)
    assert head.actions("reports") == ["desk1"]


def test_reports_are_not_asked_for_in_a_rush(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_asking, "_LEAST_SECONDS", 60.0)
    head.ordered(pi0="desk1")
    for _ in range(5):
        head.say("desk1", "b.1", ended=("pi0",))
        head.crew.turn(0.005)
    assert head.actions("reports") == []


def test_to_stop_is_said_to_every_station_once(head: Head) -> None:
    head.ordered(pi0="desk1", pi2="desk2")
    head.crew.stop()
    head.crew.stop()
    head.until(lambda: len(head.actions("stop")) == 2)
    head.crew.close()
    stops = [(station, asked) for station, action, asked in head.bus.asked if action == "stop"]
    assert sorted(stops) == [("desk1", {"batch": BATCH}), ("desk2", {"batch": BATCH})]


def test_what_is_not_ordered_yet_is_not_begun_after_a_stop(head: Head) -> None:
    head.ready = False
    head.add(pi0="desk1")
    head.crew.turn(0.01)
    assert head.crew.is_busy
    head.crew.stop()
    head.ready = True
    head.until(lambda: not head.crew.is_busy)
    result = head.seen.results["pi0"]
    assert result.outcome is Outcome.INTERRUPTED
    assert isinstance(result.error, Interrupted)
    assert result.error.what == "pi0: not begun"
    assert not head.bus.begun


def test_what_waits_for_its_image_to_be_readable_is_not_ordered_after_a_stop(head: Head) -> None:
    laying_out, stopped = threading.Event(), threading.Event()

    def publish(golden: GoldenImage) -> None:
        laying_out.set()
        assert stopped.wait(PATIENCE_SECONDS)

    head.crew._publish = publish
    head.add(pi2="desk2")
    head.until(laying_out.is_set)
    head.crew.stop()
    stopped.set()
    head.until(lambda: not head.crew.is_busy)
    assert not head.bus.begun
    error = head.seen.results["pi2"].error
    assert error is not None
    assert (error.what, error.hint) == ("not begun", "run the same command again for the rest")
    assert read_ledger(head.rack.folder).state_of("pi2").begun is None


def test_a_master_that_was_away_is_told_for_each_card_and_reports_still_come(head: Head) -> None:
    head.ordered(pi0="desk1", pi1="desk1")
    head.bus.broken.add("heard")
    head.crew.turn(0.005)
    deaf = Said("the master was started anew; how its card ended is asked for", warning=True)
    assert [one for one in head.seen.events if one[1] == deaf] == [("pi0", deaf), ("pi1", deaf)]
    head.gives("desk1", head.report("pi0"), head.report("pi1"))
    head.say("desk1", "b.1", ended=("pi0", "pi1"))
    head.until(lambda: not head.crew.is_busy)


def test_nothing_that_was_handed_over_is_left(head: Head) -> None:
    head.ordered(pi0="desk1", pi2="desk2")
    assert len(head.bus.handed) == 2
    head.crew.close()
    assert head.bus.handed == {}
    with pytest.raises(RuntimeError, match="shutdown"):
        head.crew._preparers.submit(print)


def test_what_is_being_prepared_at_the_end_is_not_waited_for(head: Head) -> None:
    head.ready, head.reporting = False, True
    head.add(pi0="desk1")
    head.until(lambda: len(head.seen.events) > 1)
    before = time.monotonic()
    head.crew.close()
    assert time.monotonic() - before < PATIENCE_SECONDS / 2


def test_what_is_being_handed_over_at_the_end_is_waited_for_and_taken_back(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, begun, go_on = head.bus.hand, threading.Event(), threading.Event()

    def slowly(station: str, name: str, secret: bytes) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        hand(station, name, secret)

    monkeypatch.setattr(head.bus, "hand", slowly)
    head.add(pi0="desk1")
    head.until(begun.is_set)
    threading.Timer(0.1, go_on.set).start()
    head.crew.close()
    assert head.bus.handed == {}
    assert head.bus.taken == [("desk1", "b.1+pi0")]


def test_a_master_that_is_away_at_the_end_ends_nothing_badly(head: Head) -> None:
    head.ordered(pi0="desk1")
    head.bus.broken = {"take_back"}
    head.crew.close()


def test_no_card_has_a_moment_left_when_it_has_ended(head: Head) -> None:
    head.ordered(pi0="desk1")
    head.say("desk1", "b.1", moments=(NodeMoment("pi0", moment_at(0.1)),))
    head.until(lambda: head.crew.moment("pi0") == moment_at(0.1))
    head.gives("desk1", head.report("pi0"))
    head.say("desk1", "b.1", ended=("pi0",))
    head.until(lambda: not head.crew.is_busy)
    assert head.crew.moment("pi0") is None

"""What became of cards on stations comes into the ledger, each once, and nothing else does."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imager.card.receipt.receipt import ReceiptResult
from imager.card.receipt.store import all_receipts, by_disk_id, find_receipt, load_receipt
from imager.config.rack import Rack
from imager.node.keys.signing import rack_key
from imager.rack.history.events import Assigned, CardFinished, Standing
from imager.rack.history.ledger import append, read_ledger
from imager.rack.history.outcome import Outcome
from imager.stations.head.collect import LATEST_SECONDS, Collected, collect
from imager.stations.head.earlier import collect_earlier
from imager.stations.wire.bus import StationAnswer
from imager.stations.wire.report import CardReport
from imager.stations.wire.reports import AtDesk, Reports
from tests.support.rackhistory import receipt_of
from tests.support.racks import rack_in
from tests.support.scriptbus import ScriptBus

LONG_AGO = "2026-01-01T00:00:00.000Z"
SHA, IMAGE = "c" * 64, "ab" * 32
ORDERED, RELEASE = "12" * 32, "34" * 32


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"desk1": StationAnswer(fault="no answer")}, "no answer"),
        ({}, "the master is away"),
        ({"desk1": StationAnswer({"reports": 7})}, "its reports cannot be understood"),
    ],
)
def test_a_station_that_does_not_say_is_named_where_a_card_hangs_on_it(
    tmp_path: Path, answers: dict[str, StationAnswer], why: str
) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-2]"\n')
    rack_key(rack)
    assert not collect_earlier(rack, ScriptBus(dict(answers)), ["desk1"]).untold
    append(
        tmp_path, Assigned(LONG_AGO, "b", "pi1", "desk1:/dev/sdb", "", 0, "", "", "", 0, "desk1")
    )
    found = collect_earlier(rack, ScriptBus(dict(answers)), ["desk1"])
    assert not (found.settled or found.making)
    assert found.untold["desk1"].startswith(why)
    assert read_ledger(tmp_path).state_of("pi1").begun is not None


def test_a_card_of_which_a_station_knows_nothing_was_never_begun(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-2]"\n')
    rack_key(rack)
    append(
        tmp_path, Assigned(LONG_AGO, "b", "pi1", "desk1:/dev/sdb", "", 0, "", "", "", 0, "desk1")
    )
    answer = StationAnswer(Reports((), (), (), (), 0.0).to_json())
    assert not collect_earlier(rack, ScriptBus({"desk1": answer}), ["desk1"]).untold
    state = read_ledger(tmp_path).state_of("pi1")
    assert state.begun is None
    assert state.last is not None
    assert (state.last.outcome, state.last.reason) == (
        "interrupted",
        "desk1 never began this card",
    )


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    found = rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n')
    rack_key(found)
    return found


def begun(
    rack: Rack,
    node: str,
    station: str = "desk1",
    at: str = LONG_AGO,
    batch: str = "b",
    image: str = IMAGE,
) -> None:
    target = f"{station}:/dev/sdb"
    its = (image, ORDERED, RELEASE) if image else ()
    append(rack.folder, Assigned(at, batch, node, target, "A1", 0, "", "", "", 0, station, *its))


def report(node: str, **changes: Any) -> CardReport:
    found = CardReport(
        f"b.1+{node}", "b", node, "/dev/sdb", "A1", Outcome.VERIFIED, "", "", (), 2.5, SHA,
        "d" * 64, receipt_of(node, 1),
    )  # fmt: skip
    return replace(found, **changes)


def faulty_of(node: str, **changes: Any) -> CardReport:
    receipt = receipt_of(node, 1, result=ReceiptResult.FAULTY)
    reason = "it flips bits"
    return report(node, outcome=Outcome.FAULTY, reason=reason, receipt=receipt, **changes)


def collect_one(rack: Rack, bus: ScriptBus) -> Collected:
    return collect(rack, bus, ["desk1"])["desk1"]


class Station:
    """Gives two reports at a time, until the head says that it has them."""

    def __init__(self, *reports: CardReport, most: int = 2, **said: Any) -> None:
        self.reports, self.most, self.said = list(reports), most, said
        self.asked: list[Any] = []

    def __call__(self, asked: Any) -> StationAnswer:
        self.asked.append(dict(asked))
        self.reports = [one for one in self.reports if one.name not in asked["done"]]
        found = Reports(tuple(self.reports[: self.most]), (), (), (), 5.0)
        return StationAnswer(replace(found, **self.said).to_json())


def last(rack: Rack, node: str) -> CardFinished:
    found = read_ledger(rack.folder).state_of(node).last
    assert found is not None
    return found


def test_every_report_is_taken_and_forgotten_there(rack: Rack) -> None:
    for number in range(3):
        begun(rack, f"pi{number}")
    there = Station(
        report("pi0"),
        faulty_of("pi1", hint="throw it away"),
        report("pi2", outcome=Outcome.IO_ERROR, reason="gone", hint="look", receipt=None),
        making=(AtDesk("b", "pi3", ""),),
        over=("b.1",),
    )
    found = collect_one(rack, ScriptBus({"desk1": there}))
    assert [one.report.node for one in found.settled] == ["pi0", "pi1", "pi2"]
    assert (found.making, found.over, found.since) == ((AtDesk("b", "pi3", ""),), ("b.1",), 5.0)
    assert found.fault == ""
    assert there.reports == []
    assert [len(asked["done"]) for asked in there.asked] == [0, 2, 1]
    assert there.asked[0]["rack"] == rack_key(rack).public.hex()
    good, faulty, gone = (last(rack, f"pi{n}") for n in range(3))
    assert good.is_verified
    assert (good.image_id, good.recipe, good.release_sha256) == (IMAGE, ORDERED, RELEASE)
    assert (good.target, good.slot, good.batch) == ("desk1:/dev/sdb", "A1", "b")
    receipt = load_receipt(rack.receipts.path / good.receipt)
    assert receipt.target.path == f"desk1:{receipt_of('pi0', 1).target.path}"
    assert found.settled[0].receipt_name == good.receipt
    assert (faulty.outcome, faulty.reason, faulty.hint) == (
        "faulty",
        "it flips bits",
        "throw it away",
    )
    assert faulty.image_id == "", "it is not good"
    assert faulty.receipt
    assert (gone.outcome, gone.receipt, found.settled[2].receipt_name) == ("io-error", "", "")


def test_a_station_s_receipt_is_kept_and_proves_nothing(rack: Rack) -> None:
    begun(rack, "pi0")
    collect_one(rack, ScriptBus({"desk1": Station(report("pi0"))}))
    ((_, kept),) = all_receipts(rack.receipts)
    assert kept.node == "pi0"
    assert find_receipt(rack.receipts, by_disk_id(kept.image.disk_id)) is None


def test_many_stations_are_asked_together(rack: Rack) -> None:
    """And each is told of nothing but what it gave itself: desk3 gives one in desk4's name."""
    rack = rack_in(rack.folder, '[rack]\nnodes = "pi[0-39]"\n')
    desks: dict[str, Station] = {}
    for number in range(40):
        node, desk = f"pi{number}", f"desk{number % 20}"
        begun(rack, node, desk)
        desks.setdefault(desk, Station()).reports.append(report(node))
    desks["desk3"].reports.append(desks["desk4"].reports[0])
    bus = ScriptBus({**desks, "desk5": StationAnswer(fault="silent")})
    found = collect(rack, bus, list(desks))
    assert found["desk5"].fault == "silent"
    assert {desk for desk, one in found.items() if len(one.settled) != 2} == {"desk5"}
    assert {desk for desk, station in desks.items() if station.reports} == {"desk5"}
    assert bus.questions == 7, "twice each eight, and desk3 has three"
    for desk, station in desks.items():
        told = {int(name[6:]) % 20 for asked in station.asked for name in asked["done"]}
        assert told <= ({3, 4} if desk == "desk3" else {int(desk[4:])})


def test_a_station_that_never_forgets_is_not_asked_for_ever(rack: Rack) -> None:
    begun(rack, "pi0")
    stubborn = ScriptBus(
        {"desk1": StationAnswer(Reports((report("pi0"),), (), (), (), 0.0).to_json())}
    )
    found = collect_one(rack, stubborn)
    assert len(stubborn.asked) == 2, "the second time it has nothing new"
    assert len(found.settled) == 1, "it is in the ledger once"


def test_a_station_that_always_has_another_one_is_not_asked_for_ever(rack: Rack) -> None:
    count = iter(range(1000))

    def endless(_: Any) -> StationAnswer:
        another = report("pi0", name=f"b.{next(count)}+pi0")
        return StationAnswer(Reports((another,), (), (), (), 0.0).to_json())

    collect_one(rack, ScriptBus({"desk1": endless}))
    assert next(count) == 100


@pytest.mark.parametrize("how", ["no report", "no pieces", "unreadable there"])
def test_a_report_that_cannot_be_taken_holds_up_no_other(rack: Rack, how: str) -> None:
    """It is named, left aside and not taken for a card that was never begun."""
    for number in range(3):
        begun(rack, f"pi{number}")
    names = [f"b.1+pi{number}" for number in range(3)]
    left = {name: report(f"pi{n}").to_json() for n, name in enumerate(names)}

    def answer(asked: Any) -> StationAnswer:
        for name in asked["done"]:
            del left[name]
        if "large" in asked:
            return StationAnswer({"piece": "eA=="})
        document = Reports((), (), (), ("b.1",), 0.0).to_json()
        if how == "no report" and names[0] not in asked["aside"]:
            # It has no room for another one beside it.
            return StationAnswer(document | {"reports": [left[names[0]] | {"seconds": "long"}]})
        if how == "no pieces":
            document["large"] = [names[0]]
        elif how == "unreadable there":
            document["unreadable"] = {names[0]: "it is not of this version"}
        document["reports"] = [it for name, it in left.items() if name != names[0]][:1]
        return StationAnswer(document)

    bus = ScriptBus({"desk1": answer})
    found = collect_earlier(rack, bus, ["desk1"])
    assert [one.report.node for one in found.settled] == ["pi1", "pi2"]
    assert found.untold == {}
    ((node, why),) = found.untaken.items()
    assert node == "pi0"
    assert why.startswith("desk1: ")
    assert list(left) == [names[0]], "it stays there"
    ledger = read_ledger(rack.folder)
    assert ledger.state_of("pi0").standing() is Standing.UNKNOWN
    assert all(ledger.state_of(n).standing() is Standing.VERIFIED for n in ("pi1", "pi2"))
    assert sum("large" in asked for _, _, asked in bus.asked) == (how == "no pieces")


def test_what_nobody_waits_for_is_forgotten_whatever_it_is(rack: Rack) -> None:
    there = Station(unreadable={"b.1+pi0": "why", "b.2+pi1": "why"}, large=("b.1+pi2",))
    bus = ScriptBus({"desk1": there})
    found = collect_one(rack, bus)
    assert (found.untaken, found.fault) == ({}, "")
    assert [sorted(asked["done"]) for asked in there.asked] == [
        [],
        ["b.1+pi0", "b.1+pi2", "b.2+pi1"],
    ]
    assert not any("large" in asked for asked in there.asked), "nor is it fetched"


def test_a_large_report_that_does_not_come_is_asked_for_the_next_time(rack: Rack) -> None:
    for number in range(2):
        begun(rack, f"pi{number}")
    there = Station(report("pi1"), large=("b.1+pi0",))

    def answer(asked: Any) -> StationAnswer:
        return StationAnswer(fault="too slow") if "large" in asked else there(asked)

    found = collect_one(rack, ScriptBus({"desk1": answer}))
    assert [one.report.node for one in found.settled] == ["pi1"]
    assert (found.untaken, found.fault) == ({}, "too slow")


def test_a_rack_without_a_key_has_no_reports_anywhere(tmp_path: Path) -> None:
    bus = ScriptBus({"desk1": Station()})
    assert collect_one(rack_in(tmp_path, '[rack]\nnodes = "pi0"\n'), bus).settled == ()
    assert bus.asked == []


@pytest.mark.parametrize(
    ("station", "batch"), [("desk2", "b"), ("desk1", "earlier"), ("", "b"), (None, None)]
)
def test_only_what_the_ledger_says_was_begun_there_counts(
    rack: Rack, station: str | None, batch: str | None
) -> None:
    if station is not None and batch is not None:
        begun(rack, "pi0", station, batch=batch)
    before = read_ledger(rack.folder).events
    there = Station(report("pi0"))
    assert collect_one(rack, ScriptBus({"desk1": there})).settled == ()
    assert read_ledger(rack.folder).events == before
    assert there.reports == []


@pytest.mark.parametrize(
    ("image", "outcome"),
    [(IMAGE, Outcome.VERIFIED), ("", Outcome.VERIFIED), ("f" * 64, Outcome.FAILED)],
)
def test_a_card_that_holds_another_image_than_was_ordered_is_not_good(
    rack: Rack, image: str, outcome: Outcome
) -> None:
    """The ledger has what was ordered, so it counts in the next run too, whatever became of this
    one. A line of an older version has not, and the report says what the card was made of."""
    begun(rack, "pi0", image=image)
    begun(rack, "pi1", image="e" * 64)
    there = ScriptBus({"desk1": Station(report("pi0"))})
    (one,) = collect_earlier(rack, there, ["desk1"]).settled
    assert one.report.outcome is outcome
    end = last(rack, "pi0")
    assert end.outcome == outcome
    its = (end.recipe, end.release_sha256)
    assert its == ((ORDERED, RELEASE) if image else (SHA, "d" * 64))
    if outcome is Outcome.FAILED:
        assert "abababababab…, which was not ordered; ffffffffffff… was" in one.report.reason
        assert (one.report.receipt, one.receipt_name, end.image_id) == (None, "", "")


def test_nothing_that_comes_later_hides_behind_a_station_s_clock(rack: Rack) -> None:
    """The newest of ledger and receipts counts."""
    begun(rack, "pi0")
    receipt = replace(receipt_of("pi0", 1), finished_at="2099-01-01T00:00:00.000Z")
    (one,) = collect_one(
        rack, ScriptBus({"desk1": Station(report("pi0", receipt=receipt))})
    ).settled
    assert one.receipt_name.startswith("20") and not one.receipt_name.startswith("2099")
    assert load_receipt(rack.receipts.path / one.receipt_name).finished_at <= last(rack, "pi0").at


def test_a_card_that_failed_has_no_image_to_be_held_against(rack: Rack) -> None:
    begun(rack, "pi0", image="f" * 64)
    faulty = faulty_of("pi0")
    bus = ScriptBus({"desk1": Station(faulty)})
    (one,) = collect_one(rack, bus).settled
    assert one.report == faulty


def test_what_was_given_before_a_fault_is_kept(rack: Rack) -> None:
    begun(rack, "pi0")
    there = Station(report("pi0"))

    def answer(asked: Any) -> StationAnswer:
        return StationAnswer(fault="it is gone") if asked["done"] else there(asked)

    found = collect_one(rack, ScriptBus({"desk1": answer}))
    assert len(found.settled) == 1
    assert found.fault == "it is gone"


def test_what_is_left_of_earlier_runs(rack: Rack) -> None:
    for number, station in enumerate(("desk1", "desk1", "desk2", "desk3")):
        begun(rack, f"pi{number}", station)
    making = AtDesk("b", "pi1", "A1")
    bus = ScriptBus(
        {
            "desk1": Station(report("pi0"), making=(making,), since=0.0),
            "desk2": StationAnswer(fault="silent"),
        }
    )
    found = collect_earlier(rack, bus, ["desk1", "desk2"])
    assert [one.report.node for one in found.settled] == ["pi0"]
    assert found.making == {"pi1": making}
    assert found.untold == {"desk2": "silent"}
    ledger = read_ledger(rack.folder)
    left = [n for n in range(4) if ledger.state_of(f"pi{n}").begun is not None]
    assert left == [1, 2, 3], "being made, not told, and of a station that was not named"


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("seconds", "since", "ended"),
    [
        (LATEST_SECONDS + 20, 0.0, True),
        (LATEST_SECONDS - 20, 0.0, False),
        (LATEST_SECONDS + 20, 9e10, False),
    ],
)
def test_when_a_card_was_never_begun(rack: Rack, seconds: float, since: float, ended: bool) -> None:
    """Not while its order may still arrive, nor where the station was made anew since then."""
    begun(rack, "pi0", at=ago(seconds))
    collect_earlier(rack, ScriptBus({"desk1": Station(since=since)}), ["desk1"])
    state = read_ledger(rack.folder).state_of("pi0")
    assert (state.begun is None) is ended
    assert LATEST_SECONDS == 420


def test_a_card_of_a_run_that_is_over_is_known_at_once_to_have_never_been_begun(rack: Rack) -> None:
    """Where the station says that it begins nothing of that run any more."""
    begun(rack, "pi0", at=ago(5), batch="b")
    begun(rack, "pi1", at=ago(5), batch="c")
    begun(rack, "pi2", "desk2", at=ago(5), batch="d")
    begun(rack, "pi3", at=ago(5), batch="e")
    there = Station(closed=("b", "e"), making=(AtDesk("e", "pi3", ""),))
    older = Station()
    collect_earlier(rack, ScriptBus({"desk1": there, "desk2": older}), ["desk1", "desk2"])
    assert there.asked[0]["closed"] == ["b", "c", "e"]
    assert older.asked[0]["closed"] == ["d"]
    ledger = read_ledger(rack.folder)
    assert [ledger.state_of(f"pi{n}").begun is None for n in range(4)] == [
        True,
        False,
        False,
        False,
    ]
    assert last(rack, "pi0").reason == "desk1 never began this card"


def test_a_station_that_remembers_nothing_of_it_does_not_say_that_it_never_began(
    rack: Rack,
) -> None:
    begun(rack, "pi0", at=ago(5))
    there = Station(closed=("b",), since=9e10)
    collect_earlier(rack, ScriptBus({"desk1": there}), ["desk1"])
    assert read_ledger(rack.folder).state_of("pi0").begun is not None


def test_a_line_without_a_time_ends_nothing(rack: Rack) -> None:
    begun(rack, "pi0", at="yesterday")
    collect_earlier(rack, ScriptBus({"desk1": Station(since=1.0)}), ["desk1"])
    assert read_ledger(rack.folder).state_of("pi0").begun is not None

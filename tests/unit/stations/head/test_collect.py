"""What earlier runs left on stations: where a station does not say, and where it says much."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import NetworkError
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.target import TargetFacts
from imager.node.keys.signing import rack_key
from imager.rack.history.ledger import Assigned, Standing, append, read_ledger
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Holds
from imager.stations.desk.records import Records, report_on
from imager.stations.head.collect import collect, collect_earlier
from imager.stations.head.remote import RemoteCard, RemoteJob
from imager.stations.head.results import unknown
from imager.stations.wire.bus import Document, StationAnswer, StationSaid
from imager.stations.wire.reports import Reports
from imager.stations.wire.survey import SurveyedCard
from tests.support.racks import rack_in
from tests.support.starter import run_command
from tests.unit.stations.wire.test_documents import ORDER, WORK, report_of

LONG_AGO = "2026-01-01T00:00:00.000Z"


class Telephone:
    """A bus by which stations only answer."""

    def __init__(self, answers: Mapping[str, StationAnswer]) -> None:
        self.answers = answers

    def ask(
        self, stations: Sequence[str], action: str, arguments: Document, *, seconds: float
    ) -> Mapping[str, StationAnswer]:
        if not set(stations) <= set(self.answers):
            raise NetworkError("the master is away", hint="wait")
        return {name: self.answers[name] for name in stations}

    def begin(
        self, station: str, action: str, arguments: Document, secrets: Sequence[str] = ()
    ) -> None:
        raise AssertionError

    def heard(self, seconds: float) -> Sequence[StationSaid]:
        raise AssertionError

    def hand(self, station: str, name: str, secret: bytes) -> None:
        raise AssertionError

    def take_back(self, station: str, name: str) -> None:
        raise AssertionError

    def publish(self, name: str, folder: Path) -> None:
        raise AssertionError


class Desk1(Telephone):
    """A station whose program answers, with its reports in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__({})
        self.folder = folder
        self.asked: list[Document] = []

    def ask(
        self, stations: Sequence[str], action: str, arguments: Document, *, seconds: float
    ) -> Mapping[str, StationAnswer]:
        self.asked.append(arguments)
        code, out, err = run_command(
            ["--json", "station", action],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PICLOUD_STATION": str(self.folder)},
            stdin=json.dumps(dict(arguments)) + "\n\n",
            seconds=seconds,
        )
        assert code == 0, out + err
        return {"desk1": StationAnswer(json.loads(out.splitlines()[-1]))}


@pytest.mark.skipif(os.geteuid() != 0, reason="a station's key is root's")
def test_a_report_that_is_too_large_for_an_answer_is_collected_too(tmp_path: Path) -> None:
    rack = rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-2]"\n')
    key = rack_key(rack).public.hex()
    works = [replace(WORK, node=f"pi{n}", path=f"/dev/sd{n}", secret=f"s{n}") for n in range(2)]
    order = replace(ORDER, rack=key, at=time.time(), cards=tuple(works))
    records = Records(TrustedFolder(tmp_path / "station"))
    with records.doing(order):
        for work, mib in zip(works, (10, 8000), strict=True):
            begun = Assigned(LONG_AGO, "b", work.node, "desk1:x", "", 0, "", "", "", 0, "desk1")
            append(rack.folder, begun)
            written = report_of(mib).receipt
            assert written is not None
            receipt = replace(written, node=work.node)
            report = report_on(order, work, Outcome.VERIFIED, None, receipt=receipt)
            records.ended(order, work, report)
    desk = Desk1(tmp_path / "station")
    found = collect(rack, desk, "desk1")
    assert not found.fault
    assert [one.report.node for one in found.settled] == ["pi0", "pi1"]
    ledger = read_ledger(rack.folder)
    assert all(ledger.state_of(node).standing() is Standing.VERIFIED for node in ("pi0", "pi1"))
    assert [asked.get("large") for asked in desk.asked] == [None, "b.1+pi1", None]
    assert not list((tmp_path / "station/work").glob("*.json")), "the station may forget both"


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
    assert not collect_earlier(rack, Telephone(answers), ["desk1"]).untold
    append(
        tmp_path, Assigned(LONG_AGO, "b", "pi1", "desk1:/dev/sdb", "", 0, "", "", "", 0, "desk1")
    )
    found = collect_earlier(rack, Telephone(answers), ["desk1"])
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
    assert not collect_earlier(rack, Telephone({"desk1": answer}), ["desk1"]).untold
    state = read_ledger(tmp_path).state_of("pi1")
    assert state.begun is None
    assert state.last is not None
    assert (state.last.outcome, state.last.reason) == (
        "interrupted",
        "desk1 never began this card",
    )


@pytest.mark.parametrize("slot", ["A1", ""])
def test_the_person_and_the_ledger_are_told_the_same_reader(tmp_path: Path, slot: str) -> None:
    node = rack_in(tmp_path, '[rack]\nnodes = "pi1"\n').nodes[0]
    facts = TargetFacts("/dev/sdb", 8 << 30, "usb")
    seen = SurveyedCard(facts, "a card", Holds.BLANK, "blank", None, None, None)
    job = RemoteJob(node, RemoteCard("desk2", seen), slot)
    begun = Assigned(LONG_AGO, "b", "pi1", job.target.node, slot, 1, "", "", "", 0, station="desk2")
    error = unknown(job, "no answer").error
    assert error is not None
    assert f"look at the card in {begun.where}; " in error.hint
    assert begun.where == ("desk2's slot A1" if slot else "desk2's /dev/sdb")

"""What earlier runs left on stations, where a station does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from imager.base.errors import NetworkError
from imager.card.host.target import TargetFacts
from imager.node.keys.signing import rack_key
from imager.rack.history.ledger import Assigned, append, read_ledger
from imager.rack.plan.candidates import Holds
from imager.stations.head.collect import collect_earlier
from imager.stations.head.remote import RemoteCard, RemoteJob
from imager.stations.head.results import unknown
from imager.stations.wire.bus import Document, StationAnswer, StationSaid
from imager.stations.wire.report import Reports
from imager.stations.wire.survey import SurveyedCard
from tests.support.racks import rack_in

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
    answer = StationAnswer(Reports((), (), (), 0.0).to_json())
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

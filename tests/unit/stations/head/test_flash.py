"""A batch over stations from its begin to its end: in the ledger, and as golden images are handed
out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imager.base.cache import Cache
from imager.base.errors import NetworkError
from imager.config.rack import Rack
from imager.image.compose.golden import GoldenImage
from imager.rack.batch.workers import CardResult
from imager.rack.history.events import BatchBegun, BatchEnded
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from imager.stations.head import asking as head_asking
from imager.stations.head import crew as head_crew
from imager.stations.head.flash import Head as FlashHead
from imager.stations.head.flash import flash_on_stations
from imager.stations.wire.golden import published_name, wanted_golden
from tests.support.deskcard import ordered_card
from tests.support.racks import rack_in
from tests.unit.stations.head.test_crew import Head


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    return ordered_card(tmp_path_factory.mktemp("golden")).golden


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[0-3]"\n')


@pytest.fixture
def head(rack: Rack, monkeypatch: pytest.MonkeyPatch, golden: GoldenImage) -> Head:
    found = Head(rack, monkeypatch)
    of = cast(Any, SimpleNamespace(image=golden))
    found.orders = replace(found.orders, golden_of=lambda _: of, batch="")
    found.crew.close()
    return found


def flashed(head: Head, folder: Path, **stations: str) -> tuple[CardResult, ...]:
    jobs = [head.job(node, station) for node, station in stations.items()]
    there = FlashHead(head.bus, head.surveys, Cache(folder / "cache"))
    return flash_on_stations(head.orders, jobs, head.seen, there)


def ends_well(head: Head) -> Callable[[str], None]:
    """Each station has made its cards as soon as it was told to."""

    def beginning(station: str) -> None:
        state = read_ledger(head.rack.folder)
        begun = [one for n in range(4) if (one := state.state_of(f"pi{n}").begun)]
        reports = [
            head.report(one.node, batch=one.batch) for one in begun if one.station == station
        ]
        head.gives(station, *reports)
        for job in (f"{begun[0].batch}.{number}" for number in (1, 2)):
            head.say(station, job, ended=tuple(report.node for report in reports))

    return beginning


def test_a_batch_over_two_stations(
    head: Head, golden: GoldenImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: dict[str, list[str]] = {}

    def publish(name: str, folder: Path) -> None:
        assert name not in listed, "each once in a batch"
        listed[name] = sorted(path.name for path in folder.iterdir())
        head.bus.published[name] = folder

    monkeypatch.setattr(head.bus, "publish", publish)
    head.bus.beginning = ends_well(head)
    results = flashed(head, tmp_path, pi2="desk2", pi0="desk1", pi1="desk1")
    assert [result.job.name for result in results] == ["pi2", "pi0", "pi1"]
    assert {result.outcome for result in results} == {Outcome.VERIFIED}
    events = read_ledger(head.rack.folder).events
    begun, ended = events[0], events[-1]
    assert isinstance(begun, BatchBegun)
    assert isinstance(ended, BatchEnded)
    assert (begun.nodes, ended.exit_code) == (("pi2", "pi0", "pi1"), 0)
    assert ended.batch == begun.batch
    name = published_name(wanted_golden(golden))
    assert listed[name][0] == "0000"
    assert listed[name][-1] == "golden.json"
    assert not head.bus.published[name].exists(), "it is gone when the batch has ended"
    assert head.bus.handed == {}
    assert head.actions("stop") == []


def test_a_golden_image_that_was_not_handed_out_is_handed_to_the_next_station(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def publish(name: str, folder: Path) -> None:
        tried.append(name)
        if len(tried) == 1:
            raise NetworkError("the master was away", hint="")
        head.bus.published[name] = folder

    monkeypatch.setattr(head.bus, "publish", publish)
    head.bus.beginning = ends_well(head)
    results = flashed(head, tmp_path, pi2="desk2", pi0="desk1")
    assert sorted(result.outcome for result in results) == [Outcome.FAILED, Outcome.VERIFIED]
    assert len(tried) == 2


def test_a_signal_stops_the_stations(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_asking, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(head_crew, "STOPPED_SECONDS", 0.0)
    stopped: list[str] = []

    def answer(asked: Any) -> Any:
        if "batch" in asked:
            stopped.append(asked["batch"])
        report = head.report("pi0", outcome=Outcome.INTERRUPTED, reason="stopped", receipt=None)
        batch = str(head.bus.begun[0][2]["batch"]) if head.bus.begun else ""
        ended = (replace(report, batch=batch),) if stopped and not asked.get("done") else ()
        return head.answer(ended)

    head.bus.answers["desk1"] = answer
    head.bus.beginning = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    (result,) = flashed(head, tmp_path, pi0="desk1")
    assert result.outcome is Outcome.INTERRUPTED
    assert len(stopped) == 1
    ended = read_ledger(head.rack.folder).events[-1]
    assert isinstance(ended, BatchEnded)
    assert ended.exit_code == 130

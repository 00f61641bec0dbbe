"""Cards are saved side by side: one that fails or is stopped costs no other, the ledger has all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from imager.base.errors import CardIOError, MissingTool
from imager.base.units import MiB
from imager.card.host.targets import target_at
from imager.card.medium.raw import RawCard
from imager.card.save.card_map import CardMap, map_card
from imager.card.save.saved_file import SavedFile
from imager.rack.batch.card_progress import CardEvent, Moment
from imager.rack.batch.limiter import Limiter
from imager.rack.batch.savers import SaveJob, SaveOrders, Savers, save
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.events import CardSaved
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome


class Watching:
    """A Watch that stops the ``savers``, if there are any, when a card is begun."""

    savers: Savers | None = None

    def __init__(self) -> None:
        self.last: dict[str, Moment] = {}

    def began(self, job: Job) -> None:
        if self.savers:
            self.savers.stop()

    def heard(self, job: Job, event: CardEvent) -> None:
        pass

    def ended(self, result: CardResult) -> None:
        pass

    def turn(self, crew: AtWork) -> None:
        self.last |= {name: now for name in ("pi1", "pi2") if (now := crew.moment(name))}


@pytest.fixture
def jobs(tmp_path: Path) -> list[SaveJob]:
    """Two cards of no known kind, so that all of each is read."""
    (tmp_path / "saves").mkdir()
    made = []
    for name, suffix in (("pi1", ".img.zst"), ("pi2", ".img")):
        card = tmp_path / f"{name}.img"
        card.write_bytes(os.urandom(MiB))
        files = SavedFile(tmp_path / "saves" / f"{name}{suffix}")
        made.append(SaveJob(name, target_at(card), files, "A1", image_id="ab"))
    return made


def saved_in(rack: Path) -> dict[str, CardSaved]:
    events = read_ledger(rack).events
    return {event.node: event for event in events if isinstance(event, CardSaved)}


def test_each_card_is_in_its_file_and_in_the_ledger(jobs: list[SaveJob], tmp_path: Path) -> None:
    watch = Watching()
    results = save(SaveOrders(tmp_path), jobs, watch)
    for name, times in (("pi1", 2), ("pi2", 1)):  # the first one is packed as well
        assert watch.last[name].moved_bytes == watch.last[name].expected_bytes == times * MiB
    assert [result.outcome for result in results] == [Outcome.SAVED, Outcome.SAVED]
    assert jobs[1].files.path.read_bytes() == (tmp_path / "pi2.img").read_bytes()
    told = saved_in(tmp_path)
    for result in results:
        assert result.saved is not None
        event = told[result.job.name]
        assert event.is_whole and event.map_sha256 == result.saved.map_sha256
        assert (event.file, event.image_id) == (str(result.saved.files.path), "ab")


def test_how_fast_the_cards_are_is_looked_at_while_they_are_made(
    jobs: list[SaveJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no more than the first few on a port would ever be made at a time."""
    looked: list[float] = []
    monkeypatch.setattr(Limiter, "look", lambda _, now: looked.append(now))
    began = time.monotonic()
    save(SaveOrders(tmp_path), jobs, Watching())
    assert looked == sorted(looked)
    assert began <= looked[0] <= looked[-1] <= time.monotonic()


@pytest.mark.parametrize(("logical_bytes", "wanted"), [(4096, 4096), (0, 512)])
def test_a_card_is_read_in_sectors_as_large_as_its_reader_says(
    jobs: list[SaveJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logical_bytes: int,
    wanted: int,
) -> None:
    facts = SimpleNamespace(logical_bytes=logical_bytes)
    sectors: list[int] = []

    def mapped(raw: RawCard, *, sector_bytes: int) -> CardMap:
        sectors.append(sector_bytes)
        return map_card(raw)

    monkeypatch.setattr("imager.rack.batch.savers.at_rest", lambda *_: SimpleNamespace(facts=facts))
    monkeypatch.setattr("imager.rack.batch.savers.map_card", mapped)
    save(SaveOrders(tmp_path), jobs[1:], Watching())
    assert sectors == [wanted]


def test_a_card_that_cannot_be_packed_is_not_begun(
    jobs: list[SaveJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.base.run.find_tool", lambda _: None)
    (result,) = save(SaveOrders(tmp_path), jobs[:1], Watching())
    assert isinstance(result.error, MissingTool), result.error
    assert not jobs[0].files.partial.exists()


def test_a_card_of_which_something_is_lost_has_failed(
    jobs: list[SaveJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = CardIOError("512 bytes were lost", hint="see its map")
    saved = SimpleNamespace(error=lambda: lost)
    monkeypatch.setattr(Savers, "_saved", lambda *_: saved)
    (result,) = save(SaveOrders(tmp_path), jobs[1:], Watching())
    assert (result.outcome, result.error) == (Outcome.IO_ERROR, lost)
    event = saved_in(tmp_path)["pi2"]
    assert (event.outcome, event.reason) == ("io-error", "512 bytes were lost")


def test_a_card_that_is_gone_costs_no_other(jobs: list[SaveJob], tmp_path: Path) -> None:
    (tmp_path / "pi1.img").unlink()
    first, second = save(SaveOrders(tmp_path), jobs, Watching())
    assert (first.outcome, second.outcome) == (Outcome.REFUSED, Outcome.SAVED)
    event = saved_in(tmp_path)["pi1"]
    assert not event.is_whole
    assert first.error is not None and event.reason == first.error.what


def test_a_card_that_is_stopped_is_saved_by_the_next_run(
    jobs: list[SaveJob], tmp_path: Path
) -> None:
    watch = Watching()
    savers = watch.savers = Savers(SaveOrders(tmp_path), watch)
    savers.add(jobs[0])
    while savers.is_busy:
        savers.turn()
    savers.close()
    (result,) = savers.results
    assert result.outcome is Outcome.INTERRUPTED
    assert result.error is not None and "what was read of it is kept" in result.error.what
    assert saved_in(tmp_path)["pi1"].outcome == "interrupted"
    assert not jobs[0].files.path.exists()
    (again,) = save(SaveOrders(tmp_path), jobs[:1], Watching())
    assert again.outcome is Outcome.SAVED
    assert saved_in(tmp_path)["pi1"].is_whole

"""An order is worked off, whatever is wrong with it; tests/device has cards that are made."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import (
    ConfigurationError,
    HostStorage,
    NotAuthentic,
    PicloudError,
    TargetRefused,
)
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.disks import disk_named
from imager.rack.batch.card_progress import Moment, Said
from imager.rack.batch.workers import CardResult
from imager.rack.history.outcome import Outcome
from imager.stations.desk import work as desk_work
from imager.stations.desk.desk import Desk
from imager.stations.desk.golden import _Fetching
from imager.stations.desk.records import Records
from imager.stations.desk.work import DeskJob, work
from imager.stations.wire.golden import lay_out_pieces
from imager.stations.wire.order import WorkOrder
from imager.stations.wire.report import CardReport, StationProgress
from tests.support.deskcard import Ordered, ordered_card
from tests.support.goldens import alter
from tests.support.liverun import moment_at
from tests.support.smallcard import LAYOUT
from tests.support.sysfs import FakeHost


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Ordered:
    return ordered_card(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def pieces(ordered: Ordered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    lay_out_pieces(ordered.golden, folder)
    return folder


class Place:
    """A station with one card in a reader: files, which no engine takes for a disk."""

    def __init__(self, folder: Path, pieces: Path) -> None:
        self.host = FakeHost(folder / "host")
        self.host.disk("sdb", "8:16", gib=96 / 1024, diskseq="7")
        self.said: list[StationProgress] = []
        self.pieces, self.folder = pieces, folder
        self.brought: list[str] = []
        records = Records(TrustedFolder(folder / "station"))
        self.desk = Desk(
            records, Cache(folder / "cache"), self.bring, self.said.append, self.host.kernel
        )

    def bring(self, name: str) -> Path:
        self.brought.append(name)
        path = self.folder / name
        shutil.copyfile(self.pieces / name, path)
        return path

    def reports(self, order: WorkOrder) -> tuple[CardReport, ...]:
        return self.desk.records.hand_over(order.rack, ()).reports


@pytest.fixture
def place(tmp_path: Path, pieces: Path) -> Place:
    return Place(tmp_path, pieces)


def order_for(place: Place, ordered: Ordered, **changes: object) -> WorkOrder:
    """The order, for the reader that ``place`` has."""
    card = replace(ordered.card, path=str(place.host.root / "dev/sdb"))
    return replace(ordered.order, cards=(replace(card, **changes),))  # type: ignore[arg-type]


def test_a_card_for_which_nothing_was_handed_over(place: Place, ordered: Ordered) -> None:
    order = order_for(place, ordered)
    (result,) = work(place.desk, order, {"another": b""})
    assert isinstance(result.error, NotAuthentic)
    assert result.error.what == "the head handed nothing over for pi7"
    (report,) = place.reports(order)
    assert (report.node, report.slot, report.outcome) == ("pi7", "A1", Outcome.FAILED)
    assert report.reason == result.error.what
    assert place.said[-1].ended == ("pi7",)


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        ({"diskseq": 8}, ("medium count (diskseq): 8 then, 7 now",)),
        ({"diskseq": 0}, ("medium count (diskseq): 0 then, 7 now",)),
    ],
)
def test_a_card_that_was_exchanged_is_refused_and_its_secret_is_gone(
    place: Place, ordered: Ordered, changes: dict[str, object], details: tuple[str, ...]
) -> None:
    order = order_for(place, ordered, **changes)
    secrets = {ordered.card.secret: ordered.packed}
    (result,) = work(place.desk, order, secrets)
    assert isinstance(result.error, TargetRefused), result.error
    assert "is no longer the disk that was confirmed" in result.error.what
    assert result.error.details == details
    assert secrets == {}
    assert place.reports(order)[0].outcome is Outcome.REFUSED
    assert result.job.slot == "A1"


def test_a_card_of_another_size_is_refused(place: Place, ordered: Ordered) -> None:
    place.host.write("sys/class/block/sdb/size", f"{97 * 2048}\n")
    (result,) = work(place.desk, order_for(place, ordered), {ordered.card.secret: ordered.packed})
    assert result.error is not None
    assert result.error.details == (f"size in bytes: {96 * MiB} then, {97 * MiB} now",)


def test_a_reader_that_counts_no_media_has_none_exchanged(place: Place, ordered: Ordered) -> None:
    """Then what the first MiB holds tells, once the card is claimed."""
    (place.host.root / "sys/class/block/sdb/diskseq").unlink()
    order = order_for(place, ordered, diskseq=0)
    (result,) = work(place.desk, order, {ordered.card.secret: ordered.packed})
    assert result.error is not None
    assert "is no longer the disk" not in result.error.what, "a file is no disk"


def test_an_image_that_would_not_boot_is_told_before_the_card_is_looked_at(
    place: Place, tmp_path: Path
) -> None:
    broken = ordered_card(tmp_path / "broken", boot={"start.elf": b"cut"})
    pieces = tmp_path / "broken-pieces"
    pieces.mkdir()
    lay_out_pieces(broken.golden, pieces)
    place.pieces = pieces
    order = order_for(place, broken, diskseq=8)
    (result,) = work(place.desk, order, {broken.card.secret: broken.packed})
    assert result.outcome is Outcome.WOULD_NOT_BOOT
    assert result.error is not None
    assert "pi7 would not boot" in result.error.what


def test_what_a_stop_kept_from_beginning_is_told_too(place: Place, ordered: Ordered) -> None:
    first = order_for(place, ordered).cards[0]
    second = replace(first, node="pi8", path=f"{first.path}8", secret="b.1+pi8")
    order = replace(ordered.order, cards=(first, second), at_once=1)

    def tell(progress: StationProgress) -> None:
        place.said.append(progress)
        place.desk.records.stop("b")

    results = work(replace(place.desk, tell=tell), order, {})
    assert [result.outcome for result in results] == [Outcome.FAILED, Outcome.INTERRUPTED]
    assert {name for progress in place.said for name in progress.ended} == {"pi7", "pi8"}
    assert [report.outcome for report in place.reports(order)] == [
        Outcome.FAILED,
        Outcome.INTERRUPTED,
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({"version": "0.0"}, ConfigurationError, "the head 0.0"),
        ({"at": 1000.0 - 300}, TargetRefused, "the order is 300 s old"),
        ({"at": 1000.0 + 60}, TargetRefused, "the order is -60 s old"),
    ],
)
def test_an_order_that_is_not_begun(
    place: Place,
    ordered: Ordered,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    kind: type[PicloudError],
    why: str,
) -> None:
    monkeypatch.setattr("imager.stations.desk.work.time.time", lambda: 1000.0)
    order = replace(order_for(place, ordered), at=1000.0)
    with pytest.raises(kind, match=why):
        work(place.desk, replace(order, **changes), {})  # type: ignore[arg-type]
    assert not (place.folder / "station").exists()


@pytest.mark.parametrize("late", [299.0, -59.0])
def test_clocks_may_differ_and_salt_may_be_slow(
    place: Place, ordered: Ordered, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    monkeypatch.setattr("imager.stations.desk.work.time.time", lambda: 1000.0)
    order = replace(order_for(place, ordered), at=1000.0 - late, cards=())
    assert work(place.desk, order, {}) == ()


@pytest.mark.parametrize("path", ["dev/sub/sdb", "etc/passwd"])
def test_a_path_that_is_no_disk_here(place: Place, ordered: Ordered, path: str) -> None:
    order = order_for(place, ordered, path=str(place.host.root / path))
    with pytest.raises(TargetRefused, match="is no disk of this station"):
        work(place.desk, order, {})
    assert not (place.folder / "station").exists()


def test_a_golden_image_that_cannot_be_had_is_told_for_each_card(
    place: Place, ordered: Ordered
) -> None:
    def bring(name: str) -> Path:
        raise FileNotFoundError("the master is away")

    order = order_for(place, ordered)
    with pytest.raises(HostStorage, match="could not be fetched"):
        work(replace(place.desk, bring=bring), order, {})
    (report,) = place.reports(order)
    assert (report.outcome, report.node) == (Outcome.FAILED, "pi7")
    assert "the master is away" in report.reason


def test_a_stop_is_heard_while_the_golden_image_is_fetched(place: Place, ordered: Ordered) -> None:
    def bring(name: str) -> Path:
        place.desk.records.stop("b")
        time.sleep(30)
        return place.bring(name)

    def terminated(*_: object) -> None:
        raise KeyboardInterrupt

    order = order_for(place, ordered)
    secrets = {ordered.card.secret: ordered.packed}
    previous = signal.signal(signal.SIGTERM, terminated)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            work(replace(place.desk, bring=bring), order, secrets)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert time.monotonic() - began < 15, "it did not wait for the image"
    (report,) = place.reports(order)
    assert report.outcome is Outcome.INTERRUPTED
    assert report.reason == "interrupted before its card was touched"


def test_a_golden_image_that_was_altered_is_forgotten(place: Place, ordered: Ordered) -> None:
    """No card is made of it, and the next run fetches it anew."""
    order = order_for(place, ordered)
    work(place.desk, order, {})
    cache = place.desk.cache
    (key,) = cache.entries("golden")
    alter(replace(ordered.golden, path=cache.golden / key / "image"), LAYOUT.boot.offset + 20_480)
    place.brought.clear()
    again = replace(order, job="b.2")
    (result,) = work(place.desk, again, {ordered.card.secret: ordered.packed})
    assert place.brought == [], "it was at hand"
    assert isinstance(result.error, HostStorage)
    assert "this station's golden image was altered: bytes " in result.error.what
    assert cache.entries("golden") == []


class Crew:
    """Workers of which one card is at work and one is not begun."""

    at_work = ("pi7", "pi8")

    def moment(self, name: str) -> Moment | None:
        return moment_at(0.5) if name == "pi7" else None


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("imager.stations.desk.work.time.monotonic", clock)
    return clock


def test_what_goes_on_is_told_once_a_second_and_an_end_at_once(
    place: Place, ordered: Ordered, clock: Clock, tmp_path: Path
) -> None:
    order = order_for(place, ordered)
    disk = disk_named("sdb", (), place.host.kernel)
    job, stops = DeskJob(order.cards[0], disk), []
    with place.desk.records.doing(order) as stop:
        teller = desk_work._Teller(place.desk, order, stop)
        teller.stop = lambda: stops.append(clock.now)
        for number in range(201):
            teller.heard(job, Said(str(number), warning=False))
        teller.turn(Crew())
        for clock.now in (100.5, 100.999):
            teller.turn(Crew())
        (first,) = place.said
        assert [moment.node for moment in first.moments] == ["pi7"]
        assert len(first.told) == 200
        assert first.job == "b.1"
        clock.now = 101.0
        stop.touch()
        teller.turn(Crew())
        assert stops == [101.0]
        assert place.said[1:] == [replace(first, told=())]
        error = HostStorage("full", hint="make room")
        teller.ended(CardResult(job, Outcome.FAILED, 3.0, error=error))
        clock.now = 101.1
        teller.turn(Crew())
        assert place.said[2].ended == ("pi7",)
        teller.turn(Crew())
        assert len(place.said) == 3, "it is told once"


def test_how_far_a_golden_image_is_fetched_is_told_once_a_second(
    place: Place, ordered: Ordered, clock: Clock
) -> None:
    order = order_for(place, ordered)
    with _Fetching(place.desk, order).phase("fetch golden image", 70) as phase:
        for clock.now, size in ((100.9, 10), (101.0, 20), (101.5, 20), (102.0, 10)):
            phase.advance(size)
    told = [(one.moments[0].node, one.moments[0].moment) for one in place.said]
    assert told == [
        ("pi7", Moment("fetch golden image", 30, 70, 1.0, 0, 0)),
        ("pi7", Moment("fetch golden image", 60, 70, 2.0, 0, 0)),
    ]

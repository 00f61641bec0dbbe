"""What a station remembers of its cards: all of it, until the head has it, and nothing for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imager.base.errors import CardFaulty, HostStorage, TargetRefused
from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.store import save_receipt
from imager.rack.history.ledger import ROOM_PER_CARD
from imager.rack.history.outcome import Outcome
from imager.stations.desk.records import Records, report_on
from imager.stations.wire.order import CardWork, GoldenWanted, WorkOrder
from imager.stations.wire.report import CardReport
from imager.stations.wire.reports import AtDesk, Reports
from tests.support.rackhistory import receipt_of

SHA, RACK = "a" * 64, "b" * 64
CARDS = tuple(
    CardWork(name, "pi2", f"/dev/sd{name[-1]}", "A1", 2**30, 7, SHA, SHA, SHA, f"b.1+{name}")
    for name in ("pi1", "pi2")
)
ORDER = WorkOrder(
    "b.1", "b", RACK, "1.0", 1e9, GoldenWanted("0" * 32, SHA, "c" * 64), CARDS, True, True, None, 1
)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(TrustedFolder(tmp_path / "station"))


@pytest.fixture
def at_work(records: Records) -> Iterator[Path]:
    """``ORDER`` is being done."""
    with records.doing(ORDER) as stop:
        yield stop


def names(records: Records) -> set[str]:
    return {path.name for path in (records.folder.path / "work").iterdir()} - {"begin.lock"}


def good(number: int = 0) -> CardReport:
    card = CARDS[number]
    receipt = receipt_of(card.node, number)
    return report_on(ORDER, card, Outcome.VERIFIED, None, seconds=2.5, receipt=receipt)


def test_a_station_knows_since_when_it_remembers(records: Records) -> None:
    records.folder.path.mkdir(mode=0o755)
    before = time.time()
    since = records.since()
    assert before <= since <= time.time()
    assert records.since() == since
    kept = records.folder.path / "since"
    assert (records.folder.path.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    kept.write_text("yesterday")
    again = records.since()
    assert again > since
    assert records.since() == again


def test_a_card_that_is_being_made_is_no_report(records: Records, at_work: Path) -> None:
    found = records.hand_over(RACK, ())
    assert found.reports == ()
    assert found.making == (AtDesk("b", "pi1", "A1"), AtDesk("b", "pi2", "A1"))
    assert found.over == ()
    assert found.since == records.since()
    work = records.folder.path / "work"
    assert {path.name: path.stat().st_mode & 0o777 for path in work.glob("*.json")} == {
        "b.1+pi1.json": 0o600,
        "b.1+pi2.json": 0o600,
    }


def test_a_report_is_given_until_the_head_has_it(records: Records, at_work: Path) -> None:
    records.ended(ORDER, CARDS[0], good())
    for _ in range(2):
        found = records.hand_over(RACK, ("b.1+pi2",))
        assert found.reports == (good(),)
        assert found.making == (AtDesk("b", "pi2", "A1"),), "that one has not ended"
    found = records.hand_over(RACK, ("b.1+pi1",))
    assert found.reports == ()
    assert names(records) == {"b.1.lock", "b.1+pi2.json"}


def test_what_the_program_did_not_end_was_cut_short(records: Records) -> None:
    with records.doing(ORDER):
        records.ended(ORDER, CARDS[1], good(1))
    first, second = records.hand_over(RACK, ()).reports
    assert second == good(1)
    assert (first.node, first.outcome, first.receipt) == ("pi1", Outcome.INTERRUPTED, None)
    assert first.reason == "/dev/sd1: the station's program was ended while it made this card"
    assert first.hint == "the card is blank or whole; run the same command again"
    assert records.hand_over(RACK, ()).over == ("b.1",)


def test_a_job_in_the_moment_it_begins_is_not_over(records: Records) -> None:
    found: list[Reports] = []
    asking = threading.Thread(target=lambda: found.append(records.hand_over(RACK, ())))
    records.since()
    with ExitStack() as held:
        with records.folder.locked("begin.lock"):  # as the program that begins it does
            work = (records.folder / "work").make_private()
            work.write("b.1.lock", b"")
            asking.start()
            asking.join(0.3)
            held.enter_context(work.locked("b.1.lock"))
        asking.join(30)
        assert found[0].over == ()


def test_another_racks_reports_are_not_given(records: Records) -> None:
    with records.doing(ORDER):
        pass
    found = records.hand_over("d" * 64, ("b.1+pi1", "b.1+pi2"))
    assert (found.reports, found.making) == ((), ())
    assert len(records.hand_over(RACK, ()).reports) == 2, "nor forgotten"


def test_so_many_reports_at_a_time(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imager.stations.desk.records.MOST_CARDS", 1)
    with records.doing(ORDER):
        pass
    for node in ("pi1", "pi2"):
        (report,) = records.hand_over(RACK, ()).reports
        assert report.node == node
        records.hand_over(RACK, (report.name,))


def test_a_report_by_its_name_is_given_to_its_own_rack(records: Records) -> None:
    with records.doing(ORDER):
        records.ended(ORDER, CARDS[0], good())
    assert records.report(RACK, "b.1+pi1") == good()
    for rack, name in (("d" * 64, "b.1+pi1"), (RACK, "b.1+pi3")):
        with pytest.raises(TargetRefused, match="there is no report b"):
            records.report(rack, name)


def test_to_look_makes_no_lock(records: Records) -> None:
    with records.doing(ORDER):
        pass
    (records.folder.path / "work/b.1.lock").unlink()
    assert len(records.hand_over(RACK, ()).reports) == 2
    assert names(records) == {"b.1+pi1.json", "b.1+pi2.json"}


def test_what_another_version_wrote_is_named_and_left_alone(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.stations.desk.records._LIMIT_BYTES", 10_000)
    with records.doing(ORDER):
        pass
    first = records.folder.path / "work/b.1+pi1.json"
    for text, why in (("{}", "rack: is missing"), ("no JSON", ""), ("x" * 10_001, "larger than")):
        first.write_text(text)
        found = records.hand_over(RACK, ("b.1+pi1",))
        assert [report.node for report in found.reports] == ["pi2"]
        assert found.unreadable.keys() == {"b.1+pi1"}
        assert why in found.unreadable["b.1+pi1"]
        assert "b.1+pi1.json" in names(records)


def test_a_report_that_is_left_aside_stays(records: Records) -> None:
    with records.doing(ORDER):
        pass
    assert [one.node for one in records.hand_over(RACK, (), ("b.1+pi1",)).reports] == ["pi2"]
    assert len(records.hand_over(RACK, ()).reports) == 2


def test_nothing_is_begun_of_a_batch_that_is_closed(records: Records) -> None:
    """Whatever was closed and begun before stays; what began in time goes on."""
    assert records.hand_over(RACK, (), closed=("b", "c")).closed == ("b", "c")
    with (
        pytest.raises(TargetRefused, match=r"job b\.1 is of a run that is over"),
        records.doing(ORDER),
    ):
        pass
    again = Records(records.folder)
    with pytest.raises(TargetRefused), again.doing(ORDER):
        pass
    assert records.hand_over(RACK, (), closed=("e.1",)).closed == ("e.1",)
    with (
        pytest.raises(TargetRefused, match=r"job e\.1 comes so late"),
        records.doing(replace(ORDER, job="e.1", batch="e")),
    ):
        pass
    with records.doing(replace(ORDER, job="e.2", batch="e", cards=())):
        pass
    other = replace(ORDER, job="d.1", batch="d")
    with records.doing(other):
        found = records.hand_over(RACK, (), closed=("d",))
        assert [card.batch for card in found.making] == ["d", "d"]
    assert names(records) & {"b.1.lock", "b.1+pi1.json"} == set()


def test_that_a_batch_is_closed_is_remembered_until_its_orders_are_too_old(
    records: Records,
) -> None:
    records.hand_over(RACK, (), closed=("b",))
    mark = records.folder.path / "work/b.closed"
    for age, stays in ((400, True), (440, False)):
        os.utime(mark, (time.time() - age,) * 2)
        records.hand_over(RACK, ())
        assert mark.exists() is stays
    assert not records._is_past(mark.name), "another rack's head may have swept it meanwhile"


def test_who_closes_a_batch_finds_all_cards_of_what_is_begun(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in the moment of its beginning: what is not told then was never begun."""
    write, found = Records._write, list[Any]()

    def slow(self: Records, *what: Any) -> None:
        if not found:
            asked = threading.Thread(
                target=lambda: found.append(records.hand_over(RACK, (), closed=("b",)))
            )
            found.append(asked)
            asked.start()
            asked.join(0.2)
        write(self, *what)

    monkeypatch.setattr(Records, "_write", slow)
    with records.doing(ORDER):
        found[0].join()
        assert len(found[1].making) == len(CARDS)


def test_a_job_is_begun_once(records: Records) -> None:
    with records.doing(ORDER):
        records.ended(ORDER, CARDS[0], good())
    with (
        pytest.raises(TargetRefused, match=r"job b\.1 was begun here before"),
        records.doing(ORDER),
    ):
        pass
    assert records.hand_over(RACK, ()).reports[0] == good(), "its reports stay"
    with records.doing(replace(ORDER, job="b.2", cards=())):
        pass


def test_so_many_reports_as_salt_carries_at_a_time(records: Records, at_work: Path) -> None:
    """256 KiB of them; the rest when the head asks again, and one that is larger in pieces."""
    details = tuple("x" * 1000 for _ in range(270))
    most = replace(good(), outcome=Outcome.FAULTY, receipt=None, details=details[:250])
    records.ended(ORDER, CARDS[0], most)
    records.ended(ORDER, CARDS[1], replace(good(1), details=details[:10]))
    assert records.hand_over(RACK, ()).reports == (most,)
    records.ended(ORDER, CARDS[1], good(1))
    assert records.hand_over(RACK, ()).reports == (most, good(1))
    larger = replace(most, details=details)
    records.ended(ORDER, CARDS[0], larger)
    found = records.hand_over(RACK, ())
    assert (found.reports, found.large) == ((good(1),), (larger.name,))
    assert records.report(RACK, larger.name) == larger


def test_a_card_that_ends_while_it_is_looked_is_told_as_it_ended(
    records: Records, at_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Records._is_held

    def ends(self: Records, job: str) -> bool:
        if held(self, job):
            records.ended(ORDER, CARDS[0], good())
        return False

    monkeypatch.setattr(Records, "_is_held", ends)
    assert records.hand_over(RACK, ()).reports[0] == good()


def test_what_is_over_and_handed_over_is_forgotten_when_it_cannot_begin_again(
    records: Records,
) -> None:
    with records.doing(ORDER) as stop:
        assert records.stop("b") == 1
        assert stop.exists()
    done = ("b.1+pi1", "b.1+pi2")
    lock = records.folder.path / "work/b.1.lock"
    times = (time.time() - 400, time.time() - 440)
    os.utime(lock, (times[1], times[1]))
    records.hand_over(RACK, done[:1])
    assert names(records) == {"b.closed", "b.1.lock", "b.1.stop", "b.1+pi2.json"}
    os.utime(lock, (times[0], times[0]))
    records.hand_over(RACK, done)
    assert names(records) == {"b.closed", "b.1.lock", "b.1.stop"}, "the same order may come again"
    for name in ("b.1.lock", "b.closed"):
        os.utime(lock.with_name(name), (times[1], times[1]))
    assert records.hand_over(RACK, ()).over == ("b.1",)
    assert names(records) == set()


def test_a_job_at_work_is_never_forgotten(records: Records) -> None:
    with records.doing(replace(ORDER, cards=())):
        lock = records.folder.path / "work/b.1.lock"
        os.utime(lock, (1, 1))
        records.hand_over(RACK, ())
        assert lock.exists()


def test_only_the_jobs_of_the_batch_are_stopped(records: Records, at_work: Path) -> None:
    with (
        records.doing(replace(ORDER, job="b.2", cards=())) as second,
        records.doing(replace(ORDER, job="b2.1", batch="b2", cards=())) as other,
    ):
        with records.doing(replace(ORDER, job="b.3", cards=())) as over:
            pass
        assert not any(stop.exists() for stop in (at_work, second, other, over))
        assert records.stop("b") == 2
        assert [stop.exists() for stop in (at_work, second, other, over)] == [
            True,
            True,
            False,
            False,
        ]
    assert records.stop("b9") == 0


def test_an_order_that_comes_after_its_batch_was_stopped_is_not_begun(records: Records) -> None:
    """Salt need not bring the two in the order in which the head sent them."""
    assert records.stop("b") == 0
    with pytest.raises(TargetRefused, match="is of a run that is over"), records.doing(ORDER):
        pytest.fail("it was begun")
    assert records.hand_over(RACK, ()).reports == ()


def test_a_receipt_by_its_name(records: Records) -> None:
    receipt = receipt_of("pi1", 1)
    name = save_receipt(receipt, records.receipts).name
    assert records.receipt(name) == receipt
    assert records.receipt("") is None
    assert records.receipt("none.json") is None
    (records.folder.path / "receipts" / name).write_text("{}")
    assert records.receipt(name) is None


@pytest.mark.parametrize("lacking", [0, 1])
def test_no_job_begins_without_room_for_its_reports(
    records: Records, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    room = 2 * ROOM_PER_CARD - lacking
    monkeypatch.setattr("imager.base.durable.free_bytes", lambda _: room)
    if lacking:
        with pytest.raises(HostStorage, match="reports of 2 cards"), records.doing(ORDER):
            pass
        assert not (records.folder.path / "work").exists()
    else:
        with records.doing(ORDER):
            assert len(records.hand_over(RACK, ()).making) == 2


def test_a_report_says_what_was_ordered_and_how_it_ended() -> None:
    error = CardFaulty("it flips bits", hint="throw it away", details=["byte 7"])
    report = report_on(ORDER, CARDS[0], Outcome.FAULTY, error)
    assert (report.name, report.batch, report.node) == ("b.1+pi1", "b", "pi1")
    assert (report.path, report.slot) == ("/dev/sd1", "A1")
    assert (report.reason, report.hint) == ("it flips bits", "throw it away")
    assert report.details == ("byte 7",)
    assert (report.recipe, report.release_sha256) == (SHA, "c" * 64)
    assert (report.seconds, report.receipt) == (0.0, None)
    ended = good()
    assert (ended.reason, ended.hint, ended.details, ended.seconds) == ("", "", (), 2.5)

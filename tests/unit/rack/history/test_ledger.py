"""The ledger: what was written is read again, whatever happened in between."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import CardFaulty, ConfigurationError, HostStorage, TargetRefused
from imager.card.host.image_file import ImageFile
from imager.card.make.finish import MadeCard
from imager.config.rack import STATE
from imager.rack.history import ledger as ledger_module
from imager.rack.history.events import (
    Assigned,
    BatchBegun,
    BatchEnded,
    CardFinished,
    CardRestored,
    CardSaved,
    Event,
    Standing,
    now,
)
from imager.rack.history.ledger import (
    ROOM_PER_CARD,
    Ledger,
    append,
    encode_event,
    parse_ledger,
    read_ledger,
    require_room,
)
from imager.rack.history.lock import batch_lock
from imager.rack.history.outcome import Outcome, outcome_of
from imager.rack.history.recorded import Work, recorded
from tests.support.rackhistory import receipt_of
from tests.support.racks import rack_in
from tests.support.syncing import Sync, fsyncs

ROOT = Path(__file__).resolve().parents[4]
AT = "2026-11-25T03:20:00.000Z"


def assigned(node: str) -> Assigned:
    return Assigned(AT, "b1", node, "/dev/sdb", "A1", 8 << 30, "SD", "42", "", 9)


def finished(node: str, outcome: str = "verified", recipe: str = "r1") -> CardFinished:
    return CardFinished(
        AT, "b1", node, "/dev/sdb", "A1", outcome, "", "", "x.json", "ab", recipe, "cd"
    )  # fmt: skip


def saved(node: str, outcome: str = "saved", file: str = "/saves/a.img.zst") -> CardSaved:
    return CardSaved(AT, node, "/dev/sdb", "A1", file, outcome, "", "ab", "ef")


def restored(node: str) -> CardRestored:
    return CardRestored(AT, "b1", node, "/dev/sdb", "/saves/a.img.zst", AT)


texts = st.text(max_size=20)
numbers = st.integers(0, 2**63 - 1)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(BatchBegun, texts, texts, st.lists(texts, max_size=3).map(tuple), numbers),
    st.builds(Assigned, *[texts] * 5, numbers, *[texts] * 3, numbers, *[texts] * 4),
    st.builds(CardFinished, *[texts] * 12),
    st.builds(CardSaved, *[texts] * 9),
    st.builds(CardRestored, *[texts] * 6),
    st.builds(BatchEnded, texts, texts, numbers),
)


@given(st.lists(events, max_size=6))
def test_what_is_encoded_is_parsed(some: list[Event]) -> None:
    ledger = parse_ledger(b"".join(map(encode_event, some)))
    assert ledger.events == tuple(some)
    assert ledger.unread == 0


def test_a_line_is_on_the_disk_before_append_returns(tmp_path: Path) -> None:
    """A power cut after a card is begun must not lose that it was; a new file needs its name to
    be durable as well."""
    path = tmp_path / STATE / "ledger.jsonl"
    with fsyncs() as first:
        append(tmp_path, assigned("pi1"))
    assert Sync(path, path.stat().st_size) in first
    assert path.parent in [
        sync.path for sync in first[first.index(Sync(path, path.stat().st_size)) :]
    ]
    with fsyncs() as second:
        append(tmp_path, finished("pi1"))
    assert second == [Sync(path, path.stat().st_size)]


@given(st.lists(events, min_size=1, max_size=4), st.data())
def test_a_cut_loses_the_last_line_and_no_other(some: list[Event], data: st.DataObject) -> None:
    whole = b"".join(map(encode_event, some))
    cut = data.draw(st.integers(0, len(whole)))
    ledger = parse_ledger(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert ledger.events == tuple(some[:kept])


@given(st.binary(max_size=200), events)
def test_any_bytes_are_read_and_what_follows_is_found(noise: bytes, event: Event) -> None:
    assert parse_ledger(noise + b"\n" + encode_event(event)).events[-1] == event


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"null",
        b'{"v":2,"event":"ended","at":"x","batch":"b","exit_code":0}',
        b'{"v":1,"event":"eaten","at":"x","batch":"b","exit_code":0}',
        b'{"v":1,"event":"ended","at":"x","batch":"b"}',
        b'{"v":1,"event":"ended","at":"x","batch":"b","exit_code":true}',
        b'{"v":1,"event":"ended","at":"x","batch":7,"exit_code":0}',
        b'{"v":1,"event":"begun","at":"x","batch":"b","nodes":["pi1",2],"process":1}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_counted(line: bytes) -> None:
    ledger = parse_ledger(line + b"\n" + encode_event(BatchEnded(AT, "b", 0)))
    assert ledger.unread == 1
    assert len(ledger.events) == 1


def test_of_very_many_lines_the_newest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_MOST_LINES", 3)
    events = [assigned(f"pi{n}") for n in range(5)]
    for number in (3, 4, 5):
        data = b"".join(map(encode_event, events[:number])) + b"torn"
        read = parse_ledger(data)
        assert read.events == tuple(events[:number][-3:])
        assert read.unread == number - 3


def test_a_ledger_of_nothing_but_line_breaks_costs_little() -> None:
    began = time.process_time()
    data = encode_event(assigned("pi1")) * 2 + b"\n" * 3_000_000 + encode_event(assigned("pi2"))
    assert parse_ledger(data).events == (assigned("pi2"),)
    assert time.process_time() - began < 5


def test_a_line_of_megabytes_is_none_of_ours() -> None:
    long = encode_event(replace(assigned("pi1"), target="x" * 2**20))
    assert parse_ledger(long + encode_event(assigned("pi2"))) == Ledger((assigned("pi2"),), 1)


def test_a_later_version_may_say_more() -> None:
    line = encode_event(BatchEnded(AT, "b", 30)).replace(b"}", b',"weather":"fair"}')
    assert parse_ledger(line).events == (BatchEnded(AT, "b", 30),)


@pytest.mark.parametrize(
    "torn", [b"", b"{", encode_event(finished("pi2"))[:-1], b"\0" * 5000, b"x" * 4095, b"x" * 8191]
)
def test_the_next_line_mends_a_torn_one(tmp_path: Path, torn: bytes) -> None:
    append(tmp_path, assigned("pi1"))
    path = tmp_path / ".picloud/ledger.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    assert read_ledger(tmp_path).events == (assigned("pi1"),)
    append(tmp_path, finished("pi1"))
    assert read_ledger(tmp_path).events == (assigned("pi1"), finished("pi1"))
    assert read_ledger(tmp_path).unread == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_torn_first_line_is_mended_too(tmp_path: Path) -> None:
    append(tmp_path, assigned("pi1"))
    path = tmp_path / ".picloud/ledger.jsonl"
    path.write_bytes(b'{"v":1,')
    append(tmp_path, finished("pi1"))
    assert path.read_bytes() == encode_event(finished("pi1"))


def test_a_line_for_which_there_is_no_room_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, assigned("pi1"))
    path = tmp_path / ".picloud/ledger.jsonl"
    before = path.read_bytes()

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("imager.rack.history.ledger.write_all", half)
    with pytest.raises(HostStorage, match="No space left on device"):
        append(tmp_path, finished("pi1"))
    assert path.read_bytes() == before


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    """A file's name may have bytes that are no UTF-8."""
    event = saved("pi1", file="/saves/\udcff.img")
    append(tmp_path, event)
    assert read_ledger(tmp_path).events == (event,)


def test_times_are_told_to_the_millisecond() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now())


def test_no_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert read_ledger(tmp_path).events == ()
    assert not (tmp_path / ".picloud").exists(), "reading makes nothing"


def test_a_ledger_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / ".picloud/ledger.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"ledger\.jsonl"):
        read_ledger(tmp_path)


def test_threads_do_not_lose_each_others_lines(tmp_path: Path) -> None:
    def write(node: str) -> None:
        for _ in range(20):
            append(tmp_path, assigned(node))

    threads = [threading.Thread(target=write, args=(f"pi{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ledger(tmp_path).events) == 100


WRITER = """
import sys
from pathlib import Path
from imager.rack.history.events import BatchEnded
from imager.rack.history.ledger import append
folder = Path(sys.argv[1])
for number in range(10**6):
    append(folder, BatchEnded("t", "b" * 3000, number))
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_written(tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(chance.uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        append(tmp_path, BatchBegun(AT, f"kill {number}", (), 0))
        ledger = read_ledger(tmp_path)
        assert ledger.unread == 0
        assert ledger.events[-1] == BatchBegun(AT, f"kill {number}", (), 0)
        ends = [e for e in ledger.events if isinstance(e, BatchEnded)]
        assert ends[-1].exit_code >= int(said[-1])


def test_one_batch_at_a_time_and_the_other_hears_who(tmp_path: Path) -> None:
    with (
        batch_lock(tmp_path),
        pytest.raises(TargetRefused, match=rf"another run \(process {os.getpid()}, since 20"),
        batch_lock(tmp_path),
    ):
        pass
    with batch_lock(tmp_path):
        pass


def test_the_lock_says_who_has_it_and_nothing_of_who_had_it(tmp_path: Path) -> None:
    with batch_lock(tmp_path):
        pass
    lock = tmp_path / STATE / "batch.lock"
    lock.write_text("process 12345678901, since a long time ago, on a computer far away, I say")
    with batch_lock(tmp_path):
        assert re.fullmatch(rf"process {os.getpid()}, since 20[-0-9T:.]*Z", lock.read_text())


def test_room_is_asked_for_before(tmp_path: Path) -> None:
    require_room(tmp_path, 1)
    with pytest.raises(HostStorage, match="the receipts of"):
        require_room(tmp_path, 10**12)


@pytest.mark.parametrize("lacking", [0, 1])
def test_room_that_is_just_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    room = 3 * ROOM_PER_CARD - lacking
    monkeypatch.setattr("imager.base.durable.free_bytes", lambda _: room)
    with pytest.raises(HostStorage) if lacking else nullcontext():
        require_room(tmp_path, 3)


@pytest.mark.parametrize(
    ("told", "standing"),
    [
        ([], Standing.NEVER),
        ([assigned("pi1")], Standing.CUT_SHORT),
        ([assigned("pi1"), finished("pi1")], Standing.CURRENT),
        ([assigned("pi1"), finished("pi1", recipe="r0")], Standing.STALE),
        ([assigned("pi1"), finished("pi1", "faulty")], Standing.FAILED),
        ([finished("pi1"), assigned("pi1")], Standing.CUT_SHORT),
        ([finished("pi1", "faulty"), assigned("pi1"), finished("pi1")], Standing.CURRENT),
        ([finished("pi1"), assigned("pi1"), finished("pi1", "refused")], Standing.FAILED),
        ([finished("pi2"), assigned("pi3")], Standing.NEVER),
    ],
)
def test_the_standing_of_a_node(told: list[Event], standing: Standing) -> None:
    state = Ledger(tuple(told)).state_of("pi1")
    assert state.standing("r1") is standing
    if standing in (Standing.CURRENT, Standing.STALE):
        assert state.standing() is Standing.VERIFIED


def test_the_last_good_card_is_remembered() -> None:
    state = Ledger((finished("pi1"), assigned("pi1"), finished("pi1", "faulty"))).state_of("pi1")
    assert state.verified == finished("pi1")


def test_what_was_saved_is_remembered_whatever_becomes_of_the_card() -> None:
    told = (saved("pi1"), saved("pi1", "io-error", "/other"), assigned("pi1"), finished("pi1"))
    state = Ledger((finished("pi1"), *told)).state_of("pi1")
    assert state.saved == saved("pi1"), "the one that is whole"
    assert state.standing() is Standing.VERIFIED
    assert Ledger((finished("pi1"), saved("pi1", "io-error"))).state_of("pi1").saved is None


def test_a_card_is_a_saved_one_until_another_is_made() -> None:
    told: tuple[Event, ...] = (assigned("pi1"), restored("pi1"), finished("pi1"))
    state = Ledger(told).state_of("pi1")
    assert (state.restored, state.standing("r1")) == (restored("pi1"), Standing.CURRENT)
    again = Ledger((*told, assigned("pi1"), finished("pi1"))).state_of("pi1")
    assert again.restored is None


def test_the_last_good_card_with_an_image_is_found() -> None:
    told = (finished("pi1", recipe="r0"), finished("pi1", recipe="r1"), finished("pi2"))
    ledger = Ledger((*told, finished("pi1", "faulty")))
    assert ledger.made("pi1", "ab") == told[1]
    assert ledger.made("pi1", "other") is None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TargetRefused("x", hint="y"), Outcome.REFUSED),
        (CardFaulty("x", hint="y"), Outcome.FAULTY),
        (ConfigurationError("x", hint="y"), Outcome.FAILED),
        (KeyboardInterrupt(), Outcome.INTERRUPTED),
        (ZeroDivisionError(), Outcome.FAILED),
    ],
)
def test_an_error_has_an_outcome(error: BaseException, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_ctrl_c_is_told_in_words(tmp_path: Path) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    target = ImageFile(tmp_path / "pi1.img", False, 0, True)

    def make() -> MadeCard:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(rack, Work("pi1", target, "ef" * 32, "r1"), make)
    last = read_ledger(tmp_path).state_of("pi1").last
    assert last is not None
    assert (last.outcome, last.reason) == ("interrupted", "interrupted")


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "hint", "receipt"),
    [
        (CardFaulty("it lies", hint="throw it away"), "faulty", "it lies", "throw it away", "r"),
        (ZeroDivisionError("x"), "failed", "ZeroDivisionError: x", "", ""),
    ],
)
def test_how_a_card_failed_is_told_with_its_receipt(
    tmp_path: Path, error: Exception, outcome: str, reason: str, hint: str, receipt: str
) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    target = ImageFile(tmp_path / "pi1.img", False, 0, True)
    if isinstance(error, CardFaulty):
        error.receipt = receipt

    def make() -> MadeCard:
        raise error

    with pytest.raises(type(error)):
        recorded(rack, Work("pi1", target, "ef" * 32, "r1", "b1", "A1"), make)
    begun, last = read_ledger(tmp_path).events
    assert isinstance(begun, Assigned)
    assert isinstance(last, CardFinished)
    assert (begun.node, begun.batch, begun.slot, begun.target) == ("pi1", "b1", "A1", target.node)
    assert (begun.recipe, begun.release_sha256) == (last.recipe, last.release_sha256)
    assert (last.recipe, last.release_sha256) == ("r1", "ef" * 32)
    assert (last.outcome, last.reason, last.hint) == (outcome, reason, hint)
    assert (last.receipt, last.image_id) == (receipt, "")


@pytest.mark.parametrize(("own", "image_id"), [("", "ab" * 32), ("98" * 32, "98" * 32)])
def test_a_good_card_is_told_with_its_image(tmp_path: Path, own: str, image_id: str) -> None:
    rack = rack_in(tmp_path, '[rack]\nnodes = "pi[0-1]"\n')
    target = ImageFile(tmp_path / "pi1.img", False, 0, True)
    made = MadeCard(receipt_of("pi1", 1), tmp_path / "pi1-1.json")
    work = Work("pi1", target, "ef" * 32, "r1", image_id=own)
    assert recorded(rack, work, lambda: made) is made
    ledger = read_ledger(tmp_path)
    assert [event.image_id for event in ledger.events if isinstance(event, Assigned)] == [own]
    last = ledger.state_of("pi1").last
    assert last is not None
    assert last.is_verified
    assert (last.image_id, last.receipt) == (image_id, "pi1-1.json")
    assert (last.recipe, last.release_sha256) == ("r1", "ef" * 32)


def test_a_card_of_a_station_is_unknown_until_it_is_over() -> None:
    begun = replace(assigned("pi1"), target="desk2:/dev/sdb", station="desk2")
    assert begun.where == "desk2's slot A1"
    assert replace(begun, slot="").where == "desk2's /dev/sdb"
    assert Ledger((begun,)).state_of("pi1").standing() is Standing.UNKNOWN
    over = Ledger((begun, finished("pi1"))).state_of("pi1")
    assert over.standing("r1") is Standing.CURRENT


def test_a_line_of_this_computer_is_as_it_was_before_there_were_stations() -> None:
    line = encode_event(assigned("pi1"))
    assert not any(later in line for later in (b"station", b"image_id", b"recipe", b"release"))
    assert parse_ledger(line).events == (assigned("pi1"),)

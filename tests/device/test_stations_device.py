"""A head and its stations, each with readers of its own: loop devices. Pipes carry what Salt would;
tests/salt has the real one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from imager.base.cache import Cache
from imager.base.errors import TargetRefused
from imager.base.units import MiB
from imager.card.host.target import Limits
from imager.cli.choice import golden_images_at_hand
from imager.cli.console import Console
from imager.cli.main import run
from imager.cli.session import Session
from imager.cli.settings import Settings
from imager.cli.stations.head import Asked, Stations
from imager.cli.stations.watch import StationReaders, shift_on_stations
from imager.config.load import load_rack
from imager.config.rack import Rack
from imager.image.compose.golden import GoldenImage
from imager.node.edit.edit import opened
from imager.rack.batch.card_progress import CardEvent, PhaseBegan, PhaseEnded
from imager.rack.batch.crew import Orders
from imager.rack.batch.station import Offer, Plans, Station
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from imager.rack.history.lock import batch_lock
from imager.rack.history.outcome import Outcome
from imager.rack.plan.candidates import Candidate, Unfit
from imager.rack.plan.plan import make_plan
from imager.rack.plan.slots import Slots
from imager.rack.plan.survey import wants_of
from imager.stations.head.earlier import collect_earlier
from imager.stations.head.flash import Head, flash_on_stations
from imager.stations.head.remote import RemoteJob
from imager.stations.head.roll_call import RollCall, call_roll
from imager.stations.wire.bus import Document
from imager.stations.wire.survey import NO_KEY
from tests.support.loop import (
    Loop,
    call,
    exchanged,
    loop_over,
    missing_abilities,
    mounted,
    sized_file,
    socket_links,
    udevd_running,
)
from tests.support.pipebus import PipeBus, stations
from tests.support.rackcards import SIZE, first_mib, forget, is_whole
from tests.support.slowcard import no_throttle, throttled
from tests.support.workplace import Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
DESKS = ("desk1", "desk2")


@dataclass
class Looking:
    """A Watch that keeps what it is told."""

    phases: set[str] = field(default_factory=set)

    def began(self, job: Job) -> None:
        del job

    def heard(self, job: Job, event: CardEvent) -> None:
        del job
        if isinstance(event, PhaseEnded):
            self.phases.add(event.phase)

    def ended(self, result: CardResult) -> None:
        del result

    def turn(self, crew: AtWork) -> None:
        assert all(crew.moment(name) is not None for name in crew.at_work)


class Killed(BaseException):
    """What a head does not catch."""


class Dying(Looking):
    """The head is killed when a card was begun."""

    def heard(self, job: Job, event: CardEvent) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write":
            raise Killed


@contextmanager
def struck(lab: Lab, desk: str, strike: Callable[[], None]) -> Iterator[None]:
    """``strike`` as soon as the desk has noted that it begins."""
    over = threading.Event()

    def wait() -> None:
        work = lab.bus.state(desk) / "work"
        while not over.wait(0.002):
            if any(work.glob("*.json")):
                strike()
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass
class Lab:
    """A rack, and desks with readers whose slots have labels: desk1 has Y0 and Y1, desk2 Z0
    and Z1, which no node has."""

    place: Workplace
    bus: PipeBus
    loops: dict[str, list[Loop]]
    golden: GoldenImage
    held: ExitStack

    def roll(self) -> RollCall:
        rack = load_rack(self.place.rack)
        images = dict.fromkeys((node.name for node in rack.nodes), self.golden)
        return call_roll(self.bus, DESKS, rack, images, Limits())

    def flash(
        self,
        names: Sequence[str],
        watch: Looking | None = None,
        *,
        again: bool = False,
        full: bool = False,
    ) -> dict[str, CardResult]:
        rack = load_rack(self.place.rack)
        nodes = [rack.node(name) for name in names]
        images = dict.fromkeys(names, self.golden)
        with batch_lock(rack.folder), opened(self.golden) as view:
            collect_earlier(rack, self.bus, DESKS)
            roll = self.roll()
            wants = wants_of(rack, nodes, read_ledger(rack.folder), images)
            plan = make_plan(wants, roll.candidates, rack.nodes, again=again)
            jobs = [
                RemoteJob(
                    step.node, roll.cards[step.candidate.target.node], step.candidate.slot or ""
                )
                for step in plan.to_do
            ]
            orders = Orders(rack, lambda _: view, Limits(), update=not full)
            head = Head(self.bus, roll.surveys, Cache(self.place.cache))
            results = flash_on_stations(orders, jobs, watch or Looking(), head)
        return {result.job.name: result for result in results}

    def standing(self, name: str) -> Standing:
        return read_ledger(self.place.rack).state_of(name).standing()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("stations")
    with ExitStack() as held:
        held.enter_context(udevd_running())
        place = held.enter_context(workplace(folder))
        said = place.json("compose")
        assert said.code == 0, said.err
        bus = held.enter_context(stations(folder))
        files: dict[Path, str] = {}
        for desk in DESKS:
            bus.state(desk).mkdir(parents=True)
            names = {f"{desk}-{n}": folder / f"{desk}-{n}.raw" for n in range(2)}
            files |= {sized_file(path, SIZE): f"pci-{name}" for name, path in names.items()}
            slots = "".join(f'{desk[-1]}A{n} = "pci-{desk}-{n}"\n' for n in range(2))
            (bus.state(desk) / "slots.toml").write_text(
                "[slots]\n" + slots.replace("1A", "Y").replace("2A", "Z")
            )
        held.enter_context(socket_links(files))
        loops = {
            desk: [held.enter_context(loop_over(folder / f"{desk}-{n}.raw")) for n in range(2)]
            for desk in DESKS
        }
        call("udevadm", "settle")
        settings = Settings(
            rack=place.rack,
            cache=place.cache,
            signing_key=folder / "signing-key.asc",
            offline=True,
        )
        rack = load_rack(place.rack)
        images = golden_images_at_hand(Session(settings, Console()), rack, rack.nodes)
        yield Lab(place, bus, loops, images["pi0"], held)


def blank(loop: Loop) -> None:
    """Make its card one that was never used."""
    loop.require_ours()
    call("blkdiscard", str(loop.node))


@pytest.fixture(autouse=True)
def forgetful(lab: Lab) -> Iterator[None]:
    """Each test begins with a rack that never wrote a card, and with blank ones."""
    for loops in lab.loops.values():
        for loop in loops:
            blank(loop)
    yield
    lab.bus.silent.clear()
    lab.bus.kill()
    lab.bus.running.clear()
    for desk in DESKS:
        shutil.rmtree(lab.bus.state(desk) / "work", ignore_errors=True)
    forget(lab.place)


@pytest.mark.long(minutes=1)
def test_four_cards_on_two_stations(lab: Lab) -> None:
    watch = Looking()
    results = lab.flash(["pi0", "pi1", "pi2", "pi3"], watch)
    assert {name: result.outcome for name, result in results.items()} == dict.fromkeys(
        ("pi0", "pi1", "pi2", "pi3"), Outcome.VERIFIED
    ), [result.error and (result.error.what, result.error.details) for result in results.values()]
    made = [loop for desk in DESKS for loop in lab.loops[desk]]
    for result, loop in zip(results.values(), made, strict=True):
        assert result.job.target.node.partition(":")[2] == str(loop.node)
        assert is_whole(loop.backing, lab.place, result.receipt_name)
    assert watch.phases >= {"write", "read back"}
    assert lab.bus.secrets == {}, "all is taken back"
    assert len(lab.bus.handed) == 4


LONG = pytest.mark.long(minutes=7)


@contextmanager
def meanwhile(lab: Lab, strike: Callable[[], None]) -> Iterator[None]:
    """``strike`` once the first delta was handed over: after the survey, before any card."""
    hand, struck = lab.bus.hand, threading.Lock()

    def handing(station: str, name: str, secret: bytes) -> None:
        hand(station, name, secret)
        if struck.acquire(blocking=False):
            strike()

    lab.bus.hand = handing  # type: ignore[method-assign]
    try:
        yield
    finally:
        lab.bus.hand = hand  # type: ignore[method-assign]


@LONG
def test_a_station_killed_while_it_writes_leaves_a_node_that_can_be_made_again(lab: Lab) -> None:
    with struck(lab, "desk2", lambda: lab.bus.kill("desk2")):
        results = lab.flash(["pi0", "pi1", "pi2", "pi3"])
    assert [results[name].outcome for name in ("pi0", "pi1")] == [Outcome.VERIFIED] * 2
    # The last one may not even have been noted down there.
    ended = {results[name].outcome for name in ("pi2", "pi3")}
    assert Outcome.INTERRUPTED in ended <= {Outcome.INTERRUPTED, Outcome.FAILED}
    assert lab.standing("pi2") is Standing.FAILED
    again = lab.flash(["pi0", "pi1", "pi2", "pi3"])
    assert {name: one.outcome for name, one in again.items()} == {
        "pi2": Outcome.VERIFIED,
        "pi3": Outcome.VERIFIED,
    }


@LONG
def test_a_station_that_vanishes_is_unknown_and_no_second_card_is_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.stations.head.crew.GIVE_UP_SECONDS", 3.0)
    monkeypatch.setattr("imager.stations.head.asking.QUIET_SECONDS", 2.0)
    with struck(lab, "desk2", lambda: lab.bus.silent.add("desk2")):
        results = lab.flash(["pi0", "pi2", "pi3"])
    assert results["pi3"].outcome is Outcome.UNKNOWN
    assert results["pi3"].error is not None
    assert "look at the card in desk2's slot Z0" in results["pi3"].error.hint
    assert lab.standing("pi3") is Standing.UNKNOWN
    # Its cable is still out: nobody else's card becomes pi3.
    assert lab.flash(["pi3"]) == {}
    # It has finished what it began, and is heard again.
    for station, process in lab.bus.running:
        assert process.wait(60) == 0, station
    lab.bus.silent.clear()
    assert lab.flash(["pi3"]) == {}
    assert lab.standing("pi3") is Standing.VERIFIED
    last = read_ledger(lab.place.rack).state_of("pi3").last
    assert last is not None
    assert is_whole(lab.loops["desk2"][0].backing, lab.place, last.receipt)


@LONG
def test_a_killed_head_loses_nothing(lab: Lab) -> None:
    with pytest.raises(Killed):
        lab.flash(["pi0", "pi1"], Dying())
    # What the head had begun to collect when it died may be in the ledger.
    assert {lab.standing("pi0"), lab.standing("pi1")} <= {Standing.UNKNOWN, Standing.VERIFIED}
    for _, process in lab.bus.running:
        assert process.wait(60) == 0
    assert lab.flash(["pi0", "pi1"]) == {}
    assert lab.standing("pi0") is lab.standing("pi1") is Standing.VERIFIED


class CtrlC(Looking):
    """A person presses Ctrl-C when the first card is written."""

    def heard(self, job: Job, event: CardEvent) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write":
            os.kill(os.getpid(), signal.SIGINT)


@LONG
@pytest.mark.skipif(bool(no_throttle()), reason=no_throttle())
def test_ctrl_c_on_the_head_leaves_blank_cards_that_are_made_by_the_next_run(lab: Lab) -> None:
    (loop, *_) = lab.loops["desk1"]
    with throttled(loop, write_bps=4 * MiB, read_bps=4 * MiB):
        (result,) = lab.flash(["pi0"], CtrlC()).values()
    assert result.outcome is Outcome.INTERRUPTED
    assert not any(first_mib(loop.backing))
    assert lab.standing("pi0") is Standing.FAILED
    assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED


@LONG
def test_ctrl_c_on_the_head_is_heard_while_the_golden_image_is_fetched(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(lab.bus.cache("desk1") / "golden", ignore_errors=True)
    (loop, *_) = lab.loops["desk1"]
    before = first_mib(loop.backing)
    hear, brought = lab.bus._hear, []

    def slowly(station: str, answers: IO[bytes], line: bytes) -> None:
        document = json.loads(line)
        if document["event"] == "bring":
            brought.append(document["name"].rpartition("/")[2])
            if len(brought) == 2:
                os.kill(os.getpid(), signal.SIGINT)
                work = lab.bus.state(station) / "work"
                while not any(work.glob("*.stop")):
                    time.sleep(0.05)
                time.sleep(3.0)
        hear(station, answers, line)

    monkeypatch.setattr(lab.bus, "_hear", slowly)
    (result,) = lab.flash(["pi0"]).values()
    assert result.outcome is Outcome.INTERRUPTED
    assert result.error is not None
    assert result.error.what == "desk1: interrupted before its card was touched"
    assert brought == ["golden.json", "0000"]
    assert first_mib(loop.backing) == before
    monkeypatch.undo()
    assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED


@LONG
def test_an_order_that_comes_when_the_next_head_was_there_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first head was killed when the ledger knew of it and the station did not."""
    orders: list[tuple[str, str, Document, Sequence[str]]] = []

    class Ending(Looking):
        def turn(self, crew: AtWork) -> None:
            if orders:
                raise Killed

    # As rack stations install does: from now on it remembers.
    lab.bus.ask(DESKS, "reports", {"rack": NO_KEY, "done": []}, seconds=60)
    with monkeypatch.context() as lost:
        lost.setattr(lab.bus, "begin", lambda *order: orders.append(order))
        with pytest.raises(Killed):
            lab.flash(["pi0"], Ending())
    assert lab.standing("pi0") is Standing.UNKNOWN
    result = lab.flash(["pi0"])["pi0"]
    assert result.outcome is Outcome.VERIFIED
    ((station, action, order, names),) = orders
    for name in names:
        lab.bus.hand(station, name, b"a delta")
    lab.bus.begin(station, action, order, names)
    assert lab.bus.running[-1][1].wait(60)
    while not any(b"is of a run that is over" in line for line in lab.bus.lines):
        assert lab.bus.heard(20.0), lab.bus.lines
    assert is_whole(lab.loops["desk1"][0].backing, lab.place, result.receipt_name)


@LONG
@pytest.mark.skipif(bool(no_throttle()), reason=no_throttle())
def test_bars_move_again_when_whom_a_station_told_of_them_is_gone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a minion is that was killed: its program goes on, and tells another one."""
    monkeypatch.setattr("imager.stations.head.crew.FOLLOW_SECONDS", 0.5)
    monkeypatch.setattr("imager.stations.head.asking.QUIET_SECONDS", 600.0)
    followed: list[bytes] = []
    hear = lab.bus._hear

    def deaf(station: str, answers: IO[bytes], line: bytes) -> None:
        document = json.loads(line)
        if document["event"] == "bring" or not lab.bus.running[1:]:
            hear(station, answers, line)
            if any(one["phase"] == "write" for one in document.get("moments", ())):
                raise SystemExit  # its thread reads no more, and says nothing of an end
        else:
            followed.append(line)
            hear(station, answers, line)

    monkeypatch.setattr(lab.bus, "_hear", deaf)
    # So slow that whoever is to tell of it has begun before it ends, also on a busy computer.
    with throttled(lab.loops["desk1"][0], write_bps=4 * MiB, read_bps=4 * MiB):
        (result,) = lab.flash(["pi0"]).values()
    assert result.outcome is Outcome.VERIFIED
    assert any(b'"ended": ["pi0"]' in line for line in followed)


@LONG
def test_a_card_swapped_after_the_survey_is_not_written(lab: Lab) -> None:
    other = lab.loops["desk1"][0]

    def swap() -> None:
        with other.backing.open("r+b") as card:
            card.write(b"somebody's photos")

    with meanwhile(lab, swap):
        results = lab.flash(["pi0"])
    assert results["pi0"].outcome is Outcome.REFUSED
    assert first_mib(other.backing)[:17] == b"somebody's photos"
    assert lab.standing("pi0") is Standing.FAILED


@LONG
def test_cards_swapped_between_desks_after_the_survey_are_not_written(lab: Lab) -> None:
    """Both are blank and of one size: only the kernel's count of media tells."""
    one, other = (lab.loops[desk][0] for desk in DESKS)
    with ExitStack() as swapped:

        def swap() -> None:
            # The first file is free before the second device shows it.
            swapped.enter_context(exchanged(one, other.backing))
            swapped.enter_context(exchanged(other, one.backing))

        with meanwhile(lab, swap):
            results = lab.flash(["pi0", "pi1", "pi2"])
    for desk, loop in zip(DESKS, (one, other), strict=True):
        lab.loops[desk][0] = lab.held.enter_context(loop_over(loop.backing))
    call("udevadm", "settle")
    ended = {name: result.outcome for name, result in results.items()}
    assert ended == {
        "pi0": Outcome.REFUSED,
        "pi1": Outcome.VERIFIED,
        "pi2": Outcome.REFUSED,
    }
    error = results["pi0"].error
    assert error is not None
    assert "no longer the disk that was confirmed" in error.what
    assert any("diskseq" in detail for detail in error.details)
    for loop in (one, other):
        assert not any(first_mib(loop.backing))


@LONG
def test_nothing_secret_is_said_or_kept_on_a_station(lab: Lab) -> None:
    lab.flash(["pi0", "pi2", "pi3"])
    keys = [
        path.read_bytes()
        for path in (lab.place.rack / ".picloud/keys").rglob("*")
        if path.is_file() and path.suffix not in (".pub", ".json", ".lock")
    ]
    bodies = [line for key in keys for line in key.splitlines() if len(line) > 50]
    assert len(bodies) > 10
    kept = [
        path.read_bytes()
        for desk in DESKS
        for path in (lab.bus.folder / desk).rglob("*")
        if path.is_file() and path.stat().st_size < 2**26
    ]
    assert len(kept) > 4
    for data in (*kept, *lab.bus.lines):
        assert not any(body in data for body in bodies)


@LONG
def test_who_cannot_take_part_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.bus.silent.add("desk2")
    roll = lab.roll()
    assert roll.absent == {"desk2": "it does not answer"}
    assert {card.station for card in roll.cards.values()} == {"desk1"}
    lab.bus.silent.clear()
    monkeypatch.setattr("imager.stations.head.roll_call.tool_version", lambda: "9.9")
    with pytest.raises(TargetRefused, match="no station can take part") as refused:
        lab.roll()
    assert "and this is 9.9" in refused.value.details[0]
    monkeypatch.undo()
    monkeypatch.setattr("imager.stations.head.roll_call.CLOCK_SECONDS", -1000.0)
    with pytest.raises(TargetRefused) as refused:
        lab.roll()
    assert "its clock is" in refused.value.details[0]


@LONG
def test_nodes_without_a_card_and_why_end_the_command(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def reached(_: Session, rack: Rack, asked: Asked) -> Iterator[Stations]:
        assert rack.folder == lab.place.rack
        yield Stations(asked.names, lab.bus)

    monkeypatch.setattr("imager.cli.rack.flash.reached", reached)
    for name, value in lab.place.environment.items():
        monkeypatch.setenv(name, value)
    lab.bus.silent.add("desk2")

    def flash(nodes: str, names: str) -> tuple[int, list[dict[str, Any]]]:
        words = ["--json", "--offline", "rack", "flash", nodes, "--yes", "--stations", names]
        code = run(words)
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for nodes, made in (("pi[0-2]", ["pi0", "pi1"]), ("pi[0-2]", None)):
        code, events = flash(nodes, "desk[1-2]")
        assert code == 30, events
        (error,) = (event for event in events if event["event"] == "error")
        assert error["what"] == "no card for pi2, and left out: desk2"
        assert error["details"] == ["desk2: it does not answer"]
        assert events[-1].get("verified") == made
        assert events[-1]["exit_code"] == 30
    code, events = flash("pi[0-2]", "desk1")
    assert code == 20
    assert events[-2]["what"] == "there is no card at these stations for pi2"
    code, events = flash("pi[0-1]", "desk[1-2]")
    assert (code, events[-1]["without_card"]) == (0, []), "nobody misses desk2"


@LONG
def test_a_person_says_that_one_more_card_is_to_be_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.stations.head.crew.GIVE_UP_SECONDS", 3.0)
    monkeypatch.setattr("imager.stations.head.asking.QUIET_SECONDS", 2.0)
    with struck(lab, "desk2", lambda: lab.bus.silent.add("desk2")):
        lab.flash(["pi0", "pi1", "pi3"])
    assert lab.standing("pi3") is Standing.UNKNOWN
    blank(lab.loops["desk1"][1])
    again = lab.flash(["pi3"], again=True)
    assert again["pi3"].outcome is Outcome.VERIFIED
    assert again["pi3"].job.target.node.startswith("desk1:")
    for _, process in lab.bus.running:
        process.wait(120)
    lab.bus.silent.clear()
    lab.flash(["pi3"])
    # What desk2 says at last of the card before does not change what is known of this one.
    last = read_ledger(lab.place.rack).state_of("pi3").last
    assert last is not None
    assert last.target.startswith("desk1:")


@LONG
def test_a_golden_image_that_lies_is_written_on_no_card_and_fetched_anew(lab: Lab) -> None:
    assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED
    image = lab.bus.cache("desk1") / "golden" / lab.golden.key / "image"
    before = image.stat()
    chunk = max(lab.golden.manifest.extents, key=lambda extent: extent.length)
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.seek(chunk.offset + chunk.length // 2)
        file.write(b"a lie")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    lied = lab.flash(["pi0"], again=True, full=True)["pi0"]
    assert lied.outcome is Outcome.FAILED
    assert lied.error is not None
    assert "golden image was altered" in lied.error.what
    assert not any(first_mib(lab.loops["desk1"][0].backing))
    assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED
    assert b"a lie" not in image.read_bytes()


@LONG
def test_a_station_that_has_what_it_is_made_of_makes_the_image(lab: Lab) -> None:
    cache, other = lab.bus.cache("desk1"), lab.bus.cache("desk2")
    for root in (cache, other):
        shutil.rmtree(root / "golden", ignore_errors=True)
    lab.bus.published.clear()
    shutil.copytree(lab.place.cache / "releases", cache / "releases")
    try:
        results = lab.flash(["pi0"])
        assert results["pi0"].outcome is Outcome.VERIFIED
        assert lab.bus.published == {}, "it was not sent"
        made = cache / "golden" / lab.golden.key / "image"
        assert made.read_bytes() == lab.golden.path.read_bytes()
        # The other one has no archive: it is sent there.
        more = lab.flash(["pi1", "pi2"])
        assert {one.outcome for one in more.values()} == {Outcome.VERIFIED}
        assert len(lab.bus.published) == 1
    finally:
        shutil.rmtree(cache / "releases")


@LONG
def test_a_station_whose_archive_was_altered_touches_no_card_and_is_sent_the_image(
    lab: Lab,
) -> None:
    cache = lab.bus.cache("desk1")
    shutil.rmtree(cache / "golden", ignore_errors=True)
    lab.bus.published.clear()
    shutil.copytree(lab.place.cache / "releases", cache / "releases")
    try:
        (tarball,) = cache.glob("releases/*/*.tar.gz")
        tarball.chmod(0o644)
        with tarball.open("r+b") as file:
            file.seek(tarball.stat().st_size // 2)
            file.write(b"a lie")
        failed = lab.flash(["pi0"])["pi0"]
        assert failed.outcome is Outcome.FAILED
        assert failed.error is not None
        assert "could not be made of this station's archive" in failed.error.what
        assert "fetched from the head then" in failed.error.hint
        assert not any(first_mib(lab.loops["desk1"][0].backing))
        assert lab.bus.published == {}
        assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED
        assert len(lab.bus.published) == 1
    finally:
        shutil.rmtree(cache / "releases")


@LONG
def test_a_station_without_room_touches_no_card(lab: Lab) -> None:
    state = lab.bus.state("desk1")
    slots = (state / "slots.toml").read_bytes()
    with mounted(Path("tmpfs"), state, "-ttmpfs", "-osize=1M,mode=700"):
        (state / "slots.toml").write_bytes(slots)
        results = lab.flash(["pi0"])
    assert results["pi0"].job.target.node.startswith("desk1:")
    assert results["pi0"].outcome is Outcome.FAILED
    assert results["pi0"].error is not None
    assert "the reports of 1 cards may take" in results["pi0"].error.what
    assert not any(first_mib(lab.loops["desk1"][0].backing))
    assert lab.standing("pi0") is Standing.FAILED


@LONG
def test_a_station_without_room_for_the_golden_image_touches_no_card(lab: Lab) -> None:
    cache = lab.bus.cache("desk1")
    cache.mkdir(exist_ok=True)
    with mounted(Path("tmpfs"), cache, "-ttmpfs", "-osize=1M,mode=700"):
        results = lab.flash(["pi0", "pi1", "pi2"])
    ended = [results[name].outcome for name in ("pi0", "pi1", "pi2")]
    assert ended == [Outcome.FAILED, Outcome.FAILED, Outcome.VERIFIED]
    error = results["pi0"].error
    assert error is not None
    assert "and the golden image takes" in error.what
    assert not any(first_mib(lab.loops["desk1"][0].backing))
    assert lab.flash(["pi0"])["pi0"].outcome is Outcome.VERIFIED


@dataclass
class Attending(Looking):
    """A Watch and a Teller of a flashing station, which is told of each card that ended."""

    station: Station | None = None
    said: list[str] = field(default_factory=list)

    def ended(self, result: CardResult) -> None:
        assert self.station is not None
        self.station.ended(result)

    def offered(self, offer: Offer) -> None:
        self.said.append(f"{offer.step.candidate.slot} for {offer.step.node.name}")

    def withdrawn(self, offer: Offer) -> None:
        self.said.append(f"{offer.step.candidate.slot} is gone")

    def left(self, candidate: Candidate, because: str) -> None:
        self.said.append(because)

    def refused(self, unfit: Unfit) -> None:
        self.said.append(unfit.reasons[0])

    def absent(self, name: str, why: str) -> None:
        self.said.append(f"{name}: {why}")


@LONG
def test_a_card_put_in_at_any_desk_gets_the_next_node(lab: Lab) -> None:
    rack = load_rack(lab.place.rack)
    nodes = tuple(rack.node(name) for name in ("pi0", "pi1", "pi2", "pi3"))
    images = dict.fromkeys((node.name for node in nodes), lab.golden)
    lab.bus.silent.add("desk2")
    desks, view = Stations(DESKS, lab.bus), Attending()
    with batch_lock(rack.folder), opened(lab.golden) as golden:
        orders = Orders(rack, lambda _: golden, Limits())
        readers = StationReaders(desks, orders, images)
        names = [node.name for node in nodes]
        cache = Cache(lab.place.cache)
        with shift_on_stations(cache, orders, desks, readers, names, view) as (shift, _):
            plans = Plans(nodes, images, Slots({}), 0.0, again=False)
            view.station = Station(orders, plans, shift, view, time.monotonic)
            until = time.monotonic() + 240
            while not view.station.is_over:
                assert time.monotonic() < until, view.said
                readers.tell(view.station, view, 0.0)
                view.station.look()
                shift.turn(0.2)
                if len(shift.results) == 2:
                    lab.bus.silent.clear()  # desk2 is switched on
    assert {lab.standing(name) for name in names} == {Standing.VERIFIED}
    assert "desk2: it does not answer" in view.said
    assert {"Y0 for pi0", "Y1 for pi1", "Z0 for pi2", "Z1 for pi3"} <= set(view.said)

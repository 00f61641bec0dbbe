"""The flashing station with real cards coming and going: loop devices under udevd."""

from __future__ import annotations

import json
import queue
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from imager.base.units import KiB, MiB
from imager.node.stamp.stamp import STAMP_AREA
from imager.rack.history.events import Standing
from imager.rack.history.ledger import read_ledger
from tests.support.hostile import HostileFat, make_ext4
from tests.support.loop import (
    call,
    loop_over,
    missing_abilities,
    sized_file,
    socket_links,
    strangers,
    udevd_running,
)
from tests.support.rackcards import SIZE, first_mib, forget, is_whole
from tests.support.stamps import DOCUMENT, by_hand
from tests.support.workplace import Workplace, workplace

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]
PATIENCE = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    with udevd_running(), workplace(tmp_path_factory.mktemp("workplace")) as found:
        assert found.run("compose").code == 0
        yield found


@dataclass
class Readers:
    """Slots with labels, and a file for the card that goes into each."""

    place: Workplace
    cards: dict[str, Path]

    @contextmanager
    def with_card(self, label: str) -> Iterator[Path]:
        """The card of ``label`` is in its slot."""
        with loop_over(self.cards[label]) as loop:
            yield loop.node


@pytest.fixture
def readers(place: Workplace, tmp_path: Path) -> Iterator[Readers]:
    """A2, A3, A4 belong to pi1, pi2, pi3; X1 is a slot of no node."""
    forget(place)
    labels = ("A2", "A3", "A4", "X1")
    cards = {label: sized_file(tmp_path / f"{label}.raw", SIZE) for label in labels}
    names = {card: f"pci-0000:00:14.0-usb-0:{label}:1.0-test" for label, card in cards.items()}
    slots = "".join(f'{label} = "{names[card]}"\n' for label, card in cards.items())
    (place.rack / "slots.toml").write_text(f"[slots]\n{slots}")
    with socket_links(names):
        yield Readers(place, cards)
    (place.rack / "slots.toml").unlink()


@dataclass
class Watching:
    """``rack watch`` at work, and what it said."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    told: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)

    def until(
        self, what: str, fits: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """The next event that ``fits``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.told.get(timeout=left)
            except queue.Empty:
                break
            assert event is not None, f"it ended before {what}: {self.events[-3:]}"
            self.events.append(event)
            if fits(event):
                return event
        raise AssertionError(f"no {what}: {self.events[-3:]}")

    def ended_within(self, seconds: float) -> bool:
        """Whether the program ends by itself meanwhile."""
        try:
            return self.process.wait(seconds) is not None
        except subprocess.TimeoutExpired:
            return False

    def card(self, node: str) -> dict[str, Any]:
        return self.until(f"end of {node}", lambda e: e["event"] == "card" and e["node"] == node)

    def end(self, code: int) -> dict[str, Any]:
        result = self.until("result", lambda e: e["event"] == "result")
        assert self.process.wait(timeout=PATIENCE) == code, result
        return result


@contextmanager
def watching(place: Workplace, *words: str) -> Iterator[Watching]:
    process = subprocess.Popen(
        place.command("rack", "watch", "--countdown", "0.3", "--json", *words),
        cwd=place.folder,
        env=place.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = Watching(process)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.lines.append(line.removesuffix("\n"))
            found.told.put(json.loads(line))
        found.told.put(None)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        found.until("beginning", lambda e: e["event"] == "note" and "Ctrl-C ends" in e["message"])
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def test_one_card_after_the_other_until_every_node_has_one(readers: Readers) -> None:
    place = readers.place
    with watching(place, "pi[1-2]") as station:
        for label, node in (("A3", "pi2"), ("A2", "pi1")):
            with readers.with_card(label) as device:
                offer = station.until("offer", lambda e: e["event"] == "offer")
                assert (offer["node"], offer["slot"], offer["asks"]) == (node, label, False)
                card = station.card(node)
                assert (card["outcome"], card["target"]) == ("verified", str(device))
        result = station.end(0)
    assert sorted(result["verified"]) == ["pi1", "pi2"]
    for node in result["nodes"]:
        label = {"pi1": "A2", "pi2": "A3"}[node["node"]]
        assert is_whole(readers.cards[label], place, node["receipt"])


def test_a_card_that_is_done_is_not_done_twice(readers: Readers) -> None:
    with watching(readers.place, "pi[1-2]") as station:
        with readers.with_card("A2"):
            station.card("pi1")
        before = first_mib(readers.cards["A2"])
        with readers.with_card("A2"):
            left = station.until("left", lambda e: e["event"] == "left")
            assert left["because"] == "it is pi1's, and is done"
        assert first_mib(readers.cards["A2"]) == before
        station.process.send_signal(signal.SIGINT)
        result = station.end(130)
    assert result["without_card"] == ["pi2"]


def test_a_stranger_s_card_in_a_slot_of_no_node_is_left_alone(readers: Readers) -> None:
    call("mkfs.ext4", "-q", "-L", "holiday", str(readers.cards["X1"]))
    before = first_mib(readers.cards["X1"])
    with watching(readers.place, "pi[1-2]") as station:
        with readers.with_card("X1"):
            offer = station.until("offer", lambda e: e["event"] == "offer")
            assert (offer["asks"], offer["holds"]) == (True, "foreign")
            time.sleep(1)
        with readers.with_card("A2"):
            station.card("pi1")
        station.process.send_signal(signal.SIGINT)
        station.end(130)
    assert first_mib(readers.cards["X1"]) == before


def test_a_stranger_s_card_holds_no_node_back(readers: Readers) -> None:
    call("mkfs.ext4", "-q", "-L", "holiday", str(readers.cards["X1"]))
    with watching(readers.place, "pi[1-2]") as station:
        with readers.with_card("X1"):
            offer = station.until("offer", lambda e: e["event"] == "offer")
            assert offer["node"] == "pi1"
            with readers.with_card("A2"):
                offers = [station.until("offer", lambda e: e["event"] == "offer") for _ in "12"]
                assert [offer["node"] for offer in offers] == ["pi1", "pi2"]
                assert station.card("pi1")["outcome"] == "verified"
        station.process.send_signal(signal.SIGINT)
        station.end(130)


def test_why_a_card_is_left_alone_is_said_once(readers: Readers) -> None:
    """It is judged again whenever another card is done, and the answer is the same."""
    call("mkfs.ext4", "-q", "-L", "holiday", str(readers.cards["X1"]))
    with watching(readers.place, "pi[1-2]") as station:
        with readers.with_card("X1"), readers.with_card("A2"), readers.with_card("A3"):
            station.end(0)
        left = [event for event in station.events if event["event"] == "left"]
    assert [event["because"] for event in left] == ["no node needs a card any more"]


def test_no_card_is_missed_while_strange_disks_come_and_go(
    readers: Readers, tmp_path: Path
) -> None:
    """Each is told once, however many events of disks that are no cards lie before it."""
    cards = ["A2", "A3", "A4"] * 3
    with watching(readers.place, "pi[1-3]", "--countdown", "600") as station:
        with strangers(tmp_path, 4):
            time.sleep(3)
            for label in cards:
                with readers.with_card(label) as device:
                    told = station.until("offer", lambda e: e["event"] == "offer")
                    assert (told["slot"], told["target"]) == (label, str(device))
        station.process.send_signal(signal.SIGINT)
        station.end(130)
    offers = [event["slot"] for event in station.events if event["event"] == "offer"]
    assert offers == cards


EVIL = "\x1b[2J\u202epi1 signed by this rack's key"


def _of_a_stranger_who_means_harm(card: Path, folder: Path) -> None:
    """Folders within each other, and a name for the system that would move the cursor."""
    release = folder / "os-release"
    release.write_text(f'PRETTY_NAME="{EVIL}"\n')
    layout = HostileFat(label=b"\x1b[2J       ").write(card, root_bytes=64 * MiB)
    deep = islice(cycle(["mkdir nnn", "cd nnn"]), 2000)
    inside = ["mkdir etc", f"write {release} etc/os-release", "mkdir deep", "cd deep", *deep]
    make_ext4(card, layout, inside, "-L", "\x1b[31mred")


@pytest.mark.long(minutes=1)
def test_cards_of_strangers_who_mean_harm_cost_the_station_nothing(
    readers: Readers, tmp_path: Path
) -> None:
    """Every card is one, and two of them have a stamp: the longest that there can be, and one that
    says it is a node's of this rack."""
    ranges = [(at, 1) for at in range(0, 20_000 * MiB, MiB)]
    stamps = {
        "A2": by_hand({**DOCUMENT, "size_bytes": SIZE}, ranges, [b"w" * 32] * len(ranges), []),
        "A3": by_hand({**DOCUMENT, "node": EVIL, "rack": EVIL}),
    }
    for label, card in readers.cards.items():
        _of_a_stranger_who_means_harm(card, tmp_path)
        with card.open("r+b") as file:
            file.truncate(SIZE)
            file.seek(STAMP_AREA.offset)
            file.write(stamps.get(label, b""))
    before = first_mib(readers.cards["X1"])
    with watching(readers.place, "pi[1-3]") as station:
        with readers.with_card("X1"):
            offer = station.until("offer", lambda e: e["event"] == "offer")
            assert (offer["asks"], offer["slot"], offer["about"]) == (True, "X1", EVIL)
        for label, node in (("A2", "pi1"), ("A3", "pi2"), ("A4", "pi3")):
            with readers.with_card(label):
                assert station.card(node)["outcome"] == "verified"
                status = Path(f"/proc/{station.process.pid}/status").read_text()
        station.end(0)
    assert first_mib(readers.cards["X1"]) == before
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    assert int(peak) * KiB < 300 * MiB
    assert all(line.isprintable() for line in station.lines)


def test_a_card_taken_out_before_its_turn_is_forgotten(readers: Readers) -> None:
    with watching(readers.place, "pi[1-2]", "--countdown", "20") as station:
        with readers.with_card("A2"):
            station.until("offer", lambda e: e["event"] == "offer")
        time.sleep(0.5)
        station.process.send_signal(signal.SIGINT)
        station.end(130)
    assert read_ledger(readers.place.rack).state_of("pi1").standing() is Standing.NEVER
    assert not any(first_mib(readers.cards["A2"]))


@pytest.mark.long(minutes=1)
def test_a_storm_of_cards_that_come_and_go(readers: Readers) -> None:
    """Whatever comes and goes, the station lives, and in the end each node has a whole card."""
    chance = random.Random(3)
    place = readers.place
    with watching(place, "pi[1-3]") as station:
        for _ in range(12):
            labels = chance.sample(["A2", "A3", "A4", "X1"], chance.randrange(1, 4))
            with ExitStack() as cards:
                for label in labels:
                    cards.enter_context(readers.with_card(label))
                time.sleep(chance.uniform(0, 0.6))
        for _ in range(6):
            with ExitStack() as cards:
                for label in ("A2", "A3", "A4"):
                    cards.enter_context(readers.with_card(label))
                if station.ended_within(60):
                    break
        station.end(0)
    ledger = read_ledger(place.rack)
    assert ledger.unread == 0
    for label, node in (("A2", "pi1"), ("A3", "pi2"), ("A4", "pi3")):
        last = ledger.state_of(node).last
        assert last is not None
        assert last.is_verified, last
        assert is_whole(readers.cards[label], place, last.receipt)


def test_without_udevd_it_says_so(place: Workplace, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    words = " ".join(place.command("rack", "watch"))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount --bind {hidden} /run/udev && {words}"],
        cwd=place.folder,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 40, done.stderr
    assert "udevd does not run here" in done.stderr

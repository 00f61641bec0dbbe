"""``rack slots`` with cards that are really put in: loop devices, udevd, links in by-path."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from imager.base.units import MiB
from imager.card.host.arrivals import arrivals
from imager.rack.plan.slots import load_slots
from tests.support.loop import (
    call,
    exchanged,
    loop_over,
    missing_abilities,
    named_by_udevd,
    sized_file,
    socket_links,
    udevd_running,
)

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities()),
]

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def udevd() -> Iterator[None]:
    with udevd_running():
        yield


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[list[Path]]:
    """Four card files, each of which appears in a socket of its own."""
    files = [sized_file(tmp_path / f"card{number}.img", 8 * MiB) for number in range(4)]
    with socket_links({file: f"picloud-{os.getpid()}-usb-0:{n}" for n, file in enumerate(files)}):
        yield files


@pytest.fixture
def rack(tmp_path: Path) -> Path:
    folder = tmp_path / "rack"
    folder.mkdir()
    (folder / "rack.toml").write_text('[rack]\nnodes = "pi[0-3]"\nslots = "A[1-3],B1"\n')
    return folder


class Command:
    """The running command, its JSON lines taken as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line)

    def next(self, event: str) -> dict[str, Any]:
        """The next line with this event; others are passed over."""
        while True:
            line: dict[str, Any] = json.loads(self._lines.get(timeout=WAIT_SECONDS))
            if line["event"] == event:
                return line

    def says(self, part: str) -> None:
        """Wait for the note that holds ``part``."""
        while part not in self.next("note")["message"]:
            pass

    def lesson(self) -> dict[str, Any]:
        """What the next of our cards taught; disks that others attach meanwhile have no slot."""
        while (found := self.next("slot"))["slot"] is None:
            pass
        return found

    def ends_with(self) -> int:
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join()
        return code


@contextmanager
def running(rack: Path, *words: str) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-m", "imager", "--json", "--rack", str(rack), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    command = Command(process)
    try:
        yield command
    finally:
        process.kill()
        command.ends_with()
        if process.stdout:
            process.stdout.close()


def shown(rack: Path) -> dict[str, dict[str, Any]]:
    with running(rack, "rack", "slots", "show") as command:
        result = command.next("result")
        assert command.ends_with() == 0
    return {slot["label"]: slot for slot in result["slots"]}


def test_each_card_put_in_names_its_slot(rack: Path, cards: list[Path]) -> None:
    with ExitStack() as inserted, running(rack, "rack", "slots", "learn") as command:
        command.says("shall be A1")
        for number, label in ((2, "A1"), (0, "A2"), (3, "A3"), (1, "B1")):
            loop = inserted.enter_context(loop_over(cards[number]))
            lesson = command.lesson()
            assert (lesson["label"], lesson["device"]) == (label, str(loop.node))
            assert Path(lesson["slot"]).name.endswith(f"usb-0:{number}")
        assert len(command.next("result")["learned"]) == 4
        assert command.ends_with() == 0
        slots = shown(rack)
        assert [slot["node"] for slot in slots.values()] == ["pi0", "pi1", "pi2", "pi3"]
        assert all(slot["device"] for slot in slots.values())
    assert not any(slot["device"] for slot in shown(rack).values())


def test_a_card_that_is_in_already_is_no_lesson_when_udev_names_it_late(
    rack: Path, cards: list[Path], tmp_path: Path
) -> None:
    late = sized_file(tmp_path / "late.img", 8 * MiB)
    with loop_over(late) as early, running(rack, "rack", "slots", "learn") as command:
        command.says(f"{early.node} is in already")
        with named_by_udevd({late: f"picloud-{os.getpid()}-usb-0:9"}):
            call("udevadm", "trigger", "--settle", str(early.node))
            with loop_over(cards[0]) as card:
                assert command.lesson()["device"] == str(card.node)
        command.process.send_signal(signal.SIGINT)
        command.ends_with()


def test_a_slot_is_learned_once_and_what_was_learned_survives_ctrl_c(
    rack: Path, cards: list[Path]
) -> None:
    with loop_over(cards[3]) as early, running(rack, "rack", "slots", "learn") as command:
        command.says(f"{early.node} is in already")
        with loop_over(cards[0]):
            assert command.lesson()["label"] == "A1"
        with loop_over(cards[0]):
            again = command.lesson()
            assert (again["label"], again["already"]) == ("A1", True)
        command.process.send_signal(signal.SIGINT)
        assert "A2, A3, B1 not yet" in command.next("error")["what"]
        assert command.ends_with() == 130
    assert list(load_slots(rack).names) == ["A1"]


def test_a_storm_of_cards_leaves_what_is_in(cards: list[Path]) -> None:
    """Many changes between two looks: the card that stays is told, with its links."""
    with arrivals() as watch, ExitStack() as stack:
        loop = stack.enter_context(loop_over(cards[0]))
        for other in (cards[1], cards[0]) * 5:
            with exchanged(loop, other):
                pass
        last = stack.enter_context(exchanged(loop, cards[2]))
        # udevd needs half a second for each of some thirty events where the computer is busy.
        while (change := watch.wait(WAIT_SECONDS)) and not (
            change.name == last.name and change.disk is not None
        ):
            pass
        assert change is not None
        assert change.disk is not None
        assert change.disk.backing_file == cards[2]
        assert change.disk.by_path[0].endswith("usb-0:2")

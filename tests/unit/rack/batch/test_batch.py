"""A batch is in the ledger from its begin to its end, and a signal stops it between two steps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from imager.base.errors import HostStorage
from imager.base.units import MiB
from imager.card.host.target import Limits
from imager.config.rack import Node, Rack
from imager.node.edit.edit import OpenGolden
from imager.rack.batch.batch import exit_code_of, flash
from imager.rack.batch.card_progress import CardEvent
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.workers import AtWork, CardResult, Job, interruptible
from imager.rack.history.events import BatchBegun, BatchEnded
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.racks import rack_in


class Shown:
    """A Watch that presses Ctrl-C when the first job ends, if it is told to."""

    def __init__(self, number: int | None = None) -> None:
        self.number = number
        self.begun: list[str] = []

    def began(self, job: Job) -> None:
        self.begun.append(job.name)

    def heard(self, job: Job, event: CardEvent) -> None:
        pass

    def ended(self, result: CardResult) -> None:
        if self.number is not None:
            number, self.number = self.number, None
            os.kill(os.getpid(), number)

    def turn(self, crew: AtWork) -> None:
        pass


def no_golden(node: Node) -> OpenGolden:
    raise HostStorage(f"no image for {node.name}", hint="free some space")


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path, '[rack]\nnodes = "pi[0-2]"\n')


@pytest.fixture
def jobs(rack: Rack) -> Iterator[list[CardJob]]:
    with ExitStack() as held:
        cards: list[MemoryCard] = [held.enter_context(memory_card(MiB)) for _ in rack.nodes]
        yield [CardJob(node, card, MiB) for node, card in zip(rack.nodes, cards, strict=True)]


def flashed(rack: Rack, jobs: list[CardJob], watch: Shown) -> tuple[CardResult, ...]:
    return flash(Orders(rack, no_golden, Limits(), at_once=1), jobs, watch)


def test_every_job_has_its_result_in_the_order_of_the_jobs(rack: Rack, jobs: list[CardJob]) -> None:
    results = flashed(rack, jobs[::-1], Shown())
    assert [result.job.name for result in results] == ["pi2", "pi1", "pi0"]
    assert [result.fault for result in results] == [
        f"failed: no image for {name}" for name in ("pi2", "pi1", "pi0")
    ]


def test_the_ledger_knows_who_began_it_for_whom_and_how_it_ended(
    rack: Rack, jobs: list[CardJob]
) -> None:
    flashed(rack, jobs, Shown())
    begun, ended = read_ledger(rack.folder).events
    assert isinstance(begun, BatchBegun)
    assert isinstance(ended, BatchEnded)
    assert (begun.nodes, begun.process) == (("pi0", "pi1", "pi2"), os.getpid())
    assert ended.batch == begun.batch
    assert ended.exit_code == 30


def test_two_batches_have_two_names(rack: Rack, jobs: list[CardJob]) -> None:
    flashed(rack, jobs[:1], Shown())
    flashed(rack, jobs[1:2], Shown())
    events = read_ledger(rack.folder).events
    names = {event.batch for event in events if isinstance(event, BatchBegun)}
    assert len(names) == 2
    assert all(re.fullmatch(r"20\d\d-.*Z-[0-9a-f]{4}", name) for name in names), names


def test_without_room_for_the_receipts_no_batch_begins(
    rack: Rack, jobs: list[CardJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 100, 100, 100, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    watch = Shown()
    with pytest.raises(HostStorage, match="receipts of 3 cards"):
        flashed(rack, jobs, watch)
    assert watch.begun == []
    assert read_ledger(rack.folder).events == ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_begins_no_other_card_and_is_given_back(
    rack: Rack, jobs: list[CardJob], number: int
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    watch = Shown(number)
    results = flashed(rack, jobs, watch)
    assert watch.begun == ["pi0"]
    assert [result.outcome for result in results[1:]] == [Outcome.INTERRUPTED] * 2
    ended = read_ledger(rack.folder).events[-1]
    assert isinstance(ended, BatchEnded)
    assert ended.exit_code == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_exit_code_is_that_of_the_worst(jobs: list[CardJob]) -> None:
    def code(*outcomes: Outcome) -> int:
        return exit_code_of([CardResult(jobs[0], outcome) for outcome in outcomes])

    good, bad, stopped = Outcome.VERIFIED, Outcome.FAULTY, Outcome.INTERRUPTED
    assert (code(good, good), code(good, bad), code(bad, stopped, good)) == (0, 30, 130)


STORM = """
import os, signal, threading
from imager.rack.batch.workers import interruptible

class Idle:
    def close(self):
        pass

def storm():
    for _ in range(5_000):
        os.kill(os.getpid(), signal.SIGINT)

with interruptible(Idle()) as stopped:
    sender = threading.Thread(target=storm)
    sender.start()
    while sender.is_alive():
        stopped.set()  # as a station does that is told to stop
    print(stopped.is_set())
"""


def test_ctrl_c_pressed_again_and_again_stops_it_and_holds_up_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "True\n"


def test_signals_are_given_back_after_an_exception_and_the_crew_is_closed(rack: Rack) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    crew = Crew(Orders(rack, no_golden, Limits()), Shown())
    with pytest.raises(ZeroDivisionError), interruptible(crew) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.is_set()
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(RuntimeError, match="shutdown"):
        crew._preparers.submit(print)

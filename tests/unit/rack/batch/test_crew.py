"""A crew always ends: whatever stops one card's work, the others get their turn and a result.

The golden image is what each worker asks for first, so that is where these tests hold a worker up
or make it fail. tests/image/test_crew.py makes whole cards.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from imager.base.errors import HostStorage, Interrupted
from imager.base.units import MiB
from imager.card.host.target import Limits, Target
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.config.rack import Node, Rack
from imager.node.edit.edit import OpenGolden
from imager.rack.batch.card_progress import CardEvent
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.limiter import FIRST, Limiter
from imager.rack.batch.workers import BUFFERS_BYTES, AtWork, CardResult, Job, memory_share
from imager.rack.history.outcome import Outcome
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.racks import rack_in

CARDS = FIRST + 3
PORT = "usb1/1-1"
PATIENCE_SECONDS = 30.0


class Seen:
    """A Watch that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.over: list[str] = []
        self.most_at_once = 0

    def began(self, job: Job) -> None:
        self.begun.append(job.name)

    def heard(self, job: Job, event: CardEvent) -> None:
        pass

    def ended(self, result: CardResult) -> None:
        self.over.append(result.job.name)

    def turn(self, crew: AtWork) -> None:
        self.most_at_once = max(self.most_at_once, len(crew.at_work))


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path, f'[rack]\nnodes = "pi[0-{CARDS - 1}]"\n')


@pytest.fixture
def cards() -> Iterator[list[MemoryCard]]:
    with ExitStack() as held:
        yield [held.enter_context(memory_card(MiB, PORT)) for _ in range(CARDS)]


def jobs_for(rack: Rack, cards: list[MemoryCard]) -> list[CardJob]:
    return [CardJob(node, card, MiB) for node, card in zip(rack.nodes, cards, strict=False)]


def crew_of(
    rack: Rack,
    jobs: list[CardJob],
    golden_of: Callable[[Node], OpenGolden],
    at_once: int | None = None,
) -> tuple[Crew, Seen]:
    seen = Seen()
    crew = Crew(Orders(rack, golden_of, Limits(), at_once=at_once), seen)
    for job in jobs:
        crew.add(job)
    return crew, seen


def until(crew: Crew, done: Callable[[], bool]) -> None:
    """Take turns until ``done``; a crew that hangs fails the test instead."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        crew.turn(0.01)
        assert time.monotonic() < deadline, f"the crew hangs: {crew.at_work} {crew.waiting}"


def finish(crew: Crew) -> dict[str, CardResult]:
    until(crew, lambda: not crew.is_busy)
    crew.close()
    return {result.job.name: result for result in crew.results}


class Gate:
    """Holds every worker up until it is opened, then fails."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting: list[str] = []

    def golden_of(self, node: Node) -> OpenGolden:
        self.waiting.append(node.name)
        assert self.open.wait(PATIENCE_SECONDS)
        raise HostStorage(f"no image for {node.name}", hint="free some space")


def test_a_port_takes_so_many_cards_and_gets_its_places_back(
    rack: Rack, cards: list[MemoryCard]
) -> None:
    gate = Gate()
    crew, seen = crew_of(rack, jobs_for(rack, cards), gate.golden_of)
    until(crew, lambda: len(gate.waiting) == FIRST)
    crew.turn(0.05)
    assert len(crew.at_work) == FIRST
    assert [job.name for job in crew.waiting] == [f"pi{n}" for n in range(FIRST, CARDS)]
    gate.open.set()
    results = finish(crew)
    assert seen.begun == [f"pi{n}" for n in range(CARDS)]
    assert seen.most_at_once == FIRST
    assert {result.outcome for result in results.values()} == {Outcome.FAILED}
    assert results["pi6"].fault == "failed: no image for pi6"


def test_no_more_cards_at_once_than_the_person_wants(rack: Rack, cards: list[MemoryCard]) -> None:
    gate = Gate()
    gate.open.set()
    crew, seen = crew_of(rack, jobs_for(rack, cards), gate.golden_of, at_once=1)
    assert len(finish(crew)) == CARDS
    assert seen.most_at_once <= 1
    assert seen.over == seen.begun


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), MemoryError(), KeyError("x")])
def test_whatever_ends_a_worker_is_a_result_and_the_others_go_on(
    rack: Rack, cards: list[MemoryCard], error: BaseException
) -> None:
    def golden_of(node: Node) -> OpenGolden:
        if node.name == "pi0":
            raise error
        raise HostStorage("full", hint="free some space")

    crew, _ = crew_of(rack, jobs_for(rack, cards), golden_of)
    results = finish(crew)
    assert sorted(results) == sorted(node.name for node in rack.nodes)
    mistake = results["pi0"].error
    assert mistake is not None
    assert results["pi0"].outcome is Outcome.FAILED
    assert mistake.what.startswith(f"a mistake of picloud-image: {type(error).__name__}")
    assert any("golden_of" in line for line in mistake.details)
    assert not results["pi0"].is_verified
    assert isinstance(results["pi1"].error, HostStorage)
    assert 0 <= results["pi0"].seconds < PATIENCE_SECONDS


def test_a_worker_that_is_interrupted_early_says_so(rack: Rack, cards: list[MemoryCard]) -> None:
    def golden_of(node: Node) -> OpenGolden:
        raise KeyboardInterrupt

    crew, _ = crew_of(rack, jobs_for(rack, cards[:1]), golden_of)
    result = finish(crew)["pi0"]
    assert result.outcome is Outcome.INTERRUPTED
    assert isinstance(result.error, Interrupted)
    assert "before its card was touched" in result.error.what


def test_stop_begins_no_other_card(rack: Rack, cards: list[MemoryCard]) -> None:
    gate = Gate()
    crew, seen = crew_of(rack, jobs_for(rack, cards), gate.golden_of, at_once=2)
    until(crew, lambda: len(gate.waiting) == 2)
    crew.stop()
    assert crew.waiting == []
    assert crew.is_busy, "two are under way still"
    gate.open.set()
    results = finish(crew)
    assert seen.begun == ["pi0", "pi1"]
    assert sorted(gate.waiting) == ["pi0", "pi1"]
    for number in range(2, CARDS):
        result = results[f"pi{number}"]
        assert result.outcome is Outcome.INTERRUPTED
        assert isinstance(result.error, Interrupted)
        assert result.error.what == f"{cards[number].node}: not begun"
    assert sorted(seen.over) == sorted(node.name for node in rack.nodes)


def test_close_waits_for_the_workers_and_forgets_the_rest(
    rack: Rack, cards: list[MemoryCard]
) -> None:
    gate = Gate()
    crew, seen = crew_of(rack, jobs_for(rack, cards), gate.golden_of, at_once=1)
    until(crew, lambda: len(gate.waiting) == 1)
    threading.Timer(0.2, gate.open.set).start()
    crew.close()
    assert gate.open.is_set()
    assert not crew.is_busy
    assert seen.begun == ["pi0"]
    assert not [one for one in threading.enumerate() if one.name.startswith("card of ")]


def test_a_moment_is_known_from_the_beginning_on(rack: Rack, cards: list[MemoryCard]) -> None:
    gate = Gate()
    crew, _ = crew_of(rack, jobs_for(rack, cards), gate.golden_of, at_once=1)
    assert crew.moment("pi0") is None
    until(crew, lambda: len(gate.waiting) == 1)
    found = crew.moment("pi0")
    assert found is not None
    assert found.moved_bytes == 0
    assert crew.moment("pi1") is None
    gate.open.set()
    finish(crew)


@pytest.mark.parametrize("end", [Crew.stop, Crew.close])
def test_a_card_that_reports_is_stopped(
    rack: Rack, cards: list[MemoryCard], end: Callable[[Crew], None]
) -> None:
    began = threading.Event()

    def golden_of(node: Node) -> OpenGolden:
        began.set()
        for _ in range(int(PATIENCE_SECONDS * 100)):
            crew.boards[node.name].require_going_on()
            time.sleep(0.01)
        raise HostStorage("not stopped", hint="stop it")

    crew, seen = crew_of(rack, jobs_for(rack, cards[:1]), golden_of)
    until(crew, began.is_set)
    before = time.monotonic()
    end(crew)
    finish(crew)
    assert time.monotonic() - before < PATIENCE_SECONDS / 2
    assert [result.outcome for result in crew.results] == [Outcome.INTERRUPTED] * len(seen.over)


def test_the_memory_for_transfers_is_shared_by_all_that_wait(
    rack: Rack, cards: list[MemoryCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[int] = []
    real = options_for

    def noted(target: Target, *, most_bytes: int) -> WriteOptions:
        shares.append(most_bytes)
        return real(target, most_bytes=most_bytes)

    monkeypatch.setattr("imager.rack.batch.workers.options_for", noted)
    gate = Gate()
    gate.open.set()
    crew, _ = crew_of(rack, jobs_for(rack, cards), gate.golden_of, at_once=1)
    finish(crew)
    assert shares == [BUFFERS_BYTES // left for left in range(CARDS, 0, -1)]
    assert [memory_share(cards) for cards in (0, 1, 2)] == [96 * MiB, 96 * MiB, 48 * MiB]


def test_the_limiter_hears_what_each_card_moved_since_the_last_turn(
    rack: Rack, cards: list[MemoryCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a second card for the same node, which begins at nothing."""
    moved: list[int] = []
    monkeypatch.setattr(Limiter, "moved", lambda _, name, size_bytes: moved.append(size_bytes))
    gates = [Gate(), Gate()]
    crew, _ = crew_of(rack, [], lambda node: gates[0].golden_of(node))
    (job,) = jobs_for(rack, cards[:1])
    while gates:
        crew.add(job)
        crew.turn(0)
        with crew.boards[job.name].phase("write") as phase:
            for size_bytes in (100, 0, 50):
                phase.advance(size_bytes)
                crew.turn(0)
        gates[0].open.set()
        until(crew, lambda: not crew.is_busy)
        del gates[0]
    crew.close()
    assert [size_bytes for size_bytes in moved if size_bytes] == [100, 50, 100, 50]


def test_one_word_is_not_said_twice(rack: Rack, cards: list[MemoryCard]) -> None:
    (job,) = jobs_for(rack, cards[:1])
    stopped = CardResult(job, Outcome.INTERRUPTED, error=Interrupted("interrupted", hint="again"))
    assert stopped.fault == "interrupted"


def test_a_signal_at_the_end_of_a_turn_does_not_make_it_endless(rack: Rack) -> None:
    """Ctrl-C may come at any moment of a turn, also at the very end of its wait."""
    crew, _ = crew_of(rack, [], Gate().golden_of)
    end = time.monotonic() + PATIENCE_SECONDS
    over = threading.Event()

    def heard(*_: object) -> None:
        time.sleep(0.001)
        assert time.monotonic() < end, "the turn does not end"

    def storm(thread: int) -> None:
        while not over.wait(0.0017):
            signal.pthread_kill(thread, signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, heard)
    sender = threading.Thread(target=storm, args=(threading.get_ident(),))
    sender.start()
    try:
        for _ in range(200):
            crew.turn(0.001)
    finally:
        over.set()
        sender.join()
        signal.signal(signal.SIGUSR1, previous)

"""A crew makes whole cards, stops them where they are, and touches none that would not boot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.errors import Interrupted, WouldNotBoot
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import HeldTarget, Limits, Target
from imager.card.host.targets import target_at
from imager.card.inspect.verify import open_target, verify_card
from imager.config.rack import Rack
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.node.edit.edit import OpenGolden, opened
from imager.rack.batch.card_progress import CardEvent, PhaseBegan
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.workers import AtWork, CardResult, Job
from imager.rack.history.events import CardFinished
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.racks import rack_in
from tests.support.release import build_release

pytestmark = pytest.mark.image

SIZE = 1400 * MiB
"""A little more than the golden image of the small release."""
OLD = b"what somebody had on this card"
RACK = '[rack]\nnodes = "pi[0-2]"\n[swap]\nsize = "0"\n'


@pytest.fixture(scope="module")
def golden_image(tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    folder = tmp_path_factory.mktemp("golden")
    return compose(build_release(folder), Cache(folder / "cache"), Quiet())


@pytest.fixture
def golden(golden_image: GoldenImage) -> Iterator[OpenGolden]:
    with opened(golden_image) as golden:
        yield golden


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", RACK)


@pytest.fixture
def cards() -> Iterator[list[MemoryCard]]:
    with ExitStack() as held:
        cards = [held.enter_context(memory_card(SIZE)) for _ in range(3)]
        for card in cards:
            os.pwrite(card.fd, OLD, 0)
        yield cards


@dataclass
class Stopping:
    """A Watch that stops the crew when a card's ``phase`` begins."""

    phase: str = ""
    crew: Crew | None = None

    def began(self, job: Job) -> None:
        pass

    def heard(self, job: Job, event: CardEvent) -> None:
        if self.crew and isinstance(event, PhaseBegan) and event.phase == self.phase:
            self.crew.stop()

    def ended(self, result: CardResult) -> None:
        pass

    def turn(self, crew: AtWork) -> None:
        pass


def made(
    golden: OpenGolden,
    rack: Rack,
    targets: list[Target],
    *,
    stop_at: str = "",
    at_once: int | None = None,
) -> dict[str, CardResult]:
    """The results of making one card for each of ``targets``."""
    watch = Stopping(stop_at)
    crew = Crew(Orders(rack, lambda _: golden, Limits(), at_once=at_once), watch)
    watch.crew = crew
    for node, target in zip(rack.nodes, targets, strict=False):
        crew.add(CardJob(node, target, SIZE))
    while crew.is_busy:
        crew.turn()
    crew.close()
    for result in crew.results:
        if result.receipt is not None:
            told = crew.boards[result.job.name].moment()
            there_and_back = 2 * result.receipt.manifest.extents.total_bytes
            assert told.moved_bytes >= told.expected_bytes == there_and_back
    return {result.job.name: result for result in crew.results}


def test_cards_and_files_side_by_side_are_whole(
    golden: OpenGolden, rack: Rack, cards: list[MemoryCard], tmp_path: Path
) -> None:
    file = tmp_path / "pi1.img"
    began = time.monotonic()
    results = made(golden, rack, [cards[0], target_at(file)])
    took = time.monotonic() - began
    assert {name: result.outcome for name, result in results.items()} == {
        "pi0": Outcome.VERIFIED,
        "pi1": Outcome.VERIFIED,
    }
    for name, path in (("pi0", Path(cards[0].node)), ("pi1", file)):
        result = results[name]
        assert result.receipt is not None
        assert result.receipt.node == name
        assert 0 < result.seconds <= took
        assert (rack.receipts.path / result.receipt_name).is_file()
        with open_target(path) as fresh:
            assert verify_card(fresh, result.receipt, Quiet()).matches
        last = read_ledger(rack.folder).state_of(name).last
        assert last is not None
        assert (last.outcome, last.receipt) == ("verified", result.receipt_name)


@pytest.mark.parametrize("phase", ["write", "read back"])
def test_a_stop_leaves_the_card_under_way_blank_and_the_next_untouched(
    golden: OpenGolden, rack: Rack, cards: list[MemoryCard], phase: str
) -> None:
    results = made(golden, rack, list(cards), stop_at=phase, at_once=1)
    assert {result.outcome for result in results.values()} == {Outcome.INTERRUPTED}
    error = results["pi0"].error
    assert isinstance(error, Interrupted)
    assert "blank" in f"{error.what} {error.hint} {error.details}"
    assert not any(os.pread(cards[0].fd, MiB, 0))
    for card in cards[1:]:
        assert os.pread(card.fd, len(OLD), 0) == OLD
    ledger = read_ledger(rack.folder)
    assert [e.node for e in ledger.events if isinstance(e, CardFinished)] == ["pi0"]
    assert ledger.state_of("pi0").verified is None


def test_a_card_that_breaks_the_program_hurts_no_other(
    golden: OpenGolden, rack: Rack, cards: list[MemoryCard]
) -> None:
    broken = _Broken(cards[0].fd)
    results = made(golden, rack, [broken, cards[1]])
    assert results["pi0"].outcome is Outcome.FAILED
    assert "SystemExit" in results["pi0"].fault
    assert results["pi1"].is_verified
    last = read_ledger(rack.folder).state_of("pi0").last
    assert last is not None
    assert last.outcome == "failed"


class _Broken(MemoryCard):
    """Ends whatever holds it in a way that no part of this program does."""

    @contextmanager
    def hold(self, size_bytes: int, limits: Limits, kernel: HostTrees) -> Iterator[HeldTarget]:
        if self.fd >= 0:
            raise SystemExit(3)
        yield from ()


def test_a_card_without_room_for_the_swap_file_is_not_touched(
    golden: OpenGolden, rack: Rack, cards: list[MemoryCard]
) -> None:
    results = made(golden, replace(rack, swap_bytes=SIZE), [cards[0]])
    assert results["pi0"].outcome is Outcome.REFUSED
    assert "has no room for a swap file" in results["pi0"].fault
    assert os.pread(cards[0].fd, len(OLD), 0) == OLD


def test_a_node_that_would_not_boot_touches_no_card(
    golden: OpenGolden, rack: Rack, cards: list[MemoryCard]
) -> None:
    """Seen on the image of the first node of each kind, before any card is blanked for it."""
    config = rack.overlays / "base" / "boot" / "config.txt"
    config.parent.mkdir(parents=True)
    config.write_text("kernel=missing.img\n")
    results = made(golden, replace(rack), list(cards))
    for name, result in results.items():
        assert result.outcome is Outcome.WOULD_NOT_BOOT, f"{name}: {result.fault}"
        assert isinstance(result.error, WouldNotBoot)
    for card in cards:
        assert os.pread(card.fd, len(OLD), 0) == OLD

"""Saved cards are put back side by side; receipts and the ledger say what became of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.units import MiB
from imager.card.host.target import Limits
from imager.card.receipt.store import load_receipt
from imager.config.rack import Rack
from imager.rack.batch.restorers import RestoreJob, RestoreOrders, restore
from imager.rack.history.events import BatchBegun, BatchEnded
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome
from imager.rack.plan.saved import SavedNode
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.racks import rack_in
from tests.support.stamps import FACTS
from tests.support.watching import Watching

SIZE = 2 * MiB
AT = "2026-11-25T03:20:00.000Z"


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return rack_in(tmp_path / "rack", '[rack]\nnodes = "pi[7-8]"\n')


@pytest.fixture
def cards() -> Iterator[list[MemoryCard]]:
    with ExitStack() as held:
        yield [held.enter_context(memory_card(4 * MiB)) for _ in range(2)]


def test_each_card_is_as_it_was_saved(rack: Rack, cards: list[MemoryCard], tmp_path: Path) -> None:
    jobs = []
    for node, card in zip(rack.nodes, cards, strict=True):
        image = tmp_path / f"{node.name}.img"
        image.write_bytes(os.urandom(SIZE))
        facts = replace(FACTS, node=node.name)
        saved = SavedNode(node, image, facts, SIZE, SIZE, AT, f"recipe of {node.name}")
        jobs.append(RestoreJob(saved, card, "A1"))
    jobs[1].saved.path.write_bytes(b"")
    watch = Watching()
    good, bad = restore(RestoreOrders(rack, Limits(), probe=False), jobs, watch)
    assert (good.job.name, good.outcome) == ("pi7", Outcome.VERIFIED), good.error
    assert os.pread(cards[0].fd, SIZE, 0) == jobs[0].saved.path.read_bytes()
    assert (bad.job.name, bad.is_verified) == ("pi8", False)
    told = watch.last["pi7"]
    assert told.expected_bytes == 2 * SIZE <= told.moved_bytes
    assert good.receipt is not None
    assert good.receipt.node == "pi7"
    assert load_receipt(rack.receipts.path / good.receipt_name) == good.receipt
    ledger = read_ledger(rack.folder)
    begun, ended = ledger.events[0], ledger.events[-1]
    assert isinstance(begun, BatchBegun)
    assert isinstance(ended, BatchEnded)
    assert (begun.nodes, ended.exit_code) == (("pi7", "pi8"), 30)
    state = ledger.state_of("pi7")
    assert state.restored is not None
    assert state.last is not None
    assert (state.restored.file, state.restored.saved_at) == (str(tmp_path / "pi7.img"), AT)
    assert (state.restored.batch, state.last.batch) == (begun.batch, begun.batch)
    assert (state.last.image_id, state.last.recipe) == (FACTS.image_id, "recipe of pi7")
    assert (state.last.slot, state.last.receipt) == ("A1", good.receipt_name)
    assert ledger.state_of("pi8").restored is None

"""One reading becomes several cards, and what each kind of worker waits for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from imager.base.errors import CardIOError
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB
from imager.card.host.refusals import accept
from imager.card.host.target import Limits
from imager.card.save.saved_file import SavedFile
from imager.config.rack import Rack
from imager.rack.batch.copies import Copiers, CopyJob, CopyOrders, copy_to
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.restorers import RestoreJob, RestoreOrders, Restorers
from imager.rack.batch.savers import SaveJob, SaveOrders, Savers
from imager.rack.history.outcome import Outcome
from imager.rack.plan.saved import SavedNode
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.sources import MemorySource
from tests.support.watching import Watching

SIZE = 6 * MiB
PARTS = [(at * MiB, bytes([at + 1]) * MiB) for at in (0, 1, 4)]


@pytest.fixture
def cards() -> Iterator[list[MemoryCard]]:
    with ExitStack() as held:
        yield [held.enter_context(memory_card(8 * MiB)) for _ in range(2)]


def test_each_card_has_the_image_and_the_source_is_read_once(
    cards: list[MemoryCard], tmp_path: Path
) -> None:
    source, watch = MemorySource(PARTS, SIZE, size_bytes=SIZE), Watching()
    jobs = [CopyJob(accept(card, SIZE, Limits())) for card in cards]
    orders = CopyOrders(source, 3 * MiB, TrustedFolder(tmp_path), probe=False)
    results = copy_to(orders, jobs, watch)
    assert [result.job.name for result in results] == [card.node for card in cards]
    assert all(result.is_verified for result in results), [result.fault for result in results]
    assert source.readings == 1
    for card in cards:
        for at, data in PARTS:
            assert os.pread(card.fd, len(data), at) == data
        told = watch.last[card.node]
        assert told.expected_bytes == SIZE + 3 * MiB <= told.moved_bytes


def test_a_source_that_breaks_leaves_every_card_blank(
    cards: list[MemoryCard], tmp_path: Path
) -> None:
    broken = CardIOError("it broke", hint="none")
    source = MemorySource(PARTS, SIZE, size_bytes=SIZE, broken=broken)
    jobs = [CopyJob(accept(card, SIZE, Limits())) for card in cards]
    orders = CopyOrders(source, 3 * MiB, TrustedFolder(tmp_path), probe=False)
    for result in copy_to(orders, jobs, Watching()):
        assert result.outcome is not Outcome.VERIFIED
        assert result.error is not None and "it broke" in result.error.what
    assert not any(os.pread(card.fd, MiB, 0).strip(b"\0") for card in cards)


def test_what_hangs_on_one_port_waits_but_for_copies(cards: list[MemoryCard]) -> None:
    card = replace(cards[0], port="usb1")
    watch, anything = Watching(), cast(Any, SimpleNamespace())
    rack, saved = cast(Rack, anything), cast(SavedNode, anything)
    saver = Savers(SaveOrders(Path()), watch)
    restorer = Restorers(RestoreOrders(rack, Limits(), probe=True), watch)
    crew = Crew(Orders(rack, lambda _: anything, Limits()), watch)
    source = MemorySource(PARTS, SIZE)
    copy = CopyJob(accept(card, SIZE, Limits()))
    copier = Copiers(CopyOrders(source, 0, TrustedFolder(Path()), probe=False), [copy], watch)
    assert saver._port(SaveJob("pi1", card, SavedFile(Path()))) == "usb1"
    assert restorer._port(RestoreJob(saved, card)) == "usb1"
    assert crew._port(CardJob(anything, card, SIZE)) == "usb1"
    assert copier._port(copy) is None
    crew.close()

"""Pouring a source on cards: blank first, table last, proven by digests, mended from the source."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from imager.base.errors import (
    CardFaulty,
    CardIOError,
    HostStorage,
    Interrupted,
    MalformedRelease,
    PicloudError,
    TargetRefused,
)
from imager.base.progress import Quiet
from imager.base.units import MiB
from imager.card.diagnosis.damage import DamageKind
from imager.card.host.disks import Disk
from imager.card.stages import VerifiedCard, WriteOptions, WrittenCard
from imager.card.write.pour import Pouring
from imager.card.write.read_back import read_back
from imager.card.write.stream import pour_card
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import Layout
from imager.disk.mbr import encode
from tests.support.cards import FaultyCard, Flush, Write, claimed, press_ctrl_c
from tests.support.proving import Heard
from tests.support.sources import MemorySource

SIZE = 12 * MiB
OPTIONS = WriteOptions(MiB, 2)
TABLE = encode(Layout(SIZE, Extent(2 * MiB, 3 * MiB), Extent(6 * MiB, 5 * MiB)), 0x1A2B3C4D)
NOISE = random.Random(18)
BODY = NOISE.randbytes(3 * MiB)
END = NOISE.randbytes(5000)


def source(broken: Exception | None = None) -> MemorySource:
    """12 MiB, of which the table, 3 MiB and a few bytes before and at the end count."""
    parts = [
        (0, TABLE),
        (2 * MiB + 4096, BODY),
        (7 * MiB + 512, b"alone"),
        (SIZE - len(END), END),
    ]
    return MemorySource(parts, SIZE, broken=broken)


def poured(card: FaultyCard, given: MemorySource | None = None) -> WrittenCard:
    pouring = Pouring(given or source(), block_bytes=MiB)
    return pour_card(pouring, claimed(card), Quiet(), OPTIONS)


def proven(card: FaultyCard, given: MemorySource | None = None) -> VerifiedCard:
    return read_back(poured(card, given), Quiet())


def assert_holds(card: FaultyCard) -> None:
    for offset, data in source().parts:
        assert card.holds(Extent(offset, len(data))) == data


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_a_card_holds_what_counts_and_no_more_is_written(block_bytes: int) -> None:
    card = FaultyCard(SIZE, block_bytes=block_bytes)
    verified = proven(card)
    assert_holds(card)
    assert card.holds(Extent(6 * MiB, MiB)) == b"\xa5" * MiB, "nobody reads it"
    written = ExtentMap(Extent(w.offset, w.length) for w in card.log if isinstance(w, Write))
    assert written == verified.proven.extents == verified.proven.image.manifest.extents
    assert verified.proven.image.manifest.size_bytes == SIZE


def test_the_table_comes_last_and_everything_else_is_on_the_card_then() -> None:
    card = FaultyCard(SIZE)
    poured(card)
    *before, last = [step for step in card.log if isinstance(step, Write)]
    assert (last.offset, last.length) == (0, 4096)
    at = card.log.index(last, len(card.log) - 2)
    assert isinstance(card.log[at - 1], Flush)
    assert isinstance(card.log[-1], Flush)
    assert before[0].offset == 0, "and it was blanked first"


def test_a_source_that_proves_damaged_at_its_end_leaves_the_card_blank() -> None:
    card = FaultyCard(SIZE)
    with pytest.raises(MalformedRelease) as caught:
        poured(card, source(MalformedRelease("the end is missing", hint="fetch it again")))
    assert card.is_blank
    assert "visibly blank" in " ".join(caught.value.details)


def test_a_card_that_turns_out_too_small_is_blank() -> None:
    card = FaultyCard(10 * MiB)
    with pytest.raises(TargetRefused, match="too small"):
        poured(card)
    assert card.is_blank
    unused_end = MemorySource([(0, TABLE)], SIZE)
    with pytest.raises(TargetRefused, match="too small"):
        poured(FaultyCard(10 * MiB), unused_end)


def test_a_larger_card_is_blank_behind_the_image() -> None:
    card = FaultyCard(16 * MiB + 512)
    proven(card)
    assert_holds(card)
    assert not any(card.holds(Extent(15 * MiB, MiB + 512)))


def test_damage_is_named_and_mended_from_a_second_reading() -> None:
    card = FaultyCard(SIZE)
    given = source()
    done = poured(card, given)
    card.data[3 * MiB + 700] ^= 4
    card.data[SIZE - 1] ^= 1
    verified = read_back(done, Quiet())
    assert_holds(card)
    assert given.readings == 2
    trouble = verified.proven.card.log.trouble
    assert trouble is not None
    assert [(d.kind, d.first_byte) for d in trouble.found] == [
        (DamageKind.FLIPPED, 3 * MiB + 700),
        (DamageKind.FLIPPED, SIZE - 1),
    ]
    assert [str(place) for place in trouble.found[0].places] == ["partition 1"]


def test_a_card_that_never_keeps_a_sector_is_condemned_and_blank() -> None:
    card = FaultyCard(SIZE, dropped=ExtentMap([Extent(3 * MiB, 512)]))
    with pytest.raises(CardFaulty, match="partition 1"):
        proven(card)
    assert card.is_blank


def test_more_damage_than_can_be_held_is_judged_by_the_card_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("imager.card.write.poured._HELD_AT_MOST", 1)
    card = FaultyCard(SIZE)
    done = poured(card)
    card.data[2 * MiB : 5 * MiB] = bytes(3 * MiB)
    with pytest.raises(CardFaulty, match="zeros instead of what was written"):
        read_back(done, Quiet())
    assert card.is_blank


def test_a_source_that_changed_cannot_mend_a_card() -> None:
    card, given = FaultyCard(SIZE), source()
    done = poured(card, given)
    given.parts[1] = (2 * MiB + 4096, bytes(3 * MiB))
    card.data[3 * MiB] ^= 1
    with pytest.raises(HostStorage, match="is not what it was"):
        read_back(done, Quiet())
    assert card.is_blank


def test_ctrl_c_while_the_source_keeps_us_waiting() -> None:
    waiting = threading.Event()

    def stuck(offset: int) -> None:
        if offset > 7 * MiB:
            press_ctrl_c()
            waiting.wait(300)

    card, given = FaultyCard(SIZE), source()
    given.on_piece = stuck
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        poured(card, given)
    assert time.monotonic() - begun < 60
    waiting.set()
    assert card.is_blank


def together(cards: list[FaultyCard], given: MemorySource) -> list[WrittenCard | PicloudError]:
    pouring = Pouring(given, block_bytes=MiB, expected=len(cards))
    results: dict[int, WrittenCard | PicloudError] = {}

    def make(index: int) -> None:
        try:
            results[index] = pour_card(pouring, claimed(cards[index]), Quiet(), OPTIONS)
        except PicloudError as error:
            results[index] = error

    threads = [threading.Thread(target=make, args=(index,)) for index in range(len(cards))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [results[index] for index in range(len(cards))]


def test_several_cards_from_one_reading_and_a_bad_one_drops_out() -> None:
    bad = FaultyCard(SIZE, write_errors=dict.fromkeys(range(2 * MiB, 3 * MiB, 512), 5))
    cards, given = [FaultyCard(SIZE), bad, FaultyCard(13 * MiB)], source()
    first, second, third = together(cards, given)
    assert given.readings == 1
    assert isinstance(second, CardIOError)
    assert bad.is_blank
    for card, done in ((cards[0], first), (cards[2], third)):
        assert isinstance(done, WrittenCard)
        assert_holds(card)
        read_back(done, Quiet())


def test_nobody_waits_for_a_card_that_cannot_even_be_made_blank() -> None:
    bad = FaultyCard(SIZE, write_errors=dict.fromkeys(range(0, MiB, 512), 5))
    card = FaultyCard(SIZE)
    failed, done = together([bad, card], source())
    assert isinstance(failed, CardIOError)
    assert isinstance(done, WrittenCard)
    assert_holds(card)


def test_a_damaged_source_is_told_to_each_card_by_itself() -> None:
    cards = [FaultyCard(SIZE), FaultyCard(SIZE)]
    errors = together(cards, source(MalformedRelease("cut", hint="fetch it again")))
    assert all(isinstance(error, MalformedRelease) for error in errors)
    assert [len(error.details) for error in errors if isinstance(error, PicloudError)] == [1, 1]
    assert all(card.is_blank for card in cards)


def test_nobody_waits_for_a_card_that_withdrew() -> None:
    pouring = Pouring(source(), block_bytes=MiB, expected=2)
    pouring.withdraw()
    card = FaultyCard(SIZE)
    pour_card(pouring, claimed(card), Quiet(), OPTIONS)
    assert_holds(card)


def test_a_card_that_left_holds_nobody_up() -> None:
    given = MemorySource([(0, TABLE), *((at * MiB, b"x") for at in range(1, 80))], 80 * MiB)
    pouring = Pouring(given, block_bytes=MiB, expected=2)
    gone, there = pouring.share(80 * MiB), pouring.share(80 * MiB)
    gone.close()
    read = threading.Thread(target=lambda: [*there.blocks()], daemon=True)
    read.start()
    read.join(60)
    assert not read.is_alive()
    assert len(pouring.digests) == 80


def test_the_source_is_read_only_a_bounded_way_ahead() -> None:
    seen: list[int] = []
    given = MemorySource([(0, TABLE), *((at * MiB, b"x") for at in range(1, 120))], 120 * MiB)
    given.on_piece = seen.append
    share = Pouring(given, block_bytes=MiB).share(120 * MiB)
    blocks = share.blocks()
    next(blocks)
    deadline = time.monotonic() + 60
    while len(seen) < 56 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(seen) <= 60
    offsets = [block.offset for block in blocks]
    assert all(low < high for low, high in pairwise(offsets))


@pytest.mark.parametrize("can_be_packed", [True, False])
@pytest.mark.parametrize("is_slow", [True, False])
def test_of_a_slow_source_more_is_held_in_the_same_memory(
    is_slow: bool, can_be_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.card.write.pour._AHEAD_BYTES", 4 * MiB)
    data = [
        NOISE.randbytes(4096) * 256 if can_be_packed else NOISE.randbytes(MiB) for _ in range(20)
    ]
    seen: list[int] = []
    parts = [(at * MiB, one) for at, one in enumerate(data)]
    given = MemorySource(parts, 20 * MiB, on_piece=seen.append, is_slow=is_slow)
    blocks = Pouring(given, block_bytes=MiB).share(20 * MiB).blocks()
    first = next(blocks)
    least, most = (20, 20) if is_slow and can_be_packed else (5, 7)
    deadline = time.monotonic() + 60
    while len(seen) < least and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert least <= len(seen) <= most
    assert [bytes(block.data) for block in [first, *blocks]] == data


@pytest.mark.parametrize("kind", [0xEE, 0x0C])
@pytest.mark.parametrize("made_for", [512, 4096])
@pytest.mark.parametrize("card_has", [0, 512, 4096])
@pytest.mark.parametrize("size", [SIZE, SIZE + MiB])
def test_a_gpt_for_other_sectors_than_the_card_has_is_told(
    kind: int, made_for: int, card_has: int, size: int
) -> None:
    table = bytearray(TABLE)
    table[446 + 4] = kind
    given = MemorySource([(0, bytes(table)), (made_for, b"EFI PART")], SIZE)
    card, heard = claimed(FaultyCard(size)), Heard()
    assert isinstance(card.target, Disk)
    card = replace(card, target=replace(card.target, logical_bytes=card_has))
    pour_card(Pouring(given, block_bytes=MiB), card, heard, OPTIONS)
    assert bool(heard.warnings) == (kind == 0xEE and card_has not in (0, made_for))
    for said in heard.warnings:
        assert f"for sectors of {made_for} bytes" in said and f"has sectors of {card_has}:" in said

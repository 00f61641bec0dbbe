"""Repair: only what is bad is rewritten, a card under repair is blank, a bad card is condemned."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, CardIOError, FakeCapacity, Interrupted
from imager.base.progress import Phase, Quiet
from imager.base.units import MiB, format_size
from imager.card.diagnosis import examine
from imager.card.diagnosis.damage import DamageKind
from imager.card.stages import UnprovenCard, WriteOptions
from imager.card.write.read_back import read_back
from imager.card.write.repair import mend_in_place
from imager.card.write.write import write_card
from imager.disk.extents import Extent, ExtentMap
from imager.node.image import NodeImage
from tests.support.cards import FaultyCard, Flush, Write, claimed, make_image, press_ctrl_c
from tests.support.proving import Heard, is_whole, make

SIZE = 12 * MiB
BODY = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(9 * MiB, 12288)])
TABLE = Extent(0, 4096)


@pytest.fixture
def image(tmp_path: Path) -> NodeImage:
    return make_image(tmp_path, SIZE, BODY)


def sectors(offset: int, length: int) -> set[int]:
    return set(range(offset, offset + length, 512))


def test_a_good_card_has_no_trouble(image: NodeImage) -> None:
    made = make(image, FaultyCard(SIZE))
    assert (made.error, made.trouble, made.after, made.heard.warnings) == (None, None, [], [])


@pytest.mark.parametrize("offset", [2 * MiB, 4 * MiB + 40960, 9 * MiB + 8192])
def test_a_write_lost_once_is_written_again_and_nothing_else(image: NodeImage, offset: int) -> None:
    card = FaultyCard(SIZE, lost_once=sectors(offset, 4096))
    made = make(image, card)
    assert is_whole(card, image)
    (damage,) = made.repaired.found
    assert (damage.extent, damage.kind) == (Extent(offset, 4096), DamageKind.FOREIGN)
    assert made.repaired.attempts == 1
    assert made.body_writes == [Extent(offset, 4096)]
    again = [phase.size_bytes for phase in made.phases if phase.name == "read repair"]
    assert again == [4096, 0], "what was rewritten of the body, then of the first MiB"
    assert "written again and is right now" in made.repaired.meaning
    assert [found["offset"] for found in made.heard.findings] == [offset]
    assert any("older or foreign" in note for note in made.heard.notes)


def test_a_damaged_partition_table_is_mended_too(image: NodeImage) -> None:
    card = FaultyCard(SIZE)

    def spoil() -> None:
        card.data[446] ^= 3

    made = make(image, card, spoil)
    assert is_whole(card, image)
    assert [(d.kind, d.bits, d.first_byte) for d in made.repaired.found] == [
        (DamageKind.FLIPPED, 2, 446)
    ]
    assert made.body_writes == []


def test_a_card_under_repair_is_blank_until_the_table_comes_last(image: NodeImage) -> None:
    """Pulled at any write of the repair, the card has no partition table or is whole."""
    card = FaultyCard(SIZE, lost_once=sectors(3 * MiB, 4096))
    states: list[tuple[bool, bool]] = []
    on_body: list[bool] = []

    def watch(write: Write) -> None:
        table = any(card.holds(TABLE))
        states.append((table, is_whole(card, image)))
        if write.offset >= MiB:
            on_body.append(card.is_blank)

    def spoil() -> None:
        card.data[446] ^= 3
        card.on_write = watch

    made = make(image, card, spoil, depth=1)
    first, *later = states
    assert first == (True, False), "the unproven table is the first thing to go"
    assert all(whole or not table for table, whole in later)
    assert on_body == [True]
    last = [step for step in made.after if isinstance(step, Write)][-1]
    assert (last.offset, last.length) == (TABLE.offset, TABLE.length)


def test_zeros_reach_the_card_before_the_repair_and_the_repair_before_the_table(
    image: NodeImage,
) -> None:
    card = FaultyCard(SIZE, lost_once=sectors(3 * MiB, 4096))
    made = make(image, card)
    steps = ["flush" if isinstance(step, Flush) else step.offset for step in made.after]
    assert steps == [0, "flush", 3 * MiB, "flush", 4096, "flush", 0, "flush"]


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ({"flips": {4 * MiB + 77: 4}}, "visibly blank"),
        ({"dropped": ExtentMap([Extent(3 * MiB, 4096)])}, "visibly blank"),
        ({"flips": {100: 1}}, "could not be made blank"),
    ],
    ids=["flip", "dropped", "table"],
)
def test_what_stays_wrong_condemns_the_card(
    image: NodeImage, fault: dict[str, object], state: str
) -> None:
    card = FaultyCard(SIZE, **fault)  # type: ignore[arg-type]
    made = make(image, card)
    assert isinstance(made.error, CardFaulty)
    assert "rewritten 2 times" in made.error.what
    assert made.trouble is not None
    assert made.trouble.attempts == 2
    assert made.trouble.left
    assert made.trouble.meaning in made.error.details
    assert state in made.error.details[-1]


def test_a_second_rewrite_may_still_mend_a_card(image: NodeImage) -> None:
    card = FaultyCard(SIZE, lost_once={3 * MiB})
    written_before: list[int] = []

    def lose_again(write: Write) -> None:
        if write.offset == 3 * MiB and len(written_before) < 2:
            written_before.append(write.offset)
            card.lost_once.add(3 * MiB)

    card.on_write = lose_again
    made = make(image, card)
    assert made.repaired.attempts == 2
    assert is_whole(card, image)


def test_no_table_is_written_over_a_body_that_is_still_wrong(image: NodeImage) -> None:
    """A card pulled between two attempts would have a table and look whole."""
    card = FaultyCard(SIZE, lost_once={3 * MiB})
    rest = image.manifest.extents - ExtentMap([TABLE])
    bodies: list[bool] = []
    rewritten: list[Write] = []

    def watch(write: Write) -> None:
        if write.offset == 3 * MiB and not rewritten:
            card.lost_once.add(3 * MiB)
            rewritten.append(write)
        if write == Write(TABLE.offset, TABLE.length):
            with image.open() as reader:
                bodies.append(all(card.holds(e) == reader.read(e.offset, e.length) for e in rest))

    def spoil() -> None:
        card.data[446] ^= 3
        card.on_write = watch

    made = make(image, card, spoil, depth=1)
    assert made.repaired.attempts == 2
    assert is_whole(card, image)
    assert bodies == [True]


def test_a_card_in_use_gets_its_table_last(image: NodeImage) -> None:
    card = FaultyCard(SIZE)
    held = claimed(card)
    write_card(image, held, Quiet(), WriteOptions(MiB, 1))
    card.data[446] ^= 3
    card.data[3 * MiB] ^= 1
    before = len(card.log)
    whole = UnprovenCard(held, image, image.manifest.extents, WriteOptions(MiB, 1))
    assert mend_in_place(whole, Quiet()) == 1
    written = [step.offset for step in card.log[before:] if isinstance(step, Write)]
    assert written == [3 * MiB, 0]
    assert is_whole(card, image)


def test_a_reading_that_lies_once_is_told_and_nothing_is_rewritten(image: NodeImage) -> None:
    card = FaultyCard(SIZE, lies={3 * MiB + 5: 1, 600: 0xFF})
    made = make(image, card)
    assert made.repaired.attempts == 0
    assert made.repaired.found == ()
    assert made.repaired.lies == (Extent(512, 512), Extent(3 * MiB, 512))
    assert made.after == []
    assert "the second one right" in made.heard.warnings[0]
    assert "reader" in made.repaired.meaning


def test_a_reading_that_fails_once_is_told_and_nothing_is_rewritten(image: NodeImage) -> None:
    made = make(image, FaultyCard(SIZE, failing_once={3 * MiB + 5}))
    assert made.repaired.lies == (Extent(3 * MiB, MiB),)
    assert made.after == []


def test_what_cannot_be_read_is_rewritten_and_may_be_mended(image: NodeImage) -> None:
    card = FaultyCard(SIZE, read_errors={3 * MiB + 5000: errno.EIO})

    def mended_by_writing(write: Write) -> None:
        if write.offset == 3 * MiB + 4096:
            card.read_errors = {}

    card.on_write = mended_by_writing
    made = make(image, card)
    (damage,) = made.repaired.found
    assert (damage.extent, damage.kind) == (Extent(3 * MiB + 4096, 4096), DamageKind.UNREADABLE)
    assert made.body_writes == [damage.extent]


def test_what_stays_unreadable_is_an_io_error_with_its_place(image: NodeImage) -> None:
    made = make(image, FaultyCard(SIZE, read_errors={2 * MiB + 5000: errno.EIO}))
    assert isinstance(made.error, CardIOError)
    assert "rewritten 2 times" in made.error.what
    assert f"first at byte {2 * MiB + 4096}, boot partition (p1): cannot be read" in made.error.what
    assert made.card.is_blank


def test_a_card_that_hardly_answers_is_given_up_without_a_repair(tmp_path: Path) -> None:
    image = make_image(tmp_path, SIZE, ExtentMap([Extent(0, SIZE)]))
    errors = dict.fromkeys(range(MiB, SIZE, 4096), errno.EIO)
    made = make(image, FaultyCard(SIZE, read_errors=errors))
    assert isinstance(made.error, CardIOError)
    assert made.body_writes == []
    assert made.card.is_blank


def test_a_card_that_is_gone_is_an_io_error_at_once(image: NodeImage) -> None:
    made = make(image, FaultyCard(SIZE, read_errors={3 * MiB: errno.ENODEV}))
    assert isinstance(made.error, CardIOError)
    assert made.error.hint.startswith("the card or reader is gone")


def test_a_card_that_goes_away_while_it_is_read_is_told_as_gone(image: NodeImage) -> None:
    made = make(image, FaultyCard(SIZE, read_errors={3 * MiB: errno.EIO, 9 * MiB: errno.ENODEV}))
    assert made.error is not None
    assert made.error.hint.startswith("the card or reader is gone")
    assert "diagnose" not in made.heard.begun, "what is gone is not read again"


def test_a_card_that_goes_away_while_it_is_diagnosed_is_told_as_gone(image: NodeImage) -> None:
    card = FaultyCard(SIZE, flips={3 * MiB: 1})

    class Pulling(Heard):
        @contextmanager
        def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
            if name == "diagnose":
                card.read_errors = dict.fromkeys(range(0, SIZE, 512), errno.ENODEV)
            with super().phase(name, total_bytes) as phase:
                yield phase

    written = write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 2))
    before = len(card.log)
    with pytest.raises(CardIOError) as caught:
        read_back(written, Pulling())
    assert caught.value.hint.startswith("the card or reader is gone")
    assert 3 * MiB not in [step.offset for step in card.log[before:] if isinstance(step, Write)]


def test_after_a_repair_the_whole_card_is_read_however_little_was_written(
    image: NodeImage,
) -> None:
    """A repairing write that goes astray is found, also outside of what this run wrote."""
    card = FaultyCard(SIZE)
    written = write_card(image, claimed(card), Quiet(), WriteOptions(MiB, 2))
    little = ExtentMap([Extent(0, MiB), Extent(3 * MiB, 4096)])
    card.data[3 * MiB] ^= 1

    def astray(write: Write) -> None:
        if write.offset == 3 * MiB:
            card.data[4 * MiB + 9] ^= 0xFF
            card.on_write = None

    card.on_write = astray
    verified = read_back(replace(written, extents=little), Quiet())
    assert is_whole(card, image)
    trouble = verified.proven.card.log.trouble
    assert trouble is not None
    assert [damage.first_byte for damage in trouble.found] == [3 * MiB, 4 * MiB + 9]
    assert trouble.attempts == 2


def test_a_repair_that_is_refused_is_an_io_error_that_names_the_place(image: NodeImage) -> None:
    card = FaultyCard(SIZE, lost_once={3 * MiB + 512})

    def spoil() -> None:
        card.write_errors = {3 * MiB + 512: errno.EIO}

    made = make(image, card, spoil)
    assert isinstance(made.error, CardIOError)
    assert f"writing at byte {3 * MiB}" in made.error.what
    assert made.error.details[0] == f"byte {3 * MiB}: root partition (p2)"
    assert card.is_blank


def test_a_card_that_locks_itself_in_a_repair_is_told_of(image: NodeImage) -> None:
    card = FaultyCard(SIZE, lost_once={3 * MiB + 512})

    def spoil() -> None:
        card.write_errors = dict.fromkeys(range(0, SIZE, 4096), errno.EROFS)

    made = make(image, card, spoil)
    assert isinstance(made.error, CardIOError)
    assert "locked itself" in made.error.hint
    assert "no longer takes writes" in made.error.details[-1]


def test_ctrl_c_in_a_repair_leaves_the_card_blank(image: NodeImage) -> None:
    card = FaultyCard(SIZE, lost_once={3 * MiB + 512})

    def interrupt(write: Write) -> None:
        if write.offset == 3 * MiB:
            card.on_write = None
            press_ctrl_c()

    def spoil() -> None:
        card.on_write = interrupt

    made = make(image, card, spoil)
    assert isinstance(made.error, Interrupted)
    assert card.is_blank


@pytest.mark.parametrize("fraction", [(1, 4), (1, 2), (7, 8), (2, 3)])
def test_a_card_that_wraps_around_is_a_fake_and_is_not_repaired(
    tmp_path: Path, fraction: tuple[int, int]
) -> None:
    real = SIZE * 2 * fraction[0] // fraction[1]
    body = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(14 * MiB, 8 * MiB)])
    image = make_image(tmp_path, SIZE * 2, body)
    made = make(image, FaultyCard(SIZE * 2, real_bytes=real))
    assert isinstance(made.error, FakeCapacity), made.error
    assert f"holds {format_size(real)} at most" in made.error.what
    assert "pretends to be larger than it is" in made.error.details[-2]
    assert made.body_writes == []
    assert made.card.is_blank
    assert made.trouble is not None
    assert {damage.kind for damage in made.trouble.left} == {DamageKind.OTHER_BLOCK}


def test_a_card_that_is_bad_all_over_is_judged_by_samples(
    image: NodeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "_JUDGED_CLOSELY", 3)
    made = make(image, FaultyCard(SIZE, dropped=ExtentMap([Extent(2 * MiB + 4096, 2 * MiB)])))
    assert isinstance(made.error, CardFaulty)
    assert made.trouble is not None
    assert [(damage.extent, damage.kind) for damage in made.trouble.found] == [
        (Extent(2 * MiB + 4096, 2 * MiB), DamageKind.FOREIGN)
    ]


def test_a_card_that_forgets_what_is_beyond_its_size_is_a_fake(tmp_path: Path) -> None:
    body = ExtentMap([Extent(2 * MiB, 3 * MiB), Extent(7 * MiB, MiB), Extent(9 * MiB, 4096)])
    image = make_image(tmp_path, SIZE, body)
    made = make(image, FaultyCard(SIZE, kept_bytes=6 * MiB))
    assert isinstance(made.error, FakeCapacity)
    assert "holds 5.2 MB at most" in made.error.what
    assert made.trouble is not None
    assert made.trouble.attempts == 2


def test_a_refused_write_is_repeated_and_told(image: NodeImage) -> None:
    card = FaultyCard(SIZE, failing_writes_once={3 * MiB + 70_000})
    made = make(image, card)
    assert (made.error, made.trouble) == (None, None)
    assert is_whole(card, image)
    assert f"refused a transfer at byte {3 * MiB} and took it" in made.heard.warnings[0]


def test_a_write_that_is_always_refused_names_block_and_place(image: NodeImage) -> None:
    card = FaultyCard(SIZE, write_errors={2 * MiB + 70_000: errno.EIO})
    made = make(image, card)
    assert isinstance(made.error, CardIOError)
    assert f"writing at byte {2 * MiB + 69_632} failed" in made.error.what
    assert made.error.details[0] == f"byte {2 * MiB + 69_632}: boot partition (p1)"
    assert card.is_blank
    assert len([s for s in card.log if isinstance(s, Write) and s.offset == 2 * MiB]) == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ENODEV])
def test_what_holds_for_the_whole_card_is_not_tried_again(image: NodeImage, number: int) -> None:
    refused: list[Write] = []
    card = FaultyCard(SIZE, write_errors=dict.fromkeys(range(2 * MiB, 5 * MiB, 4096), number))
    card.on_write = lambda write: (
        refused.append(write) if 2 * MiB <= write.offset < 5 * MiB else None
    )
    made = make(image, card)
    assert isinstance(made.error, CardIOError)
    assert len(refused) <= 2, "one for each worker"

"""A card is claimed as it was shown, and whatever ends the work leaves it visibly blank."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from imager.base.errors import CardFaulty, Interrupted, TargetRefused
from imager.base.progress import Phase, Quiet
from imager.base.units import MiB
from imager.card.claim.blank import blank_unless_done, leave_blank, zero
from imager.card.claim.claim import claim
from imager.card.claim.unchanged import require_unchanged
from imager.card.host.first_mib import digest_of
from imager.card.host.image_file import ImageFile
from imager.card.host.refusals import accept
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import HeldTarget, Limits
from imager.card.medium.meter import metered
from imager.card.stages import ClaimedCard
from imager.disk.extents import Extent, ExtentMap
from imager.disk.mbr import encode
from imager.node.stamp.stamp import STAMP_AREA
from tests.support.cards import DISK_ID, FaultyCard, Flush, Write, claimed, small_layout
from tests.support.memorycard import MemoryCard, memory_card
from tests.support.stamps import DOCUMENT, by_hand

SIZE = 4 * MiB


def touched(card: FaultyCard) -> ClaimedCard:
    held = claimed(card)
    held.log.touched = True
    return held


def shown(card: FaultyCard, first: bytes | None) -> ClaimedCard:
    """``card``, claimed, after a person was shown that it begins with ``first``."""
    held = claimed(card)
    return replace(held, target=held.target.shown_with(first))


def stamped(imaged_at: int) -> bytes:
    return bytes(STAMP_AREA.offset) + by_hand({**DOCUMENT, "imaged_at": imaged_at})


def test_a_card_as_it_was_shown_is_claimed_and_so_is_one_nobody_could_show() -> None:
    card = FaultyCard(SIZE)
    require_unchanged(shown(card, bytes(card.data[:MiB])))
    require_unchanged(shown(card, None))


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (b"", "nothing in its first MiB now"),
        (b"photographs", "something else now"),
        (bytes(MiB - 1) + b"x", "something else now"),
        (encode(small_layout(SIZE), DISK_ID), "a partition table with disk id 1a2b3c4d now"),
        (stamped(0), "pi7 of rack attic, made at 1970-01-01 00:00:00 UTC, now"),
        (stamped(253402300799), "pi7 of rack attic, made at 9999-12-31 23:59:59 UTC, now"),
    ],
)
def test_a_card_that_changed_is_refused_and_named_by_what_it_holds(now: bytes, says: str) -> None:
    card = FaultyCard(SIZE)
    held = shown(card, bytes(card.data[:MiB]))
    card.data[:MiB] = now.ljust(MiB, b"\0")
    with pytest.raises(TargetRefused, match=f"it holds {says}$") as caught:
        require_unchanged(held)
    assert caught.value.what.startswith("/dev/faulty is not what it was")
    assert card.log == []


@pytest.fixture
def memory() -> Iterator[MemoryCard]:
    with memory_card(SIZE) as card:
        yield card


def test_ctrl_c_between_two_steps_says_what_is_on_the_card(memory: MemoryCard) -> None:
    with pytest.raises(Interrupted) as caught, claim(accept(memory, MiB), MiB):
        raise KeyboardInterrupt
    assert caught.value.hint == f"nothing was written to {memory.node}"


def test_what_is_claimed_is_looked_at_before_it_is_handed_out(
    memory: MemoryCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryCard, "first_mib", digest_of(b"photographs"))
    with (
        pytest.raises(TargetRefused, match="nothing in its first MiB"),
        claim(accept(memory, MiB), MiB),
    ):
        pytest.fail("it was handed out")


def test_the_computer_looked_at_is_this_one_unless_another_is_given(
    memory: MemoryCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[HostTrees] = []
    hold = MemoryCard.hold

    def noted(
        self: MemoryCard, size_bytes: int, limits: Limits, kernel: HostTrees
    ) -> AbstractContextManager[HeldTarget]:
        asked.append(kernel)
        return hold(self, size_bytes, limits, kernel)

    monkeypatch.setattr(MemoryCard, "hold", noted)
    other = HostTrees(sysfs=Path("/nowhere"))
    for given in (None, other):
        with claim(accept(memory, MiB), MiB, given) as card:
            assert card.target is memory
    assert asked == [HostTrees(), other]


class Counted(Quiet):
    """A Progress that adds up the bytes of its phases."""

    def __init__(self) -> None:
        self.size_bytes = 0

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        yield self

    def advance(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes


def test_ranges_become_zeros_in_order_and_are_flushed() -> None:
    card, counted = FaultyCard(SIZE), Counted()
    ranges = [Extent(3 * MiB, 4096), Extent(0, MiB)]
    card.on_write = lambda write: time.sleep(0.05 if write.offset else 0)
    with metered(counted, "blank", 2 * MiB, []) as meter:
        zero(card, ranges, meter)
    assert card.log == [Write(3 * MiB, 4096), Write(0, MiB), Flush()]
    assert counted.size_bytes == MiB + 4096
    assert not any(card.holds(ranges[0]) + card.holds(ranges[1]))
    assert set(card.holds(Extent(MiB, 2 * MiB))) == {0xA5}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (partial(FaultyCard), "/dev/faulty is visibly blank"),
        (partial(FaultyCard, dropped=ExtentMap([Extent(0, MiB)])), "does not keep what is written"),
        (partial(FaultyCard, flips={MiB - 1: 1}), "does not keep what is written"),
        (partial(FaultyCard, read_errors={5: errno.EIO}), "does not keep what is written"),
        (
            partial(FaultyCard, write_errors=dict.fromkeys(range(MiB), errno.EIO)),
            "no longer takes writes",
        ),
        (
            partial(FaultyCard, write_errors={5: errno.ENODEV}),
            "the card that was in /dev/faulty is unfinished",
        ),
    ],
)
def test_the_sentence_about_a_card_is_true(make: Callable[[int], FaultyCard], says: str) -> None:
    assert says in leave_blank(touched(make(SIZE)))


@pytest.mark.parametrize("error", [CardFaulty("x", hint="y"), ZeroDivisionError(), SystemExit(3)])
def test_whatever_ends_the_work_leaves_the_card_blank(error: BaseException) -> None:
    card = FaultyCard(SIZE)
    with pytest.raises(type(error)) as caught, blank_unless_done(touched(card)):
        raise error
    assert card.is_blank
    if isinstance(caught.value, CardFaulty):
        assert [detail.split(":")[0] for detail in caught.value.details] == [
            "/dev/faulty is visibly blank"
        ]


def test_ctrl_c_leaves_the_card_blank_and_says_so() -> None:
    card = FaultyCard(SIZE)
    with pytest.raises(Interrupted) as caught, blank_unless_done(touched(card)):
        raise KeyboardInterrupt
    assert card.is_blank
    assert caught.value.hint.startswith("/dev/faulty is visibly blank")


def test_an_image_file_that_was_not_finished_is_no_card_to_be_made_blank() -> None:
    card = FaultyCard(SIZE)
    file = ImageFile(Path("/x/pi7.img"), False, 0, True)
    said = leave_blank(replace(touched(card), target=file))
    assert said == "no unfinished image was left at /x/pi7.img"
    assert card.log == []


def test_a_card_that_is_done_is_left_as_it_is() -> None:
    card = FaultyCard(SIZE)
    with blank_unless_done(touched(card)):
        pass
    assert card.log == []

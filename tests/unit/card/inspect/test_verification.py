"""A verdict names every place, in one line each, and blames only whom it may."""

from __future__ import annotations

from typing import Any

import pytest

from imager.base.errors import CardIOError, StampMismatch
from imager.card.diagnosis.places import CardPlace
from imager.card.inspect.use import CardUse, Damaged
from imager.card.inspect.verification import RECEIPT, STAMP, Mismatch, Verification
from imager.card.medium.meter import PhaseFigures
from imager.disk.extents import Extent

PLACES = (CardPlace("boot partition (p1)", ("/boot/kernel7.img",)), CardPlace("gap"))


def mismatch(number: int = 0, *, unreadable: bool = False) -> Mismatch:
    return Mismatch(Extent(number * 4096, 4096), PLACES, unreadable)


def found(
    *mismatches: Mismatch,
    proof: str = STAMP,
    used: bool = False,
    use: CardUse | None = None,
    size_bytes: int = 8 << 20,
    boot_files: tuple[str, ...] = (),
) -> Verification:
    return Verification(
        "pi7",
        "/dev/sdx",
        size_bytes,
        8 << 20,
        1 << 20,
        True,
        mismatches,
        boot_files,
        PhaseFigures("verify", 1 << 20, 1.0, ()),
        proof,
        used,
        use,
    )


def damaged(count: int) -> CardUse:
    return CardUse(True, damaged=[Damaged(f"/etc/{n}", "differs") for n in range(count)])


def test_a_range_is_named_by_its_first_and_last_byte() -> None:
    where = "boot partition (p1): /boot/kernel7.img | gap"
    assert str(mismatch(2)) == f"bytes 8192 to 12287: {where}"
    assert str(mismatch(unreadable=True)) == f"bytes 0 to 4095: cannot be read: {where}"


@pytest.mark.parametrize(
    ("verdict", "sound"),
    [
        (found(), True),
        (found(mismatch()), False),
        (found(mismatch(), used=True), False),
        (found(mismatch(), use=damaged(0)), False),
        (found(mismatch(), used=True, use=damaged(0)), True),
        (found(mismatch(), used=True, use=damaged(1)), False),
        (found(mismatch(), mismatch(1, unreadable=True), used=True, use=damaged(0)), False),
    ],
)
def test_sound_is_what_was_written_or_changed_by_the_node_alone(
    verdict: Verification, sound: bool
) -> None:
    assert verdict.sound is sound
    assert verdict.matches is not bool(verdict.mismatches)
    if sound:
        verdict.require_sound()
        return
    with pytest.raises((CardIOError, StampMismatch)):
        verdict.require_sound()


MORE = ("and 1 more ranges",)


@pytest.mark.parametrize(
    ("verdict", "what", "hint", "listed", "rest"),
    [
        (found(mismatch()), "for pi7: one range differs", "verify /dev/sdx --repair", 1, ()),
        (
            found(*map(mismatch, range(20)), boot_files=("kernel7.img",), proof=RECEIPT),
            "for pi7: 20 ranges differ",
            "that is its own work",
            21,
            (),
        ),
        (found(*map(mismatch, range(21))), "21 ranges", "a Pi", 20, MORE),
        (found(mismatch(), use=damaged(25)), "one range differs", "the card or reader", 21, ()),
        (
            found(mismatch(), used=True, use=damaged(1)),
            "and one thing it had no reason to change is damaged",
            "save what you need",
            1,
            (),
        ),
        (
            found(mismatch(), used=True, use=damaged(20)),
            "and 20 things it had no reason to change are damaged",
            "save what you need",
            20,
            (),
        ),
        (
            found(mismatch(), used=True, use=damaged(22)),
            "and 22 things",
            "write it again",
            20,
            ("and 2 more",),
        ),
    ],
)
def test_what_differs_is_listed_and_the_list_is_bounded(
    verdict: Verification, what: str, hint: str, listed: int, rest: tuple[str, ...]
) -> None:
    with pytest.raises(StampMismatch) as caught:
        verdict.require_sound("verify /dev/sdx --repair")
    error = caught.value
    assert what in error.what
    assert hint in error.hint
    assert len(set(error.details)) == listed + len(rest)
    assert tuple(error.details[listed:]) == rest


@pytest.mark.parametrize("verdict", [{}, {"used": True, "use": damaged(2)}])
def test_a_card_that_ends_too_early_is_said_to_be_cut_short_first(verdict: dict[str, Any]) -> None:
    with pytest.raises(StampMismatch) as caught:
        found(mismatch(), size_bytes=4 << 20, **verdict).require_sound()
    assert caught.value.details[0] == f"cut short at byte {4 << 20} of {8 << 20}"


@pytest.mark.parametrize(("count", "ranges"), [(1, "one range"), (3, "3 ranges")])
def test_what_cannot_be_read_comes_first(count: int, ranges: str) -> None:
    refused = [mismatch(number, unreadable=True) for number in range(5, 5 + count)]
    with pytest.raises(CardIOError, match=f"{ranges} of pi7's card cannot be read") as caught:
        found(mismatch(), *refused, used=True, use=damaged(1)).require_sound()
    assert "first at byte 20480: boot partition (p1): /boot/kernel7.img | gap" in caught.value.what
    assert caught.value.offset == 20480
    assert caught.value.details[0] == "/etc/0 differs"
    assert len(caught.value.details) == 2 + count

"""What of a card is to be read: small gaps too, and never more ranges than there is memory for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import KiB
from imager.card.save.card_map import CardMap, gathered
from imager.disk.extents import Extent, ExtentMap

CARD = CardMap(0, ExtentMap(), (), 0, 0, has_gpt=False, note="", marks=("a", "-", "c"))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=30))
def test_all_that_counts_is_read_and_gaps_that_are_not_worth_it(
    pairs: list[tuple[int, int]],
) -> None:
    ranges = ExtentMap(Extent(low * KiB, length * KiB) for low, length in pairs)
    found = gathered(ranges)
    assert not ranges - found
    assert found == ranges.without_gaps_below(64 * KiB)


def test_a_card_in_a_million_pieces_is_read_with_the_gaps() -> None:
    found = gathered(Extent(number * 128 * KiB, 4 * KiB) for number in range(250_000))
    assert len(found) <= 100_000
    assert found.covers(Extent(0, 4 * KiB)) and found.end == 249_999 * 128 * KiB + 4 * KiB


def test_a_card_is_known_again_by_what_can_be_read_of_it() -> None:
    assert CARD.is_of(["a", "b", "c"]) and CARD.is_of(["a", "b", "-"])
    assert not CARD.is_of(["a", "b", "d"])
    assert not CARD.is_of(["a", "b"])
    assert not replace(CARD, marks=("a", "b", "c")).is_of(["a", "x", "c"])

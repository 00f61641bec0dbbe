"""ExtentMap against the obvious model: a set of byte numbers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.disk.extents import Extent, ExtentMap

ranges = st.lists(st.builds(Extent, st.integers(0, 120), st.integers(0, 30)), max_size=8)


def bytes_of(extents: ExtentMap) -> set[int]:
    return {byte for extent in extents for byte in range(extent.offset, extent.end)}


def model(extents: list[Extent]) -> set[int]:
    return {byte for extent in extents for byte in range(extent.offset, extent.end)}


@given(ranges)
def test_holds_the_bytes_it_was_given_sorted_and_disjoint(given_extents: list[Extent]) -> None:
    extents = ExtentMap(given_extents)
    assert bytes_of(extents) == model(given_extents)
    assert extents.total_bytes == len(model(given_extents))
    listed = list(extents)
    assert all(a.end < b.offset for a, b in itertools.pairwise(listed))


def test_ranges_that_touch_are_one() -> None:
    """Each range becomes one transfer and one finding, so a cut in the middle would show."""
    touching = [Extent(8, 4), Extent(0, 4), Extent(4, 4), Extent(20, 1)]
    assert list(ExtentMap(touching)) == [Extent(0, 12), Extent(20, 1)]
    assert ExtentMap(touching) == ExtentMap([Extent(0, 12), Extent(20, 1)])
    assert repr(ExtentMap(touching)) == "ExtentMap(2 extents, 13 bytes)"


@given(ranges, ranges)
def test_set_operations(a: list[Extent], b: list[Extent]) -> None:
    left, right = ExtentMap(a), ExtentMap(b)
    assert bytes_of(left | right) == model(a) | model(b)
    assert bytes_of(left & right) == model(a) & model(b)
    assert bytes_of(left - right) == model(a) - model(b)


@given(ranges, st.integers(0, 160), st.integers(0, 40))
def test_within(a: list[Extent], offset: int, length: int) -> None:
    found = ExtentMap(ExtentMap(a).within(offset, length))
    assert bytes_of(found) == model(a) & set(range(offset, offset + length))


@given(ranges, st.integers(0, 160), st.integers(1, 40))
def test_covers(a: list[Extent], offset: int, length: int) -> None:
    assert ExtentMap(a).covers(Extent(offset, length)) == (
        set(range(offset, offset + length)) <= model(a)
    )


@given(ranges, st.integers(1, 32))
def test_split_cuts_at_every_step_and_loses_nothing(a: list[Extent], step: int) -> None:
    parts = list(ExtentMap(a).split(step))
    assert bytes_of(ExtentMap(parts)) == model(a)
    assert all(part.offset // step == (part.end - 1) // step for part in parts)


@given(ranges, st.integers(1, 32))
def test_aligned_covers_and_ends_on_steps(a: list[Extent], step: int) -> None:
    aligned = ExtentMap(a).aligned(step)
    assert bytes_of(aligned) >= model(a)
    assert all(e.offset % step == 0 and e.end % step == 0 for e in aligned)


@given(ranges, st.integers(0, 10))
def test_filling_gaps_leaves_only_larger_ones(a: list[Extent], gap: int) -> None:
    filled = ExtentMap(a).without_gaps_below(gap)
    assert bytes_of(filled) >= bytes_of(ExtentMap(a))
    listed = list(filled)
    assert all(y.offset - x.end >= gap for x, y in itertools.pairwise(listed))


def test_a_gap_is_filled_when_it_is_shorter_and_only_then() -> None:
    extents = ExtentMap([Extent(0, 4), Extent(8, 4), Extent(17, 3)])
    assert extents.without_gaps_below(4) == extents
    assert list(extents.without_gaps_below(5)) == [Extent(0, 12), Extent(17, 3)]
    assert list(extents.without_gaps_below(6)) == [Extent(0, 20)]


def test_what_is_aligned_already_stays() -> None:
    extents = ExtentMap([Extent(0, 8), Extent(16, 24)])
    assert extents.aligned(8) == extents
    assert list(ExtentMap([Extent(7, 2)]).aligned(8)) == [Extent(0, 16)]


def test_sets_of_the_same_bytes_are_the_same_set() -> None:
    one, other = ExtentMap([Extent(0, 4), Extent(4, 4)]), ExtentMap([Extent(0, 8)])
    assert {one: 1}[other] == 1
    assert hash(one) == hash(other) != hash(ExtentMap())
    assert one != [Extent(0, 8)]
    assert (len(one), one.end, one.total_bytes) == (1, 8, 8)
    assert (len(ExtentMap()), ExtentMap().end, ExtentMap().total_bytes) == (0, 0, 0)
    assert not ExtentMap([Extent(3, 0), Extent(-1, 0)])
    assert not one.covers(Extent(2, 0))


def test_membership_and_alignment_limit() -> None:
    extents = ExtentMap([Extent(10, 5)])
    assert 10 in extents and 14 in extents
    assert 9 not in extents and 15 not in extents
    assert list(extents.aligned(8, limit=15)) == [Extent(8, 7)]
    assert list(extents.shifted(100)) == [Extent(110, 5)]


def test_refuses_a_negative_offset() -> None:
    with pytest.raises(ValueError, match="byte -1"):
        ExtentMap([Extent(-1, 5)])

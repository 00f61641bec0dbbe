"""What of a card is to be read: small gaps too, and never more ranges than there is memory for."""

from __future__ import annotations

import errno
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import CardIOError
from imager.base.run import run
from imager.base.units import KiB, MiB
from imager.card.save.card_map import _MOST_RANGES, CardMap, _written, gathered, map_card, marks_of
from imager.disk.extents import Extent, ExtentMap
from imager.node.stamp.stamp import STAMP_AREA
from tests.support.cards import FaultyCard
from tests.support.stamps import by_hand

CARD = CardMap(0, ExtentMap(), (), 0, 0, has_gpt=False, note="", marks=("a", "-", "c"))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=30))
def test_all_that_counts_is_read_and_gaps_that_are_not_worth_it(
    pairs: list[tuple[int, int]],
) -> None:
    ranges = ExtentMap(Extent(low * KiB, length * KiB) for low, length in pairs)
    found = gathered(ranges)
    assert not ranges - found
    assert found == ranges.without_gaps_below(64 * KiB)


def test_what_a_stamp_names_counts_as_far_as_the_card_goes() -> None:
    card = (bytes(STAMP_AREA.offset) + by_hand()).ljust(4 * MiB, b"\0")

    def read(offset: int, length: int) -> bytes:
        return card[offset : offset + length]

    assert _written(read, 4 * MiB) == ExtentMap([Extent(0, MiB)])
    assert _written(lambda _, length: bytes(length), 4 * MiB) == ExtentMap()


def test_a_card_in_a_million_pieces_is_read_with_the_gaps() -> None:
    page = (Path(__file__).parents[4] / "docs/security.md").read_text()
    assert f"ranges of a card that `read` reads | {_MOST_RANGES:,};" in page
    found = gathered(Extent(number * 128 * KiB, 4 * KiB) for number in range(250_000))
    assert len(found) <= _MOST_RANGES
    assert found.covers(Extent(0, 4 * KiB)) and found.end == 249_999 * 128 * KiB + 4 * KiB


def test_a_card_is_known_again_by_what_can_be_read_of_it() -> None:
    assert CARD.is_of(["a", "b", "c"]) and CARD.is_of(["a", "b", "-"])
    assert not CARD.is_of(["a", "b", "d"])
    assert not CARD.is_of(["a", "b"])
    assert not replace(CARD, marks=("a", "b", "c")).is_of(["a", "x", "c"])


# ── a whole card: a table, and one partition of nothing known from 1 MiB to 5 MiB ───────────────

SIZE = 8 * MiB
PART = Extent(MiB, 4 * MiB)


@cache
def image_with(label: str) -> bytes:
    with TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        image.write_bytes(bytes(SIZE))
        run(["sfdisk", "--quiet", image], stdin=f"label: {label}\nstart=2048, size=8192".encode())
        return image.read_bytes()


def card_with(label: str, size: int = SIZE) -> FaultyCard:
    card = FaultyCard(size)
    card.data[:] = image_with(label)[:size].ljust(size, b"\0")
    return card


@pytest.mark.parametrize(
    ("label", "size", "behind"),
    [
        ("dos", SIZE, None),
        ("gpt", SIZE, Extent(SIZE - MiB, MiB)),
        ("gpt", 5 * MiB + 512 * KiB, Extent(5 * MiB, 512 * KiB)),
    ],
)
def test_behind_the_last_partition_only_the_second_copy_of_a_gpt_is_read(
    label: str, size: int, behind: Extent | None
) -> None:
    found = map_card(card_with(label, size))
    wanted = ExtentMap([Extent(0, 5 * MiB)] + [one for one in (behind,) if one])
    assert found.extents == wanted
    assert (found.end_bytes, found.has_gpt) == (5 * MiB, label == "gpt")
    assert found.left_out_bytes == size - wanted.total_bytes
    assert [area.extent for area in found.areas] == [PART]


def test_a_table_that_counts_in_larger_sectors_is_not_believed_where_it_ends() -> None:
    found = map_card(card_with("dos"), sector_bytes=4096)
    assert found.extents == ExtentMap([Extent(0, SIZE)])
    assert (found.end_bytes, found.left_out_bytes) == (SIZE, 0)


BTRFS = bytes(65536 + 64) + b"_BHRfS_M"
LUKS = b"LUKS\xba\xbe"


@pytest.mark.parametrize(
    ("place", "mark", "kind"),
    [
        (5 * MiB, LUKS, "LUKS"),
        (6 * MiB, BTRFS, "btrfs"),
        (8 * MiB, LUKS, "LUKS"),
        (5 * MiB, b"#!/bin/sh\n", ""),
        (5 * MiB + 4 * KiB, LUKS, ""),
    ],
)
def test_a_lost_partition_behind_the_last_one_is_read_and_told(
    place: int, mark: bytes, kind: str
) -> None:
    size = 10 * MiB
    card = FaultyCard(size)
    card.data[:SIZE] = image_with("dos")
    card.data[place : place + len(mark)] = mark
    end = 5 * MiB if place < 6 * MiB else place - MiB // 2
    card.data[446 + 12 : 446 + 16] = ((end - MiB) // 512).to_bytes(4, "little")
    found = map_card(card)
    if kind:
        assert found.note == (
            f"all behind the last partition too: {kind} begins at byte {place}, in no partition"
        )
        assert found.extents.covers(Extent(end, size - end))
        assert (found.end_bytes, found.left_out_bytes) == (size, 0)
    else:
        assert (found.end_bytes, found.left_out_bytes, found.note) == (end, size - end, "")
    card.read_errors = {place: errno.EIO}
    assert map_card(card).left_out_bytes == size - end, "what does not answer is no mark"


def test_what_a_card_refuses_is_no_mark_and_leaves_nothing_out() -> None:
    whole = map_card(card_with("dos"))
    assert len(whole.marks) == 2 and "-" not in whole.marks
    card = card_with("dos")
    card.read_errors = {PART.offset: errno.EIO}
    found = map_card(card)
    assert found.marks == (whole.marks[0], "-") == marks_of(card, whole.areas)
    assert found.extents == whole.extents
    card.read_errors = {0: errno.EIO}
    found = map_card(card)
    assert found.extents == ExtentMap([Extent(0, SIZE)])
    assert (found.note, found.left_out_bytes) == ("its first sector cannot be read", 0)


@pytest.mark.parametrize("place", [0, PART.offset])
def test_a_card_that_is_gone_is_not_mapped(place: int) -> None:
    areas = map_card(card_with("dos")).areas
    card = card_with("dos")
    card.read_errors = {place: errno.ENODEV}
    with pytest.raises(CardIOError):
        map_card(card)
    with pytest.raises(CardIOError):
        marks_of(card, areas)


@pytest.mark.parametrize("part", [0, PART.offset])
def test_a_mark_is_of_the_first_8_kib(part: int) -> None:
    card = card_with("dos")
    found = map_card(card)
    for at, same in ((8 * KiB, True), (8 * KiB - 1, False)):
        card.data[part + at] ^= 1
        assert found.is_of(marks_of(card, found.areas)) == same

"""One budget for a card: what is spent stays spent, what is kept is counted by who keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import KiB, MiB
from imager.disk.budget import (
    MAX_FINDINGS,
    MAX_TEXT_BYTES,
    Budget,
    OverBudget,
    ReadLimits,
)
from imager.disk.fat.geometry import MAX_TABLE_BYTES

SMALL = ReadLimits(
    steps=10,
    depth=3,
    path_bytes=20,
    names=3,
    name_bytes=30,
    pieces=4,
    unpacked_bytes=1000,
    content_bytes=1000,
)


@given(st.lists(st.integers(0, 20), max_size=10))
def test_steps_of_all_shares_come_out_of_one_purse(steps: list[int]) -> None:
    budget = Budget(SMALL)
    spent = 0
    for step in steps:
        spent += step
        if spent > SMALL.steps:
            with pytest.raises(OverBudget, match="takes too long"):
                budget.share().step(step)
        else:
            budget.share().step(step)


@pytest.mark.parametrize("spend", ["unpack", "read_content"])
def test_bytes_of_all_shares_come_out_of_one_purse(spend: str) -> None:
    budget = Budget(SMALL)
    getattr(budget.share(), spend)(600)
    getattr(budget.share(), spend)(400)
    with pytest.raises(OverBudget):
        getattr(budget.share(), spend)(1)


def test_names_and_pieces_are_counted_for_each_reader() -> None:
    budget = Budget(SMALL)
    for share in (budget.share(), budget.share()):
        for name in "abc":
            share.keep_name(name)
        share.keep_pieces(4)
        with pytest.raises(OverBudget, match="more than 3 names"):
            share.keep_name("d")
        with pytest.raises(OverBudget, match="more than 4 pieces"):
            share.keep_pieces()


def test_long_names_are_counted_in_bytes() -> None:
    budget = Budget(SMALL)
    budget.keep_name("ä" * 15)
    with pytest.raises(OverBudget, match="its names take more than"):
        budget.keep_name("b")


def test_a_path_is_too_deep_or_too_long_whatever_is_left() -> None:
    budget = Budget(SMALL)
    assert budget.path_fault("a/b/c") is None
    assert "more than 3 folders" in (budget.path_fault("a/b/c/d") or "")
    assert budget.path_fault("ä" * 10) is None
    assert "more than 20 bytes" in (budget.path_fault("ä" * 10 + "b") or "")


def test_a_cards_files_may_be_twice_as_large_as_the_card() -> None:
    budget = Budget.of_disk(100)
    budget.read_content(200)
    with pytest.raises(OverBudget, match="larger together than the disk"):
        budget.read_content(1)


def test_an_image_of_our_own_may_cost_what_it_needs() -> None:
    budget = Budget.of_our_image()
    budget.step(1 << 50)
    budget.unpack(1 << 50)
    budget.keep_name("a/" * 5000)
    assert budget.path_fault("a/" * 5000) is None


def test_the_page_on_security_says_what_a_card_may_cost() -> None:
    page = (Path(__file__).parents[3] / "docs/security.md").read_text()
    limits = Budget().limits
    for said in (
        f"over all readers of a card | {limits.steps:,} |",
        f"of a card | {limits.unpacked_bytes / MiB:g} MiB |",
        f"length of a path | {limits.depth}; {limits.path_bytes} bytes |",
        f"their length | {limits.names:,}; {limits.name_bytes / MiB:g} MiB |",
        f"kept at once | {limits.pieces:,} (",
        f"damaged files, ranges | {MAX_FINDINGS} of a kind |",
        f"of the boot partition | {MAX_TEXT_BYTES / KiB:g} KiB;",
        f"file allocation table | {MAX_TABLE_BYTES / MiB:g} MiB (",
    ):
        assert said in page

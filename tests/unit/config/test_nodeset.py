"""Ranges of names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.config.nodeset import LIMIT, expand, fold


def test_numbers_ascend_as_numbers() -> None:
    assert expand("pi[0-13]") == tuple(f"pi{number}" for number in range(14))


def test_parts_keep_the_order_in_which_they_are_written() -> None:
    assert expand("pi[2-3],head, pi0") == ("pi2", "pi3", "head", "pi0")


def test_leading_zeros_are_kept() -> None:
    assert expand("pi[08-11]") == ("pi08", "pi09", "pi10", "pi11")


def test_addresses_expand_too() -> None:
    assert expand("10.0.0.[9-10]") == ("10.0.0.9", "10.0.0.10")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not a list of names; write it like pi[0-13] or pi[0-3],head"),
        ("a,,b", "is not a list of names; write it like pi[0-13] or pi[0-3],head"),
        ("@all", "is not a list of names; write it like pi[0-13] or pi[0-3],head"),
        ("pi[0-3]!pi2", "is not a list of names; write it like pi[0-13] or pi[0-3],head"),
        ("pi[3-1]", "has the range '3-1', which runs backwards"),
        ("pi[0-3/0]", "has the range '0-3/0', which runs backwards"),
        ("pi[a-c]", "has the range 'a-c'; write it like [0-13] or [0,2,4-7]"),
        ("pi[0-3],pi2", "has pi2 in it twice"),
        ("pi[0-3,2]", "has the same number in one range twice"),
        ("pi[0-4096]", f"stands for 4097 names; a rack has at most {LIMIT}"),
    ],
)
def test_what_is_no_range_is_told_why(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        expand(text)
    assert str(caught.value) == fault


def test_a_huge_range_costs_a_message_and_no_memory() -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="at most"):
        expand("p[0-999999999]-[0-999999999]")
    assert time.process_time() - began < 5


@given(st.text(alphabet="pi0123456789[]-,/@!&^ .*", max_size=30) | st.text(max_size=20))
def test_any_text_is_names_or_a_value_error(text: str) -> None:
    try:
        names = expand(text)
    except ValueError:
        return
    assert names
    assert len(set(names)) == len(names) <= LIMIT


def test_folding_undoes_expanding() -> None:
    assert fold(expand("pi[0-13]")) == "pi[0-13]"

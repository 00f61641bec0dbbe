"""Sizes as people write them."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import (
    GiB,
    MiB,
    align_down,
    align_up,
    format_chosen,
    format_size,
    format_transfer,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4096", 4096),
        ("8GiB", 8 * GiB),
        ("8 GiB", 8 * GiB),
        ("8g", 8 * GiB),
        ("1.5M", 3 * MiB // 2),
        ("32GB", 32 * 10**9),
        ("512 kb", 512_000),
        ("7B", 7),
    ],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "8 GiBs", "-1", "0", "1e9", "4 4", "8GiB\x00", "²"])
def test_parse_size_refuses_and_names_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@given(st.text())
def test_parse_size_raises_nothing_but_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_size(text) > 0


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (4096, "4.1 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1 MB"),
        (31_914_983_424, "31.9 GB"),
        (2 * 1024 * GiB, "2.2 TB"),
    ],
)
def test_what_was_measured_is_decimal(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize("typed", ["4 GiB", "1.5 MiB", "64 KiB", "32 GB", "1.5 TB", "500 B"])
def test_what_was_chosen_is_echoed_as_it_was_typed(typed: str) -> None:
    assert format_chosen(parse_size(typed)) == typed


@given(st.integers(1, 2**50))
def test_what_was_chosen_is_never_rounded(size_bytes: int) -> None:
    number, _, unit = format_chosen(size_bytes).partition(" ")
    assert Fraction(number) * parse_size(f"1{unit}") == size_bytes


@given(st.integers(0, 2**50), st.floats(0, 1e6))
def test_no_transfer_has_a_rate_of_nothing(size_bytes: int, seconds: float) -> None:
    said = format_transfer(size_bytes, seconds)
    assert not re.search(r"\b0\.0 ", said)


@pytest.mark.parametrize(
    ("size_bytes", "seconds", "text"),
    [
        (612 * 10**6, 31, "612 MB in 31.0 s, 19.7 MB/s"),
        (4096, 2, "4.1 kB in 2.0 s, 2 kB/s"),
        (10, 3, "10 B in 3.0 s, 3 B/s"),
        (MiB, 0.019, "1 MB in less than 0.1 s"),
    ],
)
def test_transfers(size_bytes: int, seconds: float, text: str) -> None:
    assert format_transfer(size_bytes, seconds) == text


@given(st.integers(0, 2**50), st.integers(1, 2**30))
def test_alignment_brackets_the_value(value: int, step: int) -> None:
    assert align_down(value, step) <= value <= align_up(value, step)
    assert align_down(value, step) % step == align_up(value, step) % step == 0
    assert align_up(value, step) - align_down(value, step) in (0, step)

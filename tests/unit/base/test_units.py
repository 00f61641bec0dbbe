"""Sizes as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import GiB, KiB, MiB, align_down, align_up, format_size, parse_size


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
        (1023, "1023 B"),
        (312 * KiB, "312 KiB"),
        (4 * GiB, "4 GiB"),
        (31 * 10**9, "28.9 GiB"),
    ],
)
def test_format_size(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(0, 2**50), st.integers(1, 2**30))
def test_alignment_brackets_the_value(value: int, step: int) -> None:
    assert align_down(value, step) <= value <= align_up(value, step)
    assert align_down(value, step) % step == align_up(value, step) % step == 0
    assert align_up(value, step) - align_down(value, step) in (0, step)

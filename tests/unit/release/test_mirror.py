"""The one thing of a mirror's set that is read as text: the checksum file."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.release.mirror import parse_md5

MD5 = hashlib.md5(b"x").hexdigest()


@pytest.mark.parametrize(
    "text", [f"{MD5}  x.tar.gz\n", f"{MD5} *x.tar.gz\n", MD5, f"\n{MD5.upper()}\tx\n"]
)
def test_a_checksum_is_read_as_md5sum_writes_it(text: str) -> None:
    assert parse_md5(text.encode()) == MD5


@pytest.mark.parametrize("text", ["", "<html>", MD5[:-1], MD5 + "0  x", f"MD5 (x) = {MD5}"])
def test_anything_else_is_no_checksum(text: str) -> None:
    assert parse_md5(text.encode()) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_a_checksum_or_none(data: bytes) -> None:
    found = parse_md5(data)
    assert found is None or len(found) == 32

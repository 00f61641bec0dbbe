"""A delta on its way: the same at its end, and what is no delta is refused without great cost."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.disk.mbr import MAX_DISK_BYTES
from imager.node.image import Delta
from imager.stations.wire.delta import MAGIC, MOST_BYTES, DeltaFault, pack_delta, unpack_delta

PIECES = st.lists(st.binary(min_size=1, max_size=50), max_size=8)


@given(PIECES)
def test_a_delta_arrives_as_it_was(pieces: list[bytes]) -> None:
    delta = Delta((n * 1000, data) for n, data in enumerate(pieces))
    assert unpack_delta(pack_delta(delta)).pieces == delta.pieces


@given(st.binary(max_size=200))
def test_anything_else_is_a_fault(data: bytes) -> None:
    for packed in (data, zlib.compress(data), zlib.compress(MAGIC + data)):
        try:
            unpack_delta(packed)
        except DeltaFault:
            continue
        assert pack_delta(unpack_delta(packed))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (struct.pack("<Q", 100_000), "ends before its"),
        (struct.pack("<Q", 100_001), "more than 100000 pieces"),
        (struct.pack("<QQQ", 1, 0, 2**60), "cannot be"),
        (struct.pack("<QQQ", 1, 0, 3) + b"xy", "cannot be"),
        (struct.pack("<QQQ", 1, MAX_DISK_BYTES, 1) + b"x", "cannot be"),
        (struct.pack("<QQQ", 1, 2**62, 1) + b"x", "cannot be"),
        (struct.pack("<QQQQQ", 2, 0, 2, 1, 2) + b"abcd", "overlap"),
        (struct.pack("<QQQ", 1, 0, 1) + b"xy", "1 bytes follow"),
    ],
)
def test_a_table_that_cannot_be(body: bytes, why: str) -> None:
    with pytest.raises(DeltaFault, match=why):
        unpack_delta(zlib.compress(MAGIC + body))


def test_a_piece_may_end_where_the_largest_disk_does() -> None:
    delta = Delta([(MAX_DISK_BYTES - 1, b"x")])
    assert unpack_delta(pack_delta(delta)).pieces == delta.pieces


@pytest.mark.parametrize("cut", [slice(None, -1), slice(0, 0)])
def test_one_that_is_cut_short_is_none(cut: slice) -> None:
    with pytest.raises(DeltaFault, match="cut short"):
        unpack_delta(pack_delta(Delta([(0, b"x")]))[cut])


def test_nothing_follows_it() -> None:
    with pytest.raises(DeltaFault):
        unpack_delta(pack_delta(Delta([(0, b"x")])) + b"y")


def test_a_bomb_is_not_unpacked() -> None:
    packed = zlib.compress(bytes(MOST_BYTES + 1), 1)
    with pytest.raises(DeltaFault, match="larger than"):
        unpack_delta(packed)


def test_a_fault_has_none_of_the_bytes() -> None:
    with pytest.raises(DeltaFault) as fault:
        unpack_delta(zlib.compress(b"PRIVATE KEY"))
    assert "PRIVATE" not in str(fault.value)

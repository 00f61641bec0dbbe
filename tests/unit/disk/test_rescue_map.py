"""The map of a rescue: states are kept as they were put, and ddrescue's own maps are read."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.disk.extents import Extent, ExtentMap
from imager.disk.rescue_map import MAX_MAP_BYTES, BlockState, RescueMap, RescueMapError

SIZE = 60
THEIRS = b"""# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue -d /dev/sdb a.img a.map
# current_pos  current_status  current_pass
0x00118200     -               1
#      pos        size  status
0x00000000  0x00117000  +
0x00117000  0x00000200  -
0x00117200  0x00001000  /
0x00118200  0x00007E00  *
0x00120000  0x00048000  ?
"""


@given(
    puts=st.lists(
        st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.sampled_from(BlockState)),
        max_size=25,
    )
)
def test_every_byte_is_in_the_state_it_was_put_in_last(
    puts: list[tuple[int, int, BlockState]],
) -> None:
    found, plain = RescueMap(SIZE), [BlockState.NOT_TRIED] * SIZE
    for one, other, state in puts:
        low, high = sorted((one, other))
        found.put(Extent(low, high - low), state)
        plain[low:high] = [state] * (high - low)
    told = [state for extent, state in found.blocks() for _ in range(extent.length)]
    assert told == plain
    states = [state for _, state in found.blocks()]
    assert all(one is not other for one, other in pairwise(states))
    again = RescueMap.parse(found.encode())
    assert list(again.blocks()) == list(found.blocks())


def test_a_map_of_ddrescue_is_read() -> None:
    found = RescueMap.parse(THEIRS)
    assert found.size_bytes == 0x168000
    assert found.having(BlockState.BAD) == ExtentMap([Extent(0x117000, 0x200)])
    assert found.having(BlockState.SAVED).total_bytes == 0x117000


def test_notes_are_kept() -> None:
    text = RescueMap(SIZE, ["card: 0123"]).encode()
    assert "card: 0123" in RescueMap.parse(text).notes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "status line"),
        (b"hello", "status line"),
        (b"0 ?\n0 10 +\n11 5 -\n", "follow"),
        (b"0 ?\n5 10 +\n", "follow"),
        (b"0 ?\n0 10 x\n", "no range"),
        (b"0 ?\n0 -1 +\n", "no range"),
        (b"0" * (MAX_MAP_BYTES + 1), "longer"),
        (b"\r\n" * 250_000, "status line"),
        (b"\r\n" * 250_000 + b"\n", "more than 500000 lines"),
    ],
)
def test_what_is_no_map_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(RescueMapError, match=why):
        RescueMap.parse(text)

"""Partitions begin and end where an SD card's erase units do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import GiB, MiB
from imager.disk.layout import ALIGNMENT, plan_layout, root_bytes_for


@given(st.integers(0, 8 * GiB), st.integers(0, 64 * GiB), st.integers(0, 10**6))
def test_partitions_are_aligned_hold_their_files_and_do_not_overlap(
    boot_bytes: int, content: int, files: int
) -> None:
    root_bytes = root_bytes_for(content, files)
    layout = plan_layout(boot_bytes, root_bytes)
    assert layout.boot.offset == 8 * MiB
    assert layout.boot.length % ALIGNMENT == layout.root.offset % ALIGNMENT == 0
    assert layout.boot.length >= max(256 * MiB, 2 * boot_bytes)
    assert layout.boot.end <= layout.root.offset
    assert layout.root.length >= root_bytes >= max(GiB, content * 4 // 3, files * 16384)
    assert layout.tail.end == layout.size_bytes
    assert layout.tail.offset == layout.root.end - MiB


@given(st.integers(2 * GiB, 512 * GiB))
def test_growing_moves_only_the_end_of_root(size_bytes: int) -> None:
    small = plan_layout(0, GiB)
    grown = small.grown_to(size_bytes)
    assert grown.boot == small.boot
    assert grown.root.offset == small.root.offset
    assert size_bytes - MiB < grown.root.end <= size_bytes

"""Partitions begin and end where an SD card's erase units do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.units import GiB, MiB
from imager.disk.extents import Extent
from imager.disk.layout import ALIGNMENT, FIRST_MIB, Layout, plan_layout, root_bytes_for


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


@pytest.mark.parametrize(
    ("boot_mib", "root_mib", "size_mib", "boot_length_mib"),
    [(0, 1024, 1288, 256), (128, 1024, 1288, 256), (129, 1, 280, 264), (200, 8, 416, 400)],
)
def test_a_disk_is_no_larger_than_its_files_ask_for(
    boot_mib: int, root_mib: int, size_mib: int, boot_length_mib: int
) -> None:
    boot = Extent(8 * MiB, boot_length_mib * MiB)
    root = Extent(boot.end, size_mib * MiB - boot.end)
    found = plan_layout(boot_mib * MiB, root_mib * MiB)
    assert found == Layout(size_mib * MiB, boot, root)


@pytest.mark.parametrize(
    ("content", "files", "root_bytes"),
    [
        (0, 0, GiB),
        (576 * MiB, 0, GiB),
        (576 * MiB + 1, 0, GiB + 8 * MiB),
        (3 * GiB, 0, 4 * GiB + 256 * MiB),
        (3 * GiB, 214_000, 4 * GiB + 256 * MiB),
        (0, 65536, 1280 * MiB),
        (0, 65537, 1288 * MiB),
    ],
)
def test_room_for_content_or_for_inodes_whichever_is_more(
    content: int, files: int, root_bytes: int
) -> None:
    assert root_bytes_for(content, files) == root_bytes


def test_the_first_mib_begins_with_the_table_and_ends_before_any_partition() -> None:
    assert Extent(0, MiB) == FIRST_MIB

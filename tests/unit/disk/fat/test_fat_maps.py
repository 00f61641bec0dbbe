"""Which bytes a FAT uses, told by its tables alone: what is left out here is never copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from imager.disk.budget import Budget
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.geometry import FatError
from imager.disk.fat.maps import used_in_order
from tests.support.hostile import HostileFat
from tests.unit.disk.fat.test_volume import DATA, TABLE_SECTORS, Surgeon, at, made

BAD = b"\xf7\xff\xff\x0f"


@pytest.fixture
def disk(tmp_path: Path) -> Surgeon:
    """Two files, of three clusters and of one, with a lost one between them."""
    fat = HostileFat()
    fat.put("a", bytes(3 * 512))
    fat.claim(b"lost")
    fat.put("b", b"x")
    return made(tmp_path, fat)


def used(disk: Surgeon, budget: Budget | None = None) -> list[Extent]:
    boot = disk.layout.boot
    return list(used_in_order(disk.read, boot.offset, boot.length, budget))


def test_what_the_tables_call_taken_is_in_use_and_what_no_cluster_holds(disk: Surgeon) -> None:
    boot, budget = disk.layout.boot, Budget()
    found = used(disk, budget)
    end = at(disk, 2, 70_000).end
    assert found == [Extent(boot.offset, DATA), at(disk, 2, 6), Extent(end, boot.end - end)]
    assert ExtentMap(found[:2]) == disk.volume().used
    assert budget.spent == (70_000 // 8 + 1, 0)


def test_a_cluster_of_either_copy_is_in_use_and_a_bad_one_is_not(disk: Surgeon) -> None:
    second = (32 + TABLE_SECTORS) * 512
    disk.put(second + 4 * 70_001, b"\xff\xff\xff\x0f")
    for copy in (32 * 512, second):
        disk.put(copy + 4 * 100, BAD)
    budget = Budget()
    clusters = used(disk, budget)[1:-1]
    assert clusters == [at(disk, 2, 6), at(disk, 70_001)]
    assert budget.spent == (2 * 70_000 // 8 + 2, 0)


def test_a_filesystem_without_a_tail_has_none(disk: Surgeon) -> None:
    boot = disk.layout.boot
    length = at(disk, 2, 70_000).end - boot.offset
    found = list(used_in_order(disk.read, boot.offset, length))
    assert found[-1] == at(disk, 2, 6)
    with pytest.raises(FatError, match=r"claims 70000 clusters; .* room for 69999"):
        list(used_in_order(disk.read, boot.offset, length - 1))


def test_a_disk_that_ends_within_the_tables_is_told_of(disk: Surgeon) -> None:
    end = disk.layout.boot.offset + (32 + TABLE_SECTORS) * 512
    del disk.data[end:]
    with pytest.raises(FatError, match="ends before byte"):
        used(disk)

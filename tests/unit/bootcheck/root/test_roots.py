"""The partitions of a card are looked at, but not any number of them."""

from __future__ import annotations

from imager.base.units import MiB
from imager.bootcheck.root.roots import Roots
from imager.disk.budget import Budget
from imager.disk.extents import Extent
from imager.disk.gpt import Gpt, GptPartition
from imager.disk.mbr import Mbr
from imager.disk.table import PartitionTable


def test_a_table_of_a_thousand_partitions_costs_no_gibibyte() -> None:
    taken = 0

    def read(at: int, length: int) -> bytes:
        nonlocal taken
        taken += length
        return b"\1" * length

    parts = [GptPartition(n, "t", f"g{n}", "", Extent(n * MiB, MiB)) for n in range(1, 1025)]
    table = PartitionTable(Mbr(1, ()), (), Gpt("d", tuple(parts), is_backup=False))
    roots = Roots(read, table, 1025 * MiB, Budget())
    assert len(roots.partitions) == 1024
    assert taken < 80 * MiB
    assert roots.filesystem(roots.presumed) is None

"""Which bytes of a disk a FAT filesystem uses, told by its tables alone.

In: a way to read a disk, and the place of a partition. Out: ranges of bytes by ascending place.
Folders are not followed, so damage in them leaves nothing out, and nothing but the boot sector and
the tables, which lie before all files, is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imager.base.units import SECTOR_BYTES
from imager.disk.budget import Budget
from imager.disk.extents import Extent
from imager.disk.fat.geometry import FatError, Geometry, parse_geometry
from imager.disk.fat.table import BAD, FREE, decode_table
from imager.disk.manifest import Reader

_RUN = re.compile(b"\1+")


def used_in_order(
    read: Reader, offset: int, length: int, budget: Budget | None = None
) -> Iterator[Extent]:
    """All that lies before the first cluster, every cluster that a copy of the table calls neither
    free nor bad, and what lies behind the last cluster; neighbours may touch.

    Raises FatError where there is no FAT, or one that claims more than the partition has;
    OverBudget.
    """
    budget = budget or Budget()
    geometry = parse_geometry(_exactly(read, offset, min(SECTOR_BYTES, length)), offset, length)
    clusters = geometry.cluster_count
    if geometry.readable_clusters < clusters:
        raise FatError(
            f"it claims {clusters} clusters; its table and partition have room for "
            f"{geometry.readable_clusters}"
        )
    copies = {_table_bytes(read, geometry, number) for number in range(geometry.table_count)}
    budget.step(len(copies) * clusters >> 3)
    taken = 0
    for copy in copies:
        taken |= int.from_bytes(_taken(copy, geometry))
    yield Extent(offset, geometry.fixed_root.end - offset)
    for match in _RUN.finditer(taken.to_bytes(clusters)):
        budget.step()
        yield geometry.clusters(match.start() + 2, match.end() - match.start())
    end = geometry.clusters(2, clusters).end
    if end < offset + length:
        yield Extent(end, offset + length - end)


def _table_bytes(read: Reader, geometry: Geometry, number: int) -> bytes:
    bits = (geometry.cluster_count + 2) * geometry.kind
    return _exactly(read, geometry.table(number).offset, -(-bits // 8))


def _taken(table: bytes, geometry: Geometry) -> bytes:
    """A byte for each cluster: 1 where the table says that something lies there."""
    entries = decode_table(table, geometry.kind, geometry.cluster_count + 2)[2:]
    return bytes(entry not in (FREE, BAD) for entry in entries)


def _exactly(read: Reader, offset: int, length: int) -> bytes:
    data = read(offset, length)
    if len(data) != length:
        raise FatError(f"the image ends before byte {offset + length}")
    return data

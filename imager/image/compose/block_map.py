"""Which bytes of an image a card must be given, and which may keep what they held before.

In: the layout and the two filesystems of an image. Out: the block map. A hole in an image is not
a zero on a card: whatever a program could read and believe must be written, also where it is
empty; the rest is left alone.
"""

from __future__ import annotations

from imager.base.units import MiB
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout

GRANULE = 4096
"""Cards and readers work in pages of at least this; smaller writes cost as much."""
_SMALLEST_GAP = 64 * 1024
"""Holes below this are written through: one longer transfer beats two short ones on any card."""


def block_map(layout: Layout, boot: FatVolume, root: Ext4) -> ExtentMap:
    """Everything in use, and everything that must not be stale: the first MiB (partition table,
    stamp), both FATs, the whole journal, and the last MiB of each partition and of the card,
    where an earlier life may have left RAID and LVM labels or a backup GPT."""
    fixed = ExtentMap([FIRST_MIB, Extent(layout.boot.end - MiB, MiB), layout.tail])
    everything = boot.used | root.used | root.journal | fixed
    aligned = everything.aligned(GRANULE, limit=layout.size_bytes)
    return aligned.without_gaps_below(_SMALLEST_GAP)

"""Which bytes of an image a card must be given, and which may keep what they held before.

In: the layout and the two filesystems of an image. Out: the block map. A used card has old bytes
everywhere. So all that a program may read must be written, even if it is only zeros; what no
program reads is left as it is.
"""

from __future__ import annotations

from imager.base.units import MiB
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout

GRANULE = 4096
"""Cards and readers work in pages of at least this; a smaller write takes as long."""
_SMALLEST_GAP = 64 * 1024
"""Shorter holes are written too: on any card one long transfer takes less time than two short."""


def block_map(layout: Layout, boot: FatVolume, root: Ext4) -> ExtentMap:
    """Everything in use, and everything where old bytes would do harm: the first MiB (partition
    table, stamp), both FATs, the whole journal, and the last MiB of each partition and of the
    card, where an earlier use may have left labels of RAID and LVM or the backup of a GPT."""
    fixed = ExtentMap([FIRST_MIB, Extent(layout.boot.end - MiB, MiB), layout.tail])
    everything = boot.used | root.used | root.journal | fixed
    aligned = everything.aligned(GRANULE, limit=layout.size_bytes)
    return aligned.without_gaps_below(_SMALLEST_GAP)

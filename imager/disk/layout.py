"""Where the two partitions lie on a card of a given size. Pure arithmetic.

In: the bytes a release needs and the size of the card. Out: a Layout. p1 is FAT32 at 8 MiB, p2
ext4 from the next 8 MiB boundary to the end: SD erase units are commonly
2 to 8 MiB, and Raspberry Pi OS aligns to 8 MiB since 2025 (pi-gen).
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.units import GiB, KiB, MiB, align_down, align_up
from imager.disk.extents import Extent

ALIGNMENT = 8 * MiB
BOOT_DEFAULT = 256 * MiB
BYTES_PER_INODE = 16384
"""One inode for so many bytes of the root filesystem: the default of mke2fs for this size."""
FIRST_MIB = Extent(0, MiB)
"""MBR and stamp: written last, so that a card pulled too early is visibly blank."""
STAMP_AREA = Extent(4 * KiB, MiB - 4 * KiB)
"""Room for the stamp: the first MiB behind the partition table's own block."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A card of ``size_bytes`` with its boot (p1, FAT32) and root (p2, ext4) partitions."""

    size_bytes: int
    boot: Extent
    root: Extent

    def grown_to(self, size_bytes: int) -> Layout:
        """The same card with p2 reaching to the end of ``size_bytes``."""
        return Layout(size_bytes, self.boot, _root_after(self.boot, size_bytes))

    @property
    def tail(self) -> Extent:
        """From 1 MiB before p2's end to the card's end: where stale backup GPTs and RAID labels
        of the card's former life lie (both of the disk and of the partition)."""
        start = self.root.end - MiB
        return Extent(start, self.size_bytes - start)


def _root_after(boot: Extent, size_bytes: int) -> Extent:
    start = align_up(boot.end, ALIGNMENT)
    return Extent(start, align_down(size_bytes, MiB) - start)


def plan_layout(boot_bytes: int, root_bytes: int) -> Layout:
    """The smallest card for ``boot_bytes`` of boot files and a root filesystem of ``root_bytes``.

    p1 is 256 MiB, or twice the boot files in steps of 8 MiB where that is more (room for the
    next kernel beside the present one); the card's size is a whole number of 8 MiB steps.
    """
    boot = Extent(ALIGNMENT, max(BOOT_DEFAULT, align_up(2 * boot_bytes, ALIGNMENT)))
    size = align_up(boot.end, ALIGNMENT) + align_up(root_bytes, ALIGNMENT)
    return Layout(size, boot, _root_after(boot, size))


def root_bytes_for(content_bytes: int, files: int = 0) -> int:
    """Size of a golden root filesystem for ``content_bytes`` in ``files`` files: a third more,
    plus the journal and metadata, an inode for each file and some to spare, and never below
    1 GiB, so that mke2fs chooses the geometry it would choose on a real card."""
    for_content = content_bytes * 4 // 3 + 256 * MiB
    for_inodes = files * BYTES_PER_INODE * 5 // 4
    return max(GiB, align_up(max(for_content, for_inodes), ALIGNMENT))

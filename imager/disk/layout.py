"""Where a boot and a root partition lie on a disk of a given size. Pure arithmetic.

In: how many bytes the files of each partition need. Out: a Layout. The boot partition begins at
8 MiB, the root partition at the next multiple of 8 MiB, and it reaches to the end of the disk.
Flash memory erases 2 to 8 MiB at a time, so a partition that begins on such a border does not
share an erased stretch with its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.units import GiB, MiB, align_down, align_up
from imager.disk.extents import Extent

ALIGNMENT = 8 * MiB
"""Each partition begins at a multiple of this."""
BOOT_DEFAULT = 256 * MiB
"""The least size of a boot partition."""
BYTES_PER_INODE = 16384
"""A root filesystem gets one inode for each so many bytes: what mke2fs does by default."""
FIRST_MIB = Extent(0, MiB)
"""The partition table and the unused space behind it. A writer that fills it last leaves a disk
without partitions, and not half a system, when it is interrupted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A disk of ``size_bytes`` with partition 1, ``boot`` (FAT32), and partition 2, ``root``
    (ext4)."""

    size_bytes: int
    boot: Extent
    root: Extent

    def grown_to(self, size_bytes: int) -> Layout:
        """This layout on a disk of ``size_bytes``: the root partition reaches to its end."""
        return Layout(size_bytes, self.boot, _root_after(self.boot, size_bytes))

    @property
    def tail(self) -> Extent:
        """The last MiB of the root partition and all that follows it on the disk.

        Programs look there for labels of RAID and for the backup of a GPT, so what an earlier
        use of the disk left there must be overwritten.
        """
        start = self.root.end - MiB
        return Extent(start, self.size_bytes - start)


def _root_after(boot: Extent, size_bytes: int) -> Extent:
    start = align_up(boot.end, ALIGNMENT)
    return Extent(start, align_down(size_bytes, MiB) - start)


def plan_layout(boot_bytes: int, root_bytes: int) -> Layout:
    """The smallest disk for ``boot_bytes`` of boot files and a root filesystem of ``root_bytes``.

    The boot partition is 256 MiB, or twice the boot files where that is more: an update can then
    lay the next kernel beside the present one. All sizes are multiples of 8 MiB.
    """
    boot = Extent(ALIGNMENT, max(BOOT_DEFAULT, align_up(2 * boot_bytes, ALIGNMENT)))
    size = align_up(boot.end, ALIGNMENT) + align_up(root_bytes, ALIGNMENT)
    return Layout(size, boot, _root_after(boot, size))


def root_bytes_for(content_bytes: int, files: int = 0) -> int:
    """The size in bytes of a root filesystem for ``content_bytes`` in ``files`` files.

    A third of free space is added, 256 MiB for the journal and metadata, and a quarter more
    inodes than files. It is never below 1 GiB, because mke2fs chooses a different geometry for
    small filesystems, which growing them later does not change.
    """
    for_content = content_bytes * 4 // 3 + 256 * MiB
    for_inodes = files * BYTES_PER_INODE * 5 // 4
    return max(GiB, align_up(max(for_content, for_inodes), ALIGNMENT))

"""A working copy with nothing but the metadata of both filesystems.

In: a golden image and the card's layout. Out: two files in memory, which the editing programs
take for whole filesystems, and afterwards the blocks in which they differ from the golden image.
The content of files is not copied, because no tool used here reads it: one node takes some MiB of
memory and not as much as the whole release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.units import MiB
from imager.disk.extents import Extent, ExtentMap
from imager.disk.manifest import Reader
from imager.image.compose.block_map import GRANULE
from imager.node.edit.memory_file import MemoryFile, scratch


@dataclass(frozen=True, slots=True)
class WorkingPartition:
    """One partition of the working copy: the file, and where it lies on the card."""

    work: MemoryFile
    where: Extent

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from byte ``offset`` of the card, as a ``Reader``."""
        return self.work.read(offset - self.where.offset, length)

    def changes(self, candidates: ExtentMap, golden: Reader) -> Iterator[tuple[int, bytes]]:
        """The parts of ``candidates`` that differ from the golden image: (offset, bytes).

        ``candidates`` may have only metadata and content that was written here. The rest of the
        working copy is empty and would look changed.
        """
        for extent in candidates.split(MiB):
            new, old = self.read(extent.offset, extent.length), golden(extent.offset, extent.length)
            if new != old:
                yield from _differing(extent.offset, new, old)


@contextmanager
def part_of(where: Extent, metadata: ExtentMap, golden: Reader) -> Iterator[WorkingPartition]:
    """A partition at ``where`` on the card, filled with ``metadata`` of the golden image."""
    with scratch(size_bytes=where.length) as work:
        for extent in metadata.split(MiB):
            work.write(extent.offset - where.offset, golden(extent.offset, extent.length))
        yield WorkingPartition(work, where)


def _differing(offset: int, new: bytes, old: bytes) -> Iterator[tuple[int, bytes]]:
    """The blocks of ``new`` that differ from ``old``; neighbours are joined."""
    pieces = ExtentMap([Extent(offset, len(new))]).split(GRANULE)
    for run in ExtentMap(_unequal(pieces, offset, new, old)):
        start = run.offset - offset
        yield run.offset, new[start : start + run.length]


def _unequal(pieces: Iterable[Extent], base: int, new: bytes, old: bytes) -> Iterator[Extent]:
    for piece in pieces:
        start, stop = piece.offset - base, piece.end - base
        if new[start:stop] != old[start:stop]:
            yield piece

"""What is at a byte of a card, in words that people know: partition, file, structure.

In: a layout and a way to read the card (or the image it should hold). Out: names for byte ranges.
The filesystems are read only when a name is asked for. Where a filesystem is too damaged to be
read, the name is that of the partition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from imager.base.errors import PicloudError
from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.manifest import Reader
from imager.node.stamp.stamp import STAMP_AREA

_NAMED_AT_MOST = 8
_TABLE = Extent(0, STAMP_AREA.offset)


@dataclass(frozen=True, slots=True)
class CardPlace:
    """A stretch of a card: always its ``region``, and the files in it where they are known.

    Paths begin with ``/`` as on the node, those of the boot partition with ``/boot/``. ``inner``
    names a filesystem's own structures when the range touches them.
    """

    region: str
    paths: tuple[str, ...] = ()
    inner: str = ""

    def __str__(self) -> str:
        named = ", ".join(self.paths[:_NAMED_AT_MOST])
        more = len(self.paths) - _NAMED_AT_MOST
        if more > 0:
            named += f" and {more} more files"
        return ": ".join(filter(None, (self.region, "; ".join(filter(None, (self.inner, named))))))


@dataclass(frozen=True, slots=True)
class _Contents:
    """The files and structures of one filesystem, by their place on the card."""

    starts: tuple[int, ...]
    files: tuple[tuple[Extent, str], ...]
    reach: tuple[int, ...]
    """The furthest end of the files up to each: where nothing overlaps, its own."""
    structures: tuple[tuple[str, ExtentMap], ...]

    @classmethod
    def of(
        cls, files: Iterable[tuple[Extent, str]], structures: Iterable[tuple[str, ExtentMap]]
    ) -> _Contents:
        ordered = tuple(sorted(files))
        return cls(
            starts=tuple(extent.offset for extent, _ in ordered),
            files=ordered,
            reach=tuple(accumulate((extent.end for extent, _ in ordered), max)),
            structures=tuple(structures),
        )

    def place(self, region: str, extent: Extent, budget: Budget) -> CardPlace:
        paths = reversed([*self._files_in(extent, budget)])
        inner = (
            name
            for name, ranges in self.structures
            if next(ranges.within(extent.offset, extent.length), None) is not None
        )
        return CardPlace(region, tuple(dict.fromkeys(paths)), ", ".join(inner))

    def _files_in(self, extent: Extent, budget: Budget) -> Iterator[str]:
        """The files in ``extent``, last one first; none where telling would cost too much."""
        at = bisect_left(self.starts, extent.end) - 1
        while at >= 0 and self.reach[at] > extent.offset:
            try:
                budget.step()
            except OverBudget:
                return
            part, path = self.files[at]
            if part.end > extent.offset:
                yield path
            at -= 1


_NOTHING = _Contents.of((), ())


def _files_of(volume: Ext4) -> Iterator[tuple[Extent, str]]:
    for path, inode in volume.walk():
        if inode.is_dir or not inode.extents:
            continue
        volume.budget.keep_name(path)
        volume.budget.keep_pieces(len(inode.extents))
        for extent in inode.extents:
            yield extent, f"/{path.lstrip('/')}"


class Places:
    """Names for the ranges of one card."""

    def __init__(self, layout: Layout, read: Reader, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._layout = layout
        self._read = read

    def of(self, extent: Extent) -> tuple[CardPlace, ...]:
        """Every place ``extent`` touches, in order."""
        return tuple(self._places(extent))

    def _places(self, extent: Extent) -> Iterator[CardPlace]:
        boot, root = self._layout.boot, self._layout.root
        regions = (
            (_TABLE, "partition table (first MiB)"),
            (STAMP_AREA, "stamp (first MiB)"),
            (Extent(FIRST_MIB.end, boot.offset - FIRST_MIB.end), "gap before the boot partition"),
            (boot, "boot partition (p1)"),
            (Extent(boot.end, root.offset - boot.end), "gap between the partitions"),
            (root, "root partition (p2)"),
            (Extent(root.end, max(0, extent.end - root.end)), "end of the card"),
        )
        for region, name in regions:
            for part in ExtentMap([region]).within(extent.offset, extent.length):
                if region == boot:
                    yield self._boot.place(name, part, self._budget)
                elif region == root:
                    yield self._root.place(name, part, self._budget)
                else:
                    yield CardPlace(name)

    @cached_property
    def _boot(self) -> _Contents:
        boot = self._layout.boot
        try:
            volume = FatVolume.parse(self._read, boot.offset, boot.length, self._budget)
        except (ValueError, PicloudError):
            return _NOTHING
        files = (
            (extent, f"/boot/{entry.path}")
            for entry in volume.entries.values()
            if not entry.is_dir
            for extent in entry.extents
        )
        return _Contents.of(files, [("FAT tables or folders", volume.metadata)])

    @cached_property
    def _root(self) -> _Contents:
        try:
            volume = Ext4.open(self._read, self._layout.root.offset, self._budget)
            files = [*_files_of(volume)]
            structures = [
                ("journal", volume.journal),
                ("filesystem structures", volume.metadata - volume.journal),
            ]
        except (ValueError, PicloudError):
            return _NOTHING
        return _Contents.of(files, structures)

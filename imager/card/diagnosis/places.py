"""What is at a byte of a card, in words that people know: partition, file, structure.

In: a layout, where the card is one of ours, and a way to read the card (or the image it should
hold). Out: names for byte ranges. Of any other card the partition table says what there is.
The filesystems are read only when a name is asked for. Where a filesystem is too damaged to be
read, the name is that of the partition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate

from imager.base.errors import PicloudError
from imager.disk.budget import Budget, OverBudget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent, ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.layout import FIRST_MIB, Layout
from imager.disk.manifest import Reader
from imager.disk.mbr import MbrError
from imager.disk.table import TablePartition, read_table
from imager.node.stamp.stamp import STAMP_AREA

_NAMED_AT_MOST = 8
_FAR = 1 << 62
_TABLE = Extent(0, STAMP_AREA.offset)


@dataclass(frozen=True, slots=True)
class CardPlace:
    """A stretch of a card: always its ``region``, and the files in it where they are known.

    Paths begin with ``/`` as on the node, those of the boot partition with ``/boot/``; on a card
    that is none of ours they are paths in their partition. ``inner``
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


@dataclass(frozen=True, slots=True)
class _Region:
    """A stretch of the card, and how to look into it; None where nothing can be in it."""

    extent: Extent
    name: str
    look: Callable[[], _Contents] | None = None


class Places:
    """Names for the ranges of one card of ``size_bytes``; ``layout`` is None where it is none of
    ours."""

    def __init__(
        self, layout: Layout | None, read: Reader, size_bytes: int, budget: Budget | None = None
    ) -> None:
        self._budget = budget or Budget()
        self._layout = layout
        self._read = read
        self._size_bytes = size_bytes
        self._seen: dict[_Region, _Contents] = {}

    @classmethod
    def of_image(cls, layout: Layout | None, read: Reader, size_bytes: int) -> Places:
        """Names for what is to be on a card: one of our own may cost what it needs."""
        budget = Budget.of_our_image() if layout else Budget.of_disk(size_bytes)
        return cls(layout, read, size_bytes, budget)

    def of(self, extent: Extent) -> tuple[CardPlace, ...]:
        """Every place ``extent`` touches, in order."""
        return tuple(self._places(extent))

    def _places(self, extent: Extent) -> Iterator[CardPlace]:
        for region in self._regions:
            for part in ExtentMap([region.extent]).within(extent.offset, extent.length):
                if region.look is None:
                    yield CardPlace(region.name)
                    continue
                if region not in self._seen:
                    self._seen[region] = region.look()
                yield self._seen[region].place(region.name, part, self._budget)

    @cached_property
    def _regions(self) -> tuple[_Region, ...]:
        return self._ours(self._layout) if self._layout else tuple(self._foreign())

    def _ours(self, layout: Layout) -> tuple[_Region, ...]:
        boot, root = layout.boot, layout.root
        return (
            _Region(_TABLE, "partition table (first MiB)"),
            _Region(STAMP_AREA, "stamp (first MiB)"),
            _Region(_between(FIRST_MIB.end, boot.offset), "gap before the boot partition"),
            _Region(boot, "boot partition (p1)", partial(self._fat, boot, "/boot")),
            _Region(_between(boot.end, root.offset), "gap between the partitions"),
            _Region(root, "root partition (p2)", partial(self._ext4, root)),
            _Region(_between(root.end, _FAR), "end of the card"),
        )

    def _foreign(self) -> Iterator[_Region]:
        """The partitions that the table names, and what is before, between and behind them."""
        position, gap = 0, "partition table"
        for part in sorted(self._partitions(), key=lambda part: part.extent):
            yield _Region(_between(position, part.extent.offset), gap)
            look = partial(self._either, part.extent)
            yield _Region(part.extent, f"partition {part.index}", look)
            position, gap = max(position, part.extent.end), "gap between the partitions"
        yield _Region(_between(position, _FAR), "end of the card" if position else gap)

    def _partitions(self) -> tuple[TablePartition, ...]:
        try:
            return read_table(self._read, self._size_bytes).partitions
        except (MbrError, PicloudError):
            return ()

    def _either(self, where: Extent) -> _Contents:
        found = self._fat(where, "")
        return self._ext4(where) if found is _NOTHING else found

    def _fat(self, where: Extent, above: str) -> _Contents:
        try:
            volume = FatVolume.parse(self._read, where.offset, where.length, self._budget)
        except (ValueError, PicloudError):
            return _NOTHING
        files = (
            (extent, f"{above}/{entry.path}")
            for entry in volume.entries.values()
            if not entry.is_dir
            for extent in entry.extents
        )
        return _Contents.of(files, [("FAT tables or folders", volume.metadata)])

    def _ext4(self, where: Extent) -> _Contents:
        try:
            volume = Ext4.open(self._read, where.offset, self._budget)
            files = [*_files_of(volume)]
            structures = [
                ("journal", volume.journal),
                ("filesystem structures", volume.metadata - volume.journal),
            ]
        except (ValueError, PicloudError):
            return _NOTHING
        return _Contents.of(files, structures)


def _between(low: int, high: int) -> Extent:
    return Extent(low, max(0, high - low))

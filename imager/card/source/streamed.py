"""A file or a URL as an ImageSource: unpacked, measured and proven while it is read.

In: an Origin, how it is packed, and what is known of it from elsewhere. Out: the pieces that count:
what its block map says where there is one, else what its filesystems use. The digest of the source
is made of its bytes as they come in, so that it need not be read twice.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.errors import MalformedRelease, NotAuthentic
from imager.base.units import SECTOR_BYTES, MiB
from imager.card.source.origin import LocalFile, Origin
from imager.card.source.packed import LOOKED_AT, Packing, refuse_other_kinds
from imager.card.source.source import Piece
from imager.card.source.sums import ALGORITHMS
from imager.card.source.window import Window
from imager.disk.bmap import Bmap, BmapRange
from imager.disk.budget import Budget
from imager.disk.extents import Extent, ExtentMap
from imager.disk.in_use import InUse
from imager.disk.manifest import NotAtHand
from imager.disk.mbr import MbrError
from imager.disk.padded import padded
from imager.disk.table import read_table
from imager.image.unpack.inflate import PackingError

_BESIDES_BYTES = 64 * MiB
"""So much may lie in a source beside the image."""
_AGAIN = "fetch it again; if it is the same then, its publisher has to mend it"


@dataclass(frozen=True, slots=True)
class StreamedSource:
    """An open source. ``expected`` are the sums (hex) it must have, as packed, by what hashlib
    calls them. ``bmap`` says what counts; None where only the image itself does."""

    origin: Origin
    packing: Packing
    expected: Mapping[str, str] = field(default_factory=dict)
    bmap: Bmap | None = None

    @property
    def name(self) -> str:
        """See ImageSource."""
        return self.origin.name

    @property
    def address(self) -> str:
        """See ImageSource. A link in a path is kept: it may lead elsewhere later."""
        name = self.name
        return str(Path(name).absolute()) if isinstance(self.origin, LocalFile) else name

    @property
    def size_bytes(self) -> int | None:
        """See ImageSource."""
        return self.bmap.size_bytes if self.bmap else self.packing.size_bytes

    @property
    def least_bytes(self) -> int:
        """See ImageSource."""
        return self.size_bytes or self.packing.least_bytes

    @property
    def is_slow(self) -> bool:
        """See ImageSource."""
        return self.packing.is_slow

    @contextmanager
    def read(self, limit_bytes: int) -> Iterator[StreamReading]:
        """See ImageSource."""
        reading = StreamReading(self, limit_bytes)
        try:
            yield reading
        finally:
            reading.close()


class StreamReading:
    """See SourceReading."""

    def __init__(self, source: StreamedSource, limit_bytes: int) -> None:
        self.size_bytes = 0
        self.sha256 = ""
        self._source = source
        self._sums = {name: hashlib.new(name) for name in ("sha256", *source.expected)}
        self._limit_bytes = limit_bytes
        self._blocks = source.origin.blocks()
        self._content = source.packing.unpack(self._hashed())
        self._window = Window(self._content, limit_bytes, source.name)

    def close(self) -> None:
        """Nothing more is read; a program that unpacks is ended."""
        self._content.close()
        self._blocks.close()

    def pieces(self) -> Iterator[Piece]:
        """See SourceReading."""
        source, window = self._source, self._window
        try:
            if source.packing.name:
                refuse_other_kinds(f"what is packed in {source.name}", window.read(0, LOOKED_AT))
            yield from self._mapped(source.bmap) if source.bmap else self._used()
            window.skip(sys.maxsize)
        except PackingError as error:
            raise MalformedRelease(f"{source.name}: {error}", hint=_AGAIN) from error
        self.size_bytes, self.sha256 = window.high, self._sums["sha256"].hexdigest()
        self._require_proven()

    def _hashed(self) -> Generator[bytes]:
        """The source as it is packed. It has an end: what holds nothing might come for ever."""
        passed = 0
        with closing(self._blocks):
            for block in self._blocks:
                passed += len(block)
                if passed > self._limit_bytes * 9 // 8 + _BESIDES_BYTES:
                    raise MalformedRelease(
                        f"{self._source.name}: it goes on behind byte {passed}, which is longer "
                        "than an image that fits can be, however it is packed",
                        hint=_AGAIN,
                    )
                for whole in self._sums.values():
                    whole.update(block)
                yield block

    def _used(self) -> Iterator[Piece]:
        """What filesystems use, and all that lies outside of them."""
        window, tails = self._window, self._tails()
        usage = InUse(window.read, sys.maxsize, Budget())
        partitions_end = usage.end  # a filesystem may say that it is longer
        for extent in usage.ranges():
            yield from self._passed(tails, extent.offset)
            yield from window.take(extent)
        yield from self._passed(tails, usage.end)
        yield from window.take(Extent(window.low, sys.maxsize - window.low))
        if window.high < partitions_end < sys.maxsize:
            raise MalformedRelease(
                f"{self._source.name}: the image ends at byte {window.high}, and its partitions "
                f"at byte {partitions_end}: the rest is missing",
                hint=_AGAIN,
            )

    def _mapped(self, bmap: Bmap) -> Iterator[Piece]:
        """What the block map names, each range held against its checksum when it has passed, and
        zeros where it leaves out the end of a partition: no checksum is of what lies there."""
        tails = self._tails()
        for one in bmap.ranges:
            yield from _zeros(self._passed(tails, one.extent.offset))
            whole = hashlib.new(bmap.algorithm)
            for piece in self._window.take(one.extent):
                whole.update(piece[1])
                yield piece
            if one.digest not in (None, whole.digest()):
                raise self._not_as_mapped(one)
        yield from _zeros(self._passed(tails, bmap.size_bytes))

    def _tails(self) -> ExtentMap:
        """The last MiB of each partition: an earlier use of the card may have left the label of a
        RAID there, which would be taken for this partition's."""
        try:
            table = read_table(padded(self._window.read, sys.maxsize), sys.maxsize)
        except (MbrError, NotAtHand):
            return ExtentMap()
        return ExtentMap(
            Extent(max(part.extent.offset, part.extent.end - MiB), min(part.extent.length, MiB))
            for part in table.partitions
        )

    def _passed(self, tails: ExtentMap, offset: int) -> Iterator[Piece]:
        """What of ``tails`` lies before byte ``offset``; all before it is gone then."""
        window = self._window
        for extent in tails.within(window.low, offset - window.low):
            yield from window.take(extent)
        window.skip(offset)

    def _not_as_mapped(self, one: BmapRange) -> MalformedRelease:
        low, last = one.extent.offset, one.extent.end - 1
        return MalformedRelease(
            f"{self._source.name}: bytes {low} to {last} of the image are not what its block map "
            "says",
            hint="fetch both again; they may be of different versions",
        )

    def _require_proven(self) -> None:
        source = self._source
        if self.size_bytes < SECTOR_BYTES:
            raise MalformedRelease(
                f"{source.name} is no disk image: it has {self.size_bytes} bytes", hint=_AGAIN
            )
        if source.size_bytes not in (None, self.size_bytes):
            raise MalformedRelease(
                f"{source.name}: the image has {self.size_bytes} bytes, not the "
                f"{source.size_bytes} it should have",
                hint=_AGAIN,
            )
        for algorithm, expected in source.expected.items():
            found = self._sums[algorithm].hexdigest()
            if found != expected:
                raise NotAuthentic(
                    f"{source.name} is not what it should be: its {ALGORITHMS[algorithm]} is "
                    f"{found}, not {expected}",
                    hint="fetch it again; if it is the same then, do not use it",
                )


def _zeros(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """As many zeros at the same places."""
    for offset, data in pieces:
        yield offset, bytes(len(data))

"""Bring a card that already holds this golden image up to date: read all, write what differs.

In: a NodeImage and a ClaimedCard that names the same golden image. Out: a WrittenCard, as from
``write_card``. Every byte of the block map is read once, on a descriptor of its own around the
cache, and compared; what differs is written under the same rules as a whole card: visibly blank
first, the partition table last. What was written is then read back by ``read_back``, so that
every byte is proven by having been read: the others in this pass.
"""

from __future__ import annotations

import threading
from pathlib import Path

from imager.base.progress import Progress
from imager.base.units import KiB, MiB
from imager.card.blank import blank_unless_done, zero
from imager.card.cards import ClaimedCard, WriteOptions, WrittenCard
from imager.card.flight import in_flight
from imager.card.fresh import reader_of
from imager.card.meter import Meter, metered
from imager.card.raw import RawCard, read_fully
from imager.card.readback import BufferPair, differing_sectors
from imager.card.receipts import by_disk_id, find_receipt
from imager.card.write import DEFAULT_OPTIONS, TABLE, copy, written_extents
from imager.image.extents import Extent, ExtentMap
from imager.image.layout import FIRST_MIB
from imager.image.manifest import Reader
from imager.image.mbr import MbrError, parse
from imager.node.image import ImageReader, NodeImage

_GRANULE = 4 * KiB
_GAPS = (64 * KiB, 32 * KiB, 16 * KiB, 8 * KiB)
_SPARE_BYTES = 512 * KiB
"""So much may be written besides what differs, to make fewer and larger transfers of it."""


def holds_golden(card: ClaimedCard, image: NodeImage, receipts: Path) -> bool:
    """Whether the card says it holds ``image``'s golden image with the same layout.

    It is taken at its word: comparing it finds out anyway. Raises CardIOError.
    """
    if card.is_file:
        return False
    with card.reopen() as fresh:
        return _by_receipt(reader_of(fresh.raw), image, receipts)


def _by_receipt(read: Reader, image: NodeImage, receipts: Path) -> bool:
    try:
        disk_id = parse(read(0, TABLE.length)[:512]).disk_id
    except MbrError:
        return False
    found = find_receipt(receipts, by_disk_id(disk_id))
    if found is None:
        return False
    was = found[1].image
    return was.golden_key == image.golden.key and was.layout == image.layout


def update_card(
    image: NodeImage,
    card: ClaimedCard,
    progress: Progress,
    options: WriteOptions = DEFAULT_OPTIONS,
) -> WrittenCard:
    """Read every byte of ``image``'s block map, write what is not as it should be, and flush.

    ``extents`` of the result is what was written, nothing when all was right. Raises as
    ``write_card`` does; until the first difference is known the card is not touched.
    """
    if image.manifest.size_bytes > card.raw.size_bytes:
        raise ValueError("the image is larger than the claimed card")
    mapped = written_extents(image.manifest.extents, card.raw)
    first = ExtentMap([FIRST_MIB])
    with blank_unless_done(card), image.open() as reader:
        differing, old_first = _compare(reader, card, mapped, options, progress)
        if not differing:
            return WrittenCard(card, image, differing, options)
        live = _not_zero(old_first)
        body = _joined(differing - first, _SPARE_BYTES - live.total_bytes)
        _blank(card, live, progress)
        copy("write", reader, card, [body], options, progress)
        new_first, table = _not_zero(reader.read(0, MiB)), ExtentMap([TABLE])
        steps = [new_first - table, new_first & table]
        copy("table", reader, card, steps, options, progress)
    return WrittenCard(card, image, body | first, options)


def _compare(
    reader: ImageReader,
    card: ClaimedCard,
    mapped: ExtentMap,
    options: WriteOptions,
    progress: Progress,
) -> tuple[ExtentMap, bytes]:
    """Read ``mapped`` from the card; what differs, in granules, and the first MiB as it is."""
    first = ExtentMap([FIRST_MIB])
    with card.reopen() as fresh, metered(progress, "compare", mapped.total_bytes, card.log) as met:
        look = _Look(reader, fresh.raw, met)
        old_first = reader_of(fresh.raw)(0, MiB)
        look.note(FIRST_MIB, reader.read(0, MiB), old_first)
        met.advance(MiB)
        in_flight(
            (mapped - first).split(options.block_bytes),
            look.at,
            depth=options.depth,
            tools=lambda: BufferPair(options.block_bytes),
        )
    return look.differing(), old_first


class _Look:
    """What differs between a card and an image; safe to share between workers."""

    def __init__(self, reader: ImageReader, raw: RawCard, meter: Meter) -> None:
        self._reader, self._raw, self._meter = reader, raw, meter
        self._found: list[Extent] = []
        self._lock = threading.Lock()

    def at(self, extent: Extent, pair: BufferPair) -> None:
        """Compare one range of at most the buffers' size."""
        actual, expected = pair.actual[: extent.length], pair.expected
        read_fully(self._raw, extent.offset, actual)
        with memoryview(expected) as whole:
            self._reader.read_into(extent.offset, whole[: extent.length])
        if extent.length < len(expected):
            expected = expected[: extent.length]
        if expected != actual:
            self.note(extent, bytes(expected), bytes(actual))
        self._meter.advance(extent.length)

    def note(self, extent: Extent, expected: bytes, actual: bytes) -> None:
        """Add the granules of ``extent`` in which the two differ."""
        found = differing_sectors(expected, actual).shifted(extent.offset)
        with self._lock:
            self._found += found.aligned(_GRANULE, limit=self._raw.size_bytes)

    def differing(self) -> ExtentMap:
        """All of it."""
        return ExtentMap(self._found)


def _not_zero(first_mib: bytes) -> ExtentMap:
    """The granules of the first MiB that hold something."""
    return differing_sectors(bytes(len(first_mib)), first_mib).aligned(_GRANULE)


def _joined(extents: ExtentMap, spare_bytes: int) -> ExtentMap:
    """``extents`` with the smaller gaps filled, as far as that costs no more than
    ``spare_bytes``. A gap holds what nobody reads, or what was right and is written again."""
    for gap in _GAPS:
        filled = extents.without_gaps_below(gap)
        if filled.total_bytes - extents.total_bytes <= spare_bytes:
            return filled
    return extents


def _blank(card: ClaimedCard, live: ExtentMap, progress: Progress) -> None:
    """Zero what is not zero in the first MiB already."""
    card.log.touched = True
    with metered(progress, "blank", live.total_bytes, card.log) as meter:
        zero(card.raw, live.split(MiB), meter)

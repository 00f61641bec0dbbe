"""Bring a card that already holds this golden image up to date: read all, write what differs.

In: an image and a ClaimedCard that names the same golden image. Out: a WrittenCard, as from
``write_card``. Every byte of the block map is read once, on a descriptor of its own around the
cache, and compared; what differs is written under the same rules as a whole card: visibly blank
first, the partition table last. What was written is then read back by ``read_back``, so that
every byte is proven by having been read: the others in this pass.
"""

from __future__ import annotations

from imager.base.progress import Progress
from imager.base.units import KiB, MiB
from imager.card.claim.blank import blank_unless_done, zero
from imager.card.diagnosis.damage import differing_sectors
from imager.card.image import CardImage, ImageReader
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import metered
from imager.card.medium.reopen import reader_of
from imager.card.stages import ClaimedCard, WriteOptions, WrittenCard
from imager.card.write.compare import BufferPair, Comparison
from imager.card.write.options import DEFAULT_OPTIONS
from imager.card.write.verdict import places_named
from imager.card.write.write import copy, write_first_mib, written_extents
from imager.disk.extents import ExtentMap
from imager.disk.layout import FIRST_MIB

_GRANULE = 4 * KiB
_GAPS = (64 * KiB, 32 * KiB, 16 * KiB, 8 * KiB)
_SPARE_BYTES = 512 * KiB
"""So much may be written besides what differs, to make fewer and larger transfers of it."""


def update_card(
    image: CardImage,
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
    with blank_unless_done(card), image.open() as reader, places_named(image, reader):
        differing, old_first = _compare(reader, card, mapped, options, progress)
        if not differing:
            return WrittenCard(card, image, differing, options)
        live = _not_zero(old_first)
        body = _joined(differing - first, _SPARE_BYTES - live.total_bytes)
        _blank(card, live, progress)
        copy("write", reader.read_into, card, [body], options, progress)
        write_first_mib(reader, card, _not_zero(reader.read(0, MiB)), options, progress)
    return WrittenCard(card, image, body | first, options)


def _compare(
    reader: ImageReader,
    card: ClaimedCard,
    mapped: ExtentMap,
    options: WriteOptions,
    progress: Progress,
) -> tuple[ExtentMap, bytes]:
    """Read ``mapped`` from the card; what differs (or cannot be read), in granules, and the first
    MiB as it is."""
    with (
        card.reopen() as fresh,
        metered(progress, "compare", mapped.total_bytes, card.log.phases) as met,
    ):
        comparison = Comparison(reader, fresh.raw)
        in_flight(
            mapped.split(options.block_bytes),
            lambda extent, pair: met.advance(comparison.compare(extent, pair)),
            depth=options.depth,
            tools=lambda: BufferPair(options.block_bytes),
        )
        suspects = comparison.suspects.found
        old_first = reader_of(fresh.raw)(0, MiB) if suspects else b""
    return suspects.aligned(_GRANULE, limit=card.raw.size_bytes), old_first


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
    with metered(progress, "blank", live.total_bytes, card.log.phases) as meter:
        zero(card.raw, live.split(MiB), meter)

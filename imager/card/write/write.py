"""Write an image to a claimed card: visibly blank first, complete last.

In: an image and a ClaimedCard. Out: a WrittenCard, or an error and a blank card. The first and
last MiB are zeroed and flushed before anything else (old partition tables at both ends), the body
goes from 1 MiB upward, and only when that is flushed comes the first MiB with the partition
table. A card pulled at any moment is blank or whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imager.base.progress import Progress
from imager.base.units import KiB, MiB
from imager.card.claim.blank import blank_unless_done, zero
from imager.card.image import CardImage, ImageReader
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import metered
from imager.card.medium.raw import RawCard, aligned_buffer, flush, write_stubbornly
from imager.card.stages import ClaimedCard, WriteOptions, WrittenCard
from imager.card.write.options import DEFAULT_OPTIONS
from imager.card.write.verdict import places_named
from imager.disk.extents import Extent, ExtentMap
from imager.disk.layout import FIRST_MIB

TABLE = Extent(0, 4 * KiB)
"""The partition table's own block: the very last thing written, too small to be torn."""


def write_card(
    image: CardImage,
    card: ClaimedCard,
    progress: Progress,
    options: WriteOptions = DEFAULT_OPTIONS,
) -> WrittenCard:
    """Write every byte of ``image``'s block map and flush it.

    Raises CardIOError with the byte the card refused, Interrupted on Ctrl-C; in both cases the
    card's first MiB is zero, or the details say that even this could not be done.
    """
    if image.manifest.size_bytes > card.raw.size_bytes:
        raise ValueError("the image is larger than the claimed card")
    extents = written_extents(image.manifest.extents, card.raw)
    first = ExtentMap([FIRST_MIB])
    with blank_unless_done(card), image.open() as reader, places_named(image, reader):
        blank_ends(card, progress)
        copy("write", reader.read_into, card, [extents - first], options, progress)
        write_first_mib(reader, card, extents, options, progress)
    return WrittenCard(card, image, extents, options)


def written_extents(extents: ExtentMap, raw: RawCard) -> ExtentMap:
    """What to write for the block map ``extents``: also the first and the last MiB, and every
    range widened to the card's own blocks."""
    ends = ExtentMap([FIRST_MIB, _last_mib(raw)])
    return (extents | ends).aligned(raw.block_bytes, limit=raw.size_bytes)


def _last_mib(raw: RawCard) -> Extent:
    start = raw.size_bytes - MiB
    return Extent(start, raw.size_bytes - start)


def blank_ends(card: ClaimedCard, progress: Progress) -> None:
    """Zero the first and the last MiB of what exists already, and flush."""
    if card.target.made_anew:
        return
    ends = [FIRST_MIB, _last_mib(card.raw)]
    card.log.touched = True
    with metered(progress, "blank", sum(end.length for end in ends), card.log.phases) as meter:
        zero(card.raw, ends, meter)


def write_first_mib(
    reader: ImageReader,
    card: ClaimedCard,
    extents: ExtentMap,
    options: WriteOptions,
    progress: Progress,
) -> None:
    """What of ``extents`` lies in the first MiB, the partition table's block last."""
    first, table = extents & ExtentMap([FIRST_MIB]), ExtentMap([TABLE])
    copy("table", reader.read_into, card, [first - table, first & table], options, progress)


def copy(
    name: str,
    read_into: Callable[[int, memoryview], None],
    card: ClaimedCard,
    steps: Sequence[ExtentMap],
    options: WriteOptions,
    progress: Progress,
) -> None:
    """Copy the steps one after the other; each is on the medium before the next begins.
    ``read_into(offset, buffer)`` fills ``buffer`` with what is to be written at ``offset``."""

    def work(extent: Extent, buffer: memoryview) -> None:
        block = buffer[: extent.length]
        read_into(extent.offset, block)
        if write_stubbornly(card.raw, extent.offset, block):
            progress.warn(
                f"{card.target.node}: the card refused a transfer at byte {extent.offset} and took "
                "it at the second try"
            )
        meter.advance(extent.length)

    with metered(progress, name, sum(step.total_bytes for step in steps), card.log.phases) as meter:
        for step in steps:
            in_flight(
                step.split(options.block_bytes),
                work,
                depth=options.depth,
                tools=lambda: aligned_buffer(options.block_bytes),
            )
            flush(card.raw)

"""Pour a source on a claimed card: visibly blank first, complete last, as any other image.

In: a Pouring and a ClaimedCard. Out: a WrittenCard whose image is known now: its ranges and their
digests were learnt while it was written. The first MiB and the end of the card, where partition
tables lie, are held in memory and written when the source has proven to be whole; so a card on
which a damaged source was poured is blank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from imager.base.errors import TargetRefused
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES, MiB, align_down, format_size
from imager.card.claim.blank import blank_unless_done
from imager.card.diagnosis.places import Places
from imager.card.medium.in_flight import in_flight
from imager.card.medium.meter import metered
from imager.card.medium.raw import flush, write_stubbornly
from imager.card.stages import ClaimedCard, WriteOptions, WrittenCard
from imager.card.write.grow import CannotGrow, growth
from imager.card.write.pour import Pouring, Share
from imager.card.write.poured import PouredImage
from imager.card.write.verdict import bytes_named, places_named
from imager.card.write.waiting import Block
from imager.card.write.write import blank_ends, copy, write_first_mib
from imager.disk.extents import Extent, ExtentMap
from imager.disk.gpt import SIGNATURE, GptError, resized
from imager.disk.layout import FIRST_MIB
from imager.disk.manifest import CHUNK_BYTES, Chunk, Manifest, build_manifest, chunks_of
from imager.disk.mbr import MbrError, parse
from imager.disk.table import TYPE_PROTECTIVE

_SECTORS = (SECTOR_BYTES, 4096)
Seal = Callable[[Manifest], tuple[int, bytes]]
"""From what a card will hold, without the seal itself, to the seal and its place: a stamp."""


@dataclass(slots=True)
class Ends:
    """The first MiB of a card, and its last one with what lies before it in the same chunk: what
    is written last. ``body`` is what lies between."""

    card_bytes: int
    body: Extent = field(init=False)
    data: dict[int, bytearray] = field(init=False)

    def __post_init__(self) -> None:
        first = min(MiB, self.card_bytes)
        last = max(first, align_down(self.card_bytes - MiB, CHUNK_BYTES))
        self.body = Extent(first, last - first)
        self.data = {
            at: bytearray(min(CHUNK_BYTES, self.card_bytes - at))
            for at in (0, *range(last, self.card_bytes, CHUNK_BYTES))
        }

    @property
    def extents(self) -> ExtentMap:
        """Where they lie."""
        return ExtentMap(Extent(at, len(data)) for at, data in self.data.items())

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from byte ``offset``, as far as they lie in the ends; else zeros."""
        found = bytearray(length)
        for at, held in self.data.items():
            for part in ExtentMap([Extent(offset, length)]).within(at, len(held)):
                there = held[part.offset - at : part.end - at]
                found[part.offset - offset : part.end - offset] = there
        return bytes(found)

    def put(self, offset: int, data: bytes) -> None:
        """Let ``data`` lie at byte ``offset``, in the ends."""
        for at, held in self.data.items():
            for part in ExtentMap([Extent(offset, len(data))]).within(at, len(held)):
                there = data[part.offset - offset : part.end - offset]
                held[part.offset - at : part.end - at] = there

    @property
    def held(self) -> Mapping[int, bytes]:
        """The bytes of each of them, by its place."""
        return {at: bytes(data) for at, data in self.data.items()}

    def keep(self, block: Block) -> ExtentMap:
        """Keep what of ``block`` lies in the ends; what lies in the body is returned."""
        for at, data in self.data.items():
            for extent in block.extents.within(at, len(data)):
                data[extent.offset - at : extent.end - at] = block.part(extent)
        return block.extents & ExtentMap([self.body])

    def digests(self) -> dict[Chunk, bytes]:
        """The digest of each chunk of them."""
        return {
            chunk: hashlib.sha256(self.data[chunk.offset]).digest()
            for chunk in chunks_of(self.extents)
        }


def pour_card(
    pouring: Pouring,
    card: ClaimedCard,
    progress: Progress,
    options: WriteOptions,
    seal: Seal | None = None,
    *,
    grow: bool = False,
) -> WrittenCard:
    """Write all that counts of the source and flush it. The caller waits here for the other cards
    that ``pouring`` expects. ``seal`` gives what is put into the first MiB when the rest is known.
    With ``grow`` the last partition fills the card, where that can be.

    Raises what reading the source raises, TargetRefused for a card that is too small, CardIOError
    with the byte the card refused, Interrupted on Ctrl-C; the card's first MiB is zero then, or the
    details say that even this could not be done.
    """
    ends = Ends(card.raw.size_bytes)
    with blank_unless_done(card):
        try:
            blank_ends(card, progress)
        except BaseException:
            pouring.withdraw()
            raise
        with (
            closing(pouring.share(card.raw.size_bytes)) as share,
            bytes_named(_places(ends)),
        ):
            _pour_body(share, ends, card, progress, options)
        _fit_table(ends, pouring.size_bytes, card, progress)
        image = _image(pouring, ends, card, progress, seal)
        if grow:
            image = _grown(image, ends, progress, options)
        extents = image.manifest.extents
        with image.open() as reader, places_named(image, reader):
            end = ends.extents - ExtentMap([FIRST_MIB])
            copy("end", reader.read_into, card, [end], options, progress)
            write_first_mib(reader, card, extents, options, progress)
    return WrittenCard(card, image, extents, options)


def _pour_body(
    share: Share, ends: Ends, card: ClaimedCard, progress: Progress, options: WriteOptions
) -> None:
    def jobs() -> Iterator[tuple[Block, Extent]]:
        passed = 0
        for block in share.blocks():
            if block.end > card.raw.size_bytes:
                raise too_small(card.target.node, card.raw.size_bytes, block.end, share)
            body = ends.keep(block)
            meter.skip(block.end - passed - body.total_bytes)
            passed = block.end
            for extent in body.split(options.block_bytes):
                yield block, extent

    def work(job: tuple[Block, Extent], _: None) -> None:
        block, extent = job
        if write_stubbornly(card.raw, extent.offset, block.part(extent)):
            progress.warn(
                f"{card.target.node}: the card refused a transfer at byte {extent.offset} and took "
                "it at the second try"
            )
        meter.advance(extent.length)

    total = share.pouring.source.least_bytes or None
    with closing(share), metered(progress, "write", total, card.log.phases, shown="image") as meter:
        in_flight(jobs(), work, depth=options.depth, tools=lambda: None, abandon=share.close)
        size = share.pouring.size_bytes
        if size > card.raw.size_bytes:
            raise too_small(card.target.node, card.raw.size_bytes, size, share)
        flush(card.raw)


def _fit_table(ends: Ends, image_bytes: int, card: ClaimedCard, progress: Progress) -> None:
    """A GPT has its second copy at the end of the disk, and says where that is."""
    _warn_of_sectors(ends, card, progress)
    if image_bytes == ends.card_bytes:
        return
    try:
        pieces = resized(ends.read, ends.card_bytes, ends.card_bytes)
    except GptError:
        return
    for offset, data in pieces:
        ends.put(offset, data)
    progress.note("the second copy of its partition table (GPT) goes to the end of the card")


def _warn_of_sectors(ends: Ends, card: ClaimedCard, progress: Progress) -> None:
    """A GPT begins in the second sector of a disk, and counts in its sectors. Which those are
    nobody knows of an image file."""
    has = card.target.facts.logical_bytes
    made_for = [size for size in _SECTORS if ends.read(size, len(SIGNATURE)) == SIGNATURE]
    if has and made_for and has not in made_for and _promises_gpt(ends):
        progress.warn(
            f"its partition table (GPT) is for sectors of {made_for[0]} bytes, and "
            f"{card.target.node} has sectors of {has}: no partition is found on it there"
        )


def _promises_gpt(ends: Ends) -> bool:
    try:
        table = parse(ends.read(0, SECTOR_BYTES))
    except MbrError:
        return False
    return any(part.type_id == TYPE_PROTECTIVE for part in table.partitions)


def too_small(node: str, card_bytes: int, image_bytes: int, share: Share) -> TargetRefused:
    """The refusal of a card that turned out to be too small while the image was written."""
    return TargetRefused(
        f"{node} is too small: it has {card_bytes} bytes ({format_size(card_bytes)}), and the "
        f"image in {share.pouring.source.name} has {image_bytes} or more",
        hint="use a larger card",
    )


def _places(ends: Ends) -> Places:
    """Names for what is at a byte, of which nothing but the first MiB is at hand."""
    first = ends.data[0]

    def read(offset: int, length: int) -> bytes:
        if offset + length > len(first):
            raise ValueError("not at hand")
        return bytes(first[offset : offset + length])

    return Places(None, read, ends.card_bytes)


def _image(
    pouring: Pouring, ends: Ends, card: ClaimedCard, progress: Progress, seal: Seal | None
) -> PouredImage:
    manifest = _manifest(pouring, ends)
    if seal is not None:
        ends.put(*seal(manifest))
        manifest = _manifest(pouring, ends)
    return PouredImage(pouring.source, manifest, ends.held, card, progress)


def _grown(
    image: PouredImage, ends: Ends, progress: Progress, options: WriteOptions
) -> PouredImage:
    """Write what makes the last partition fill the card, but for what lies in the ends."""
    card, size = image.card, ends.card_bytes
    with image.open() as reader, progress.phase("grow"):
        try:
            found = growth(reader.read, size)
        except CannotGrow as error:
            progress.warn(f"the last partition stays as large as it is in the image: {error}")
            return image
        read = found.delta.over(reader.read)

        def read_into(offset: int, buffer: memoryview) -> None:
            buffer[:] = read(offset, len(buffer))

        for extent in found.delta.extents & ends.extents:
            ends.put(extent.offset, read(extent.offset, extent.length))
        delta = found.delta.inside(ExtentMap([ends.body]))
        body = delta.extents.aligned(card.raw.block_bytes)
        counts, changed = image.manifest.extents | body, delta.extents | ends.extents
        manifest = build_manifest(size, counts, read, base=image.manifest, changed=changed)
        copy("larger", read_into, card, [body], options, progress)
    progress.note(
        f"p{found.index} and its filesystem reach to byte {found.end_bytes}, the end of the card"
    )
    return PouredImage(image.source, manifest, ends.held, card, progress, delta)


def _manifest(pouring: Pouring, ends: Ends) -> Manifest:
    digests = ends.digests() | {
        chunk: digest
        for chunk, digest in pouring.digests.items()
        if ends.body.offset <= chunk.offset < ends.body.end
    }
    extents = ExtentMap(extent for chunk in digests for extent in chunk.extents)
    return Manifest(ends.card_bytes, extents, tuple(digests[chunk] for chunk in chunks_of(extents)))

"""Bring a card back to what it was when it was written, from its image, which is made again.

In: a NodeImage that holds exactly the bytes that were written to the card, and a confirmed target.
Out: a card proven as after writing, or boot files proven on a card that stays in use. Only what
reads back wrong is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from imager.base.errors import Interrupted, StampMismatch
from imager.base.progress import Progress
from imager.base.text import command_line
from imager.card.claim.claim import claim
from imager.card.diagnosis.trouble import Trouble
from imager.card.make.finish import MadeCard
from imager.card.make.make import finish_node
from imager.card.make.order import CardOrder
from imager.card.medium.reopen import reader_of
from imager.card.stages import ClaimedCard, UnprovenCard
from imager.card.write.repair import mend_in_place
from imager.disk.extents import ExtentMap
from imager.disk.fat.volume import FatVolume
from imager.disk.manifest import Reader
from imager.node.image import NodeImage


def restore_card(order: CardOrder, progress: Progress) -> MadeCard:
    """Restore every byte of a card from which no node has run. The card gets a new receipt.

    Raises as ``make_card`` does. Nothing is written to a card on which nothing is wrong.
    """

    def begin(card: ClaimedCard) -> UnprovenCard:
        mapped = order.image.manifest.extents
        extents = mapped.aligned(card.raw.block_bytes, limit=card.raw.size_bytes)
        return UnprovenCard(card, order.image, extents, order.options)

    return finish_node(order, begin, progress)


def restore_boot_files(
    order: CardOrder, paths: Iterable[str], progress: Progress
) -> Trouble | None:
    """Restore the content of boot files on a card in use; return what was wrong and is mended now.

    ``paths`` are relative to the boot partition. Nothing else on the card is written. The
    card is never blanked and gets no receipt. Raises StampMismatch, before anything is written, for
    files that are no longer where they were; CardFaulty, CardIOError or FakeCapacity when they
    stay wrong.
    """
    image = order.image
    with claim(order.accepted, image.manifest.size_bytes, order.kernel) as card:
        with image.open() as reader, card.reopen() as fresh:
            node = card.target.node
            extents = boot_extents(image, node, reader.read, reader_of(fresh.raw), paths)
        if extents != extents.aligned(card.raw.block_bytes):
            raise StampMismatch(
                f"{node}: its blocks of {card.raw.block_bytes} bytes hold other files "
                "beside the damaged ones",
                hint=f"save what you need and {_write(node, image)}",
            )
        try:
            mend_in_place(UnprovenCard(card, image, extents, order.options), progress)
        except KeyboardInterrupt as stop:
            raise Interrupted(
                "interrupted; the damaged boot files are damaged still",
                hint="run the same command again",
            ) from stop
        if order.check is not None:
            with card.reopen() as fresh:
                order.check(reader_of(fresh.raw), fresh.raw.size_bytes)
        return card.log.trouble


def boot_extents(
    image: NodeImage, node: str, made: Reader, now: Reader, paths: Iterable[str]
) -> ExtentMap:
    """Where the contents of the boot files ``paths`` lie, in the image ``made`` and on the card
    in ``node`` as it is ``now``.

    Raises StampMismatch that names the files which are missing or lie elsewhere. Somebody wrote
    those anew, so their old content has no place to be put back to.
    """
    boot = image.layout.boot
    then = FatVolume.parse(made, boot.offset, boot.length)
    moved: list[str] = []
    extents = ExtentMap()
    try:
        card = FatVolume.parse(now, boot.offset, boot.length)
    except ValueError as error:
        raise StampMismatch(
            f"the boot partition cannot be read: {error}",
            hint=f"save what you need and {_write(node, image)}",
        ) from error
    for path in paths:
        old, new = then.find(path), card.find(path)
        if (
            old is None
            or new is None
            or (old.extents, old.size_bytes)
            != (
                new.extents,
                new.size_bytes,
            )
        ):
            moved.append(path)
        else:
            extents |= ExtentMap(old.extents)
    if moved:
        raise StampMismatch(
            f"{len(moved)} of the damaged boot files are missing or were written anew by somebody",
            hint=f"put them back by hand, or {_write(node, image)}",
            details=[f"/boot/{path}" for path in moved],
        )
    return extents


def _write(node: str, image: NodeImage) -> str:
    """The end of a hint for what only writing the whole card can mend."""
    return f"write the card again: {command_line('write', node, '--node', image.node)}"

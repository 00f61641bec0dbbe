"""How to begin with a claimed card: bring it up to date, look at it first, or just write it.

In: a ClaimedCard, and what is ordered. Out: a WrittenCard. A card whose stamp names
the same golden image is updated; one that this rack never wrote is probed before hours are spent
on it. A card is known by its own number where the host can see it (CID), else by the disk id in its
partition table: the serial number of a USB reader is the reader's, not the card's.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from imager.base.errors import CardIOError
from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES
from imager.card.make.order import CardOrder
from imager.card.medium.reopen import reader_of
from imager.card.probe.probe import short_probe
from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import find_receipt
from imager.card.stages import ClaimedCard, WrittenCard
from imager.card.write.update import update_card
from imager.card.write.verdict import places_named
from imager.card.write.write import write_card
from imager.disk.layout import FIRST_MIB
from imager.disk.mbr import MbrError, parse
from imager.node.image import NodeImage
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import STAMP_AREA, parse_stamp


def lay_down(
    order: CardOrder, card: ClaimedCard, progress: Progress, *, update: bool, probe: bool
) -> WrittenCard:
    """Put the ordered image on the card; ``update`` and ``probe`` say whether either may be done.

    Raises what ``update_card``, ``short_probe`` and ``write_card`` do.
    """
    image, options = order.image, order.options
    if card.target.made_anew or not (update or probe):
        return write_card(image, card, progress, options)
    first = _first_mib(card)
    if update and names_golden(first, image):
        progress.note(
            f"{card.target.node} holds this golden image already: "
            "all of it is compared, and what differs is written"
        )
        return update_card(image, card, progress, options)
    if probe and not seen_before(card, first, order.receipts):
        progress.note(f"{card.target.node} was never written from this rack: a short probe first")
        with image.open() as reader, places_named(image, reader):
            short_probe(card, progress)
    return write_card(image, card, progress, options)


def names_golden(first_mib: bytes, image: NodeImage) -> bool:
    """Whether the stamp in a card's first MiB names ``image``'s golden image, laid out the same.

    It is taken at its word, whoever signed it: comparing the card finds out.
    """
    try:
        facts = parse_stamp(first_mib[STAMP_AREA.offset : STAMP_AREA.end]).facts
    except StampError:
        return False
    return facts.golden_key == image.golden.key and facts.layout == image.layout


def seen_before(card: ClaimedCard, first_mib: bytes, receipts: Path) -> bool:
    """Whether a receipt in ``receipts`` proves a writing of this card."""
    cid = card.target.facts.cid
    try:
        disk_id = parse(first_mib[:SECTOR_BYTES]).disk_id
    except MbrError:
        disk_id = None
    if disk_id is None and not cid:
        return False

    def is_its_own(receipt: Receipt) -> bool:
        if receipt.target.size_bytes != card.raw.size_bytes:
            return False
        return receipt.image.disk_id == disk_id or bool(cid and receipt.target.cid == cid)

    return find_receipt(receipts, is_its_own) is not None


def _first_mib(card: ClaimedCard) -> bytes:
    """What the card holds there; zeros when it cannot be read, which whoever writes will see."""
    with suppress(CardIOError), card.reopen() as fresh:
        return reader_of(fresh.raw)(FIRST_MIB.offset, FIRST_MIB.length)
    return bytes(FIRST_MIB.length)

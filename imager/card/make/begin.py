"""Decides how a claimed card is written: only what differs, or all of it, perhaps probed first.

In: a ClaimedCard and a CardOrder. Out: a WrittenCard. A card whose stamp names the same golden
image is updated. A card that this rack never wrote is probed first, before much time is spent on
it. A card is recognised by its own number (CID) where the computer can see it, else by the disk id
in its partition table: the serial number of a USB reader belongs to the reader, not to the card.
"""

from __future__ import annotations

from contextlib import suppress

from imager.base.errors import CardIOError
from imager.base.progress import Progress
from imager.base.trusted_folder import TrustedFolder
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
    """Write the ordered image to the card. ``update`` and ``probe`` say whether each is allowed.

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


def probe_stranger(card: ClaimedCard, receipts: TrustedFolder, progress: Progress) -> None:
    """Probe a card that no receipt in ``receipts`` proves to have been written; raises as
    ``short_probe`` does."""
    if not seen_before(card, _first_mib(card), receipts):
        progress.note(f"{card.target.node} was never written from here: a short probe first")
        short_probe(card, progress)


def names_golden(first_mib: bytes, image: NodeImage) -> bool:
    """Whether the stamp in a card's first MiB names ``image``'s golden image, laid out the same.

    Its signature is not checked, because the whole card is compared afterwards.
    """
    try:
        facts = parse_stamp(first_mib[STAMP_AREA.offset : STAMP_AREA.end]).facts
    except StampError:
        return False
    return facts.golden_key == image.golden.key and facts.layout == image.layout


def seen_before(card: ClaimedCard, first_mib: bytes, receipts: TrustedFolder) -> bool:
    """Whether a receipt in ``receipts`` proves a writing of this card."""
    cid = card.target.facts.cid
    try:
        disk_id = parse(first_mib[:SECTOR_BYTES]).disk_id
    except MbrError:
        disk_id = None
    if not disk_id and not cid:
        return False

    def is_its_own(receipt: Receipt) -> bool:
        if receipt.target.size_bytes != card.raw.size_bytes:
            return False
        return receipt.image.disk_id == disk_id or bool(cid and receipt.target.cid == cid)

    return find_receipt(receipts, is_its_own) is not None


def _first_mib(card: ClaimedCard) -> bytes:
    """What the card holds there; zeros when it cannot be read: the writing then finds the fault."""
    with suppress(CardIOError), card.reopen() as fresh:
        return reader_of(fresh.raw)(FIRST_MIB.offset, FIRST_MIB.length)
    return bytes(FIRST_MIB.length)

"""A card with an image that is none of ours, from beginning to end, written while it is read.

In: a source and a confirmed target. Out: a finished card and its receipt, as of a node's card.
"""

from __future__ import annotations

import re

from imager.base.progress import Progress
from imager.base.units import SECTOR_BYTES
from imager.card.image import CardImage
from imager.card.make.begin import probe_stranger
from imager.card.make.finish import MadeCard, ReceiptContent, finish_card
from imager.card.make.order import SourceOrder
from imager.card.receipt.receipt import ImageFacts, SourceFacts
from imager.card.stages import ClaimedCard, WrittenCard
from imager.card.write.pour import Pouring
from imager.card.write.poured import PouredImage
from imager.card.write.stream import pour_card
from imager.disk.extents import ExtentMap
from imager.disk.manifest import Manifest
from imager.disk.mbr import MbrError, parse

_NAME_LETTERS = 100


def make_poured_card(
    order: SourceOrder, progress: Progress, *, probe: bool = False, pouring: Pouring | None = None
) -> MadeCard:
    """Make the card and save its receipt.

    With ``probe`` a card that no receipt proves to have been written is probed first. ``pouring``
    is one reading of the source for several cards, each made in a thread of its own. Raises as
    ``finish_card`` does, and what reading the source raises.
    """
    pouring = pouring or Pouring(order.source, block_bytes=order.options.block_bytes)
    shares = False

    def begin(card: ClaimedCard) -> WrittenCard:
        nonlocal shares
        if probe and not card.target.made_anew:
            probe_stranger(card, order.receipts, progress)
        shares = True
        return pour_card(pouring, card, progress, order.options, order.seal, grow=order.grow)

    def told(image: CardImage | None) -> ReceiptContent:
        manifest = image.manifest if image else Manifest(0, ExtentMap(), ())
        source = SourceFacts(order.source.address, pouring.sha256, pouring.size_bytes)
        disk_id = _disk_id(image.ends[0]) if isinstance(image, PouredImage) else 0
        facts = ImageFacts(manifest.digest, "", "", "", disk_id, None, source=source)
        node = order.node or file_name_of(order.source.name)
        return ReceiptContent(node, facts, order.boot_files, manifest)

    try:
        return finish_card(order, order.size_bytes, told, begin, progress)
    finally:
        if not shares:
            pouring.withdraw()


def file_name_of(name: str) -> str:
    """The last part of a path or URL, as a part of another file's name."""
    last = name.partition("?")[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]", "_", last)[:_NAME_LETTERS] or "image"


def _disk_id(first_mib: bytes) -> int:
    """The disk id in an image's table; 0 where it has none."""
    try:
        return parse(first_mib[:SECTOR_BYTES]).disk_id
    except MbrError:
        return 0

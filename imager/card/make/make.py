"""A node's card from beginning to end: claim, write, read back, check, keep, receipt.

In: a node's image and a confirmed target. Out: a finished card and its receipt; a card that fails
gets a receipt too, which says how.
"""

from __future__ import annotations

from collections.abc import Callable

from imager.base.progress import Progress
from imager.card.inspect.salt import salt_on
from imager.card.make.begin import lay_down
from imager.card.make.finish import MadeCard, ReceiptContent, finish_card
from imager.card.make.order import CardOrder
from imager.card.receipt.receipt import ImageFacts
from imager.card.stages import ClaimedCard, UnprovenCard, WrittenCard
from imager.disk.mbr import parse
from imager.node.image import NodeImage


def make_card(
    order: CardOrder, progress: Progress, *, update: bool = False, probe: bool = False
) -> MadeCard:
    """Make the card and save its receipt.

    With ``update`` a card that holds the same golden image is given only what differs. With
    ``probe`` a card that was never written from this rack is probed first. Raises TargetRefused
    when it cannot be claimed. Raises CardIOError, CardFaulty, FakeCapacity, WouldNotBoot,
    Interrupted or HostStorage with the card left blank and a receipt that says so; if this
    computer has no room for the receipt, the details of the error say that.
    """

    def begin(card: ClaimedCard) -> WrittenCard:
        return lay_down(order, card, progress, update=update, probe=probe)

    return finish_node(order, begin, progress)


def finish_node(
    order: CardOrder, begin: Callable[[ClaimedCard], UnprovenCard], progress: Progress
) -> MadeCard:
    """Have ``begin`` write a node's card, prove it and save its receipt; raises as ``make_card``
    does."""
    image = order.image
    content = ReceiptContent(image.node, _image_facts(image), image.boot_files, image.manifest)
    return finish_card(order, image.manifest.size_bytes, lambda _: content, begin, progress)


def _image_facts(image: NodeImage) -> ImageFacts:
    with image.open() as reader:
        disk_id = parse(reader.read(0, 512)).disk_id
        salt = salt_on(reader.read, image.layout.root.offset)
    return ImageFacts(
        image_id=image.image_id,
        golden_key=image.golden.key,
        release_name=image.golden.release_name,
        release_sha256=image.golden.release_sha256,
        disk_id=disk_id,
        layout=image.layout,
        salt=salt,
    )

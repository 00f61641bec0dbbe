"""One card from beginning to end: claim, write, read back, check, keep, receipt.

In: a node's image and a confirmed target. Out: a finished card and its receipt; a card that fails
gets a receipt too, which says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.errors import (
    CardFaulty,
    CardIOError,
    ConfigurationError,
    FakeCapacity,
    HostStorage,
    Interrupted,
    PicloudError,
    TargetRefused,
    WouldNotBoot,
)
from imager.base.programs import tool_version
from imager.base.progress import Progress
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import TrustedFolder
from imager.card.claim.blank import blank_unless_done
from imager.card.claim.claim import claim
from imager.card.inspect.salt import salt_on
from imager.card.make.begin import lay_down
from imager.card.make.order import CardOrder, Check
from imager.card.medium.reopen import reader_of
from imager.card.receipt.receipt import ImageFacts, Receipt, ReceiptResult
from imager.card.receipt.store import save_receipt
from imager.card.stages import ClaimedCard, UnprovenCard, VerifiedCard, WrittenCard
from imager.card.write.read_back import read_back
from imager.disk.extents import Extent
from imager.disk.mbr import parse
from imager.node.image import NodeImage

_RESULTS = (
    (CardFaulty, ReceiptResult.FAULTY),
    (CardIOError, ReceiptResult.IO_ERROR),
    (FakeCapacity, ReceiptResult.FAKE_CAPACITY),
    (WouldNotBoot, ReceiptResult.WOULD_NOT_BOOT),
    (Interrupted, ReceiptResult.INTERRUPTED),
    (PicloudError, ReceiptResult.FAILED),
)


@dataclass(frozen=True, slots=True)
class MadeCard:
    """A finished card's receipt and where it lies."""

    receipt: Receipt
    receipt_path: Path


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

    return finish_card(order, begin, progress)


def finish_card(
    order: CardOrder, begin: Callable[[ClaimedCard], UnprovenCard], progress: Progress
) -> MadeCard:
    """Claim the card, have ``begin`` write it, prove it and save its receipt.

    Raises as ``make_card`` does.
    """
    image = order.image
    facts = _image_facts(image)
    with claim(order.accepted, image.manifest.size_bytes, order.kernel) as card:
        try:
            verified = read_back(begin(card), progress)
            if order.check is not None:
                _check(verified, order.check)
            verified.keep()
        except PicloudError as error:
            result = result_of(error)
            if result is not None:
                receipt = _receipt(order, facts, card, result, failure=error.what)
                _keep_receipt(receipt, order.receipts, error)
            raise
    receipt = _receipt(
        order, facts, card, ReceiptResult.VERIFIED, cache_bypassed=verified.cache_bypassed
    )
    try:
        return MadeCard(receipt, save_receipt(receipt, order.receipts))
    except HostStorage as error:
        good = f"{card.target.node} is {image.node}, proven; only its receipt is missing"
        error.details = (*error.details, good)
        raise


def _keep_receipt(receipt: Receipt, folder: TrustedFolder, error: PicloudError) -> None:
    """Save the receipt of a card that ended with ``error``, which matters more than that this
    computer may have no room for it."""
    try:
        error.receipt = save_receipt(receipt, folder).name
    except (HostStorage, ConfigurationError) as full:
        error.details = (*error.details, f"no receipt could be written: {full.what}")


def result_of(error: BaseException) -> ReceiptResult | None:
    """The result in the receipt of a card that ended with ``error``. None if there is to be no
    receipt, because the card was refused or this program has a bug."""
    if isinstance(error, TargetRefused):
        return None
    return next((name for kind, name in _RESULTS if isinstance(error, kind)), None)


def _check(verified: VerifiedCard, check: Check) -> None:
    """Run the check of the order on the finished card. Ranges just proven equal to the image are
    read from the image, because reading them again proves nothing more; the rest is read from the
    card."""
    card, image = verified.proven.card, verified.proven.image
    with blank_unless_done(card), card.reopen() as fresh, image.open() as reader:
        of_card, proven = reader_of(fresh.raw), image.manifest.extents

        def read(offset: int, length: int) -> bytes:
            if proven.covers(Extent(offset, length)):
                return reader.peek(offset, length)
            return of_card(offset, length)

        check(read, fresh.raw.size_bytes)


def _receipt(
    order: CardOrder,
    facts: ImageFacts,
    card: ClaimedCard,
    result: ReceiptResult,
    *,
    failure: str = "",
    cache_bypassed: bool = False,
) -> Receipt:
    return Receipt(
        node=order.image.node,
        result=result,
        failure=failure,
        finished_at=timestamp(precise=True),
        tool_version=tool_version(),
        target=replace(card.target.facts, size_bytes=card.raw.size_bytes),
        image=facts,
        options=order.options,
        cache_bypassed=cache_bypassed,
        fallbacks=card.held.fallbacks,
        phases=tuple(card.log.phases),
        boot_files=order.image.boot_files,
        manifest=order.image.manifest,
        trouble=card.log.trouble,
    )


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

"""Claim a card, have it written, prove it, keep it: what every card goes through, and its receipt.

In: an order, and how the card is written. Out: a finished card and its receipt; a card that fails
gets a receipt too, which says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from imager.card.image import CardImage
from imager.card.make.order import Check, Order
from imager.card.medium.reopen import reader_of
from imager.card.receipt.receipt import ImageFacts, Receipt, ReceiptResult
from imager.card.receipt.store import save_receipt
from imager.card.stages import ClaimedCard, UnprovenCard, VerifiedCard
from imager.card.write.read_back import read_back
from imager.disk.extents import Extent
from imager.disk.manifest import Manifest

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


@dataclass(frozen=True, slots=True)
class ReceiptContent:
    """What a receipt says a card holds: ``node`` is whose card it is, or the image's name."""

    node: str
    image: ImageFacts
    boot_files: Mapping[str, str]
    manifest: Manifest


Told = Callable[[CardImage | None], ReceiptContent]
"""What a receipt says of the image that was written; None where the writing was not finished."""


def finish_card(
    order: Order,
    size_bytes: int,
    told: Told,
    begin: Callable[[ClaimedCard], UnprovenCard],
    progress: Progress,
) -> MadeCard:
    """Claim the card for an image of ``size_bytes``, have ``begin`` write it, prove it and save its
    receipt.

    Raises TargetRefused when it cannot be claimed; what ``begin`` raises, and CardIOError,
    CardFaulty, FakeCapacity, WouldNotBoot, Interrupted or HostStorage with the card left blank and
    a receipt that says so; if this computer has no room for the receipt, the details of the error
    say that.
    """
    image: CardImage | None = None
    with claim(order.accepted, size_bytes, order.kernel) as card:
        try:
            begun = begin(card)
            image = begun.image
            verified = read_back(begun, progress)
            if order.check is not None:
                _check(verified, order.check)
            verified.keep()
        except PicloudError as error:
            result = result_of(error)
            if result is not None:
                receipt = _receipt(order, told(image), card, result, failure=error.what)
                _keep_receipt(receipt, order.receipts, error)
            raise
    content, good = told(image), ReceiptResult.VERIFIED
    receipt = _receipt(order, content, card, good, cache_bypassed=verified.cache_bypassed)
    try:
        return MadeCard(receipt, save_receipt(receipt, order.receipts))
    except HostStorage as error:
        proven = f"{card.target.node} is {content.node}, proven; only its receipt is missing"
        error.details = (*error.details, proven)
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
    order: Order,
    content: ReceiptContent,
    card: ClaimedCard,
    result: ReceiptResult,
    *,
    failure: str = "",
    cache_bypassed: bool = False,
) -> Receipt:
    return Receipt(
        node=content.node,
        result=result,
        failure=failure,
        finished_at=timestamp(precise=True),
        tool_version=tool_version(),
        target=replace(card.target.facts, size_bytes=card.raw.size_bytes),
        image=content.image,
        options=order.options,
        cache_bypassed=cache_bypassed,
        fallbacks=card.held.fallbacks,
        phases=tuple(card.log.phases),
        boot_files=content.boot_files,
        manifest=content.manifest,
        trouble=card.log.trouble,
    )

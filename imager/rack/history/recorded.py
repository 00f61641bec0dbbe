"""One card is made, and the ledger says so before and after.

In: whose card it is, where it lies, and how to make it. Out: the finished card, or the same error
as without a ledger; either way the ledger has a line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from imager.base.errors import HostStorage, PicloudError
from imager.card.host.target import Target
from imager.card.make.make import MadeCard
from imager.config.rack import Rack
from imager.rack.history.ledger import Assigned, CardFinished, append, now
from imager.rack.history.outcome import Outcome, outcome_of


@dataclass(frozen=True, slots=True)
class Work:
    """A node's card to be made; ``batch`` is empty outside a batch, ``slot`` without a label.
    ``recipe`` says what it is made from (``imager.node.content``)."""

    node: str
    target: Target
    release_sha256: str
    recipe: str
    batch: str = ""
    slot: str = ""


def recorded(rack: Rack, work: Work, make: Callable[[], MadeCard]) -> MadeCard:
    """``make()``, with a line before and one after.

    Raises what ``make`` does, and HostStorage: before it, where the ledger cannot be written, and
    after it, where the card is good and the ledger cannot say so.
    """
    append(rack.folder, _assigned(work))
    try:
        made = make()
    except BaseException as error:
        # What went wrong with the card matters more than that it cannot be written down.
        with suppress(HostStorage):
            append(rack.folder, _failed(work, error))
        raise
    receipt, image_id = made.receipt_path.name, made.receipt.image.image_id
    append(rack.folder, _finished(work, Outcome.VERIFIED, receipt=receipt, image_id=image_id))
    return made


def _assigned(work: Work) -> Assigned:
    facts = work.target.facts
    return Assigned(
        at=now(),
        batch=work.batch,
        node=work.node,
        target=work.target.node,
        slot=work.slot,
        card_size_bytes=facts.size_bytes,
        model=facts.model,
        serial=facts.serial,
        cid=facts.cid,
        diskseq=facts.diskseq,
    )


def _failed(work: Work, error: BaseException) -> CardFinished:
    known = error if isinstance(error, PicloudError) else None
    stopped = isinstance(error, KeyboardInterrupt)
    other = "interrupted" if stopped else f"{type(error).__name__}: {error}"
    return _finished(
        work,
        outcome_of(error),
        reason=known.what if known else other,
        hint=known.hint if known else "",
        receipt=known.receipt if known else "",
    )


def _finished(
    work: Work,
    outcome: Outcome,
    *,
    reason: str = "",
    hint: str = "",
    receipt: str = "",
    image_id: str = "",
) -> CardFinished:
    return CardFinished(
        at=now(),
        batch=work.batch,
        node=work.node,
        target=work.target.node,
        slot=work.slot,
        outcome=outcome.value,
        reason=reason,
        hint=hint,
        receipt=receipt,
        image_id=image_id,
        recipe=work.recipe,
        release_sha256=work.release_sha256,
    )

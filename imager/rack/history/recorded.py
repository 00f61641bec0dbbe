"""One card is made, with a line in the ledger before and after.

In: which node's card it is, in which reader it is, and a function that makes it. Out: the finished
card, or the error of that function; in both cases the ledger has a line about it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from imager.base.errors import HostStorage, PicloudError
from imager.card.host.target import Target
from imager.card.make.finish import MadeCard
from imager.config.rack import Rack
from imager.rack.history.events import Assigned, CardFinished, now
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome, outcome_of


@dataclass(frozen=True, slots=True)
class Work:
    """A node's card to be made; ``batch`` is empty outside a batch, ``slot`` without a label.
    ``recipe`` says what it is made from (``imager.node.content``), ``image_id`` which image it
    gets where that is not the one of its receipt: a saved card's own."""

    node: str
    target: Target
    release_sha256: str
    recipe: str
    batch: str = ""
    slot: str = ""
    image_id: str = ""


def recorded(rack: Rack, work: Work, make: Callable[[], MadeCard]) -> MadeCard:
    """``make()``, with a line before and one after.

    Raises what ``make`` raises. Raises HostStorage when the ledger cannot be written: then nothing
    was made, or, if it happens only at the end, the card is good and the ledger lacks that line.
    """
    begun = _assigned(work)
    append(rack.folder, begun)
    try:
        made = make()
    except BaseException as error:
        # The card's own error is more important than that the ledger cannot be written.
        with suppress(HostStorage):
            append(rack.folder, _failed(begun, error))
        raise
    receipt, image_id = made.receipt_path.name, work.image_id or made.receipt.image.image_id
    finished = CardFinished.of(begun, Outcome.VERIFIED, receipt=receipt, image_id=image_id)
    append(rack.folder, finished)
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
        image_id=work.image_id,
        recipe=work.recipe,
        release_sha256=work.release_sha256,
    )


def _failed(begun: Assigned, error: BaseException) -> CardFinished:
    known = error if isinstance(error, PicloudError) else None
    stopped = isinstance(error, KeyboardInterrupt)
    other = "interrupted" if stopped else f"{type(error).__name__}: {error}"
    return CardFinished.of(
        begun,
        outcome_of(error),
        reason=known.what if known else other,
        hint=known.hint if known else "",
        receipt=known.receipt if known else "",
    )

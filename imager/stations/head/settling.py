"""A report of a card on a station, written into the ledger, and its receipt beside.

In: a report, and what the ledger says was begun. Out: one line more, or none: a report counts only
for the card that the ledger says this station began in this batch, and as good only with the image
that was ordered then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import save_receipt
from imager.config.rack import Rack
from imager.rack.history.events import Assigned, CardFinished, now
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome
from imager.stations.wire.report import CardReport


@dataclass(frozen=True, slots=True)
class Settled:
    """A report that is in the ledger now, and the file name of its receipt, or empty."""

    report: CardReport
    receipt_name: str


def settle(rack: Rack, station: str, report: CardReport, begun: Assigned | None) -> Settled | None:
    """Write ``report`` into the ledger, which says that ``begun`` is not over, and its receipt
    beside; None where it knows of no such card, or knows its end already. A card that is verified
    to hold another image than was ordered is not good."""
    if begun is None or (begun.station, begun.batch) != (station, report.batch):
        return None
    if begun.image_id:
        report = _held_against(report, begun.image_id)
    else:
        # A line of an older version does not say what was ordered.
        begun = replace(begun, recipe=report.recipe, release_sha256=report.release_sha256)
    receipt = _kept(rack, station, report.receipt) if report.receipt else ""
    image = report.receipt.image if report.receipt else None
    append(
        rack.folder,
        CardFinished.of(
            begun,
            report.outcome,
            reason=report.reason,
            hint=report.hint,
            receipt=receipt,
            image_id=image.image_id if image and report.outcome is Outcome.VERIFIED else "",
        ),
    )
    return Settled(report, receipt)


def _held_against(report: CardReport, image_id: str) -> CardReport:
    """``report``, or that the card failed: it holds another image than ``image_id``."""
    receipt = report.receipt
    if report.outcome is not Outcome.VERIFIED or receipt is None:
        return report
    if receipt.image.image_id == image_id:
        return report
    return replace(
        report,
        outcome=Outcome.FAILED,
        reason=f"its station says that it wrote {receipt.image.image_id[:12]}…, which was not "
        f"ordered; {image_id[:12]}… was",
        hint="do not use that card, and look at that station",
        receipt=None,
    )


def _kept(rack: Rack, station: str, receipt: Receipt) -> str:
    there = replace(
        receipt,
        # The newest of ledger and receipts counts: a clock that is ahead would hide later ones.
        finished_at=min(receipt.finished_at, now()),
        target=replace(receipt.target, path=f"{station}:{receipt.target.path}"),
    )
    return save_receipt(there, rack.receipts).name


def not_begun(rack: Rack, begun: Assigned, outcome: Outcome, reason: str, hint: str) -> None:
    """Say in the ledger that nothing was done to the card that ``begun`` speaks of."""
    append(rack.folder, CardFinished.of(begun, outcome, reason=reason, hint=hint))

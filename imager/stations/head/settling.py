"""A report of a card on a station, written into the ledger, and its receipt beside.

In: a report, and what the ledger says was begun. Out: one line more, or none: a report counts only
for the card that the ledger says this station began in this batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import save_receipt
from imager.config.rack import Rack
from imager.rack.history.events import Assigned, CardFinished
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome
from imager.stations.wire.report import CardReport


@dataclass(frozen=True, slots=True)
class Settled:
    """A report that is in the ledger now, and the file name of its receipt, or empty."""

    report: CardReport
    receipt_name: str


def held_against(report: CardReport, image_id: str | None) -> CardReport:
    """``report``, or that the card failed where it holds another image than ``image_id``, which
    was ordered; None where that is not known."""
    receipt = report.receipt
    if image_id is None or report.outcome is not Outcome.VERIFIED or receipt is None:
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


def settle(rack: Rack, station: str, report: CardReport, begun: Assigned | None) -> Settled | None:
    """Write ``report`` into the ledger, which says that ``begun`` is not over, and its receipt
    beside; None where it knows of no such card, or knows its end already."""
    if begun is None or (begun.station, begun.batch) != (station, report.batch):
        return None
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
            recipe=report.recipe,
            release_sha256=report.release_sha256,
        ),
    )
    return Settled(report, receipt)


def _kept(rack: Rack, station: str, receipt: Receipt) -> str:
    there = replace(
        receipt, target=replace(receipt.target, path=f"{station}:{receipt.target.path}")
    )
    return save_receipt(there, rack.receipts).name


def not_begun(rack: Rack, begun: Assigned, outcome: Outcome, reason: str, hint: str) -> None:
    """Say in the ledger that nothing was done to the card that ``begun`` speaks of."""
    append(rack.folder, CardFinished.of(begun, outcome, reason=reason, hint=hint))

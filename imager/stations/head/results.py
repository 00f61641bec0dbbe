"""How a card on a station ended, as the result of a job.

In: a report that is in the ledger, or why there is none. Out: a CardResult, as of a card made here.
"""

from __future__ import annotations

from imager.base.errors import (
    CardFaulty,
    CardIOError,
    ConfigurationError,
    FakeCapacity,
    HostStorage,
    Interrupted,
    NetworkError,
    PicloudError,
    TargetRefused,
    WouldNotBoot,
)
from imager.rack.batch.workers import CardResult
from imager.rack.history.events import reader_said
from imager.rack.history.outcome import Outcome
from imager.stations.head.remote import RemoteJob
from imager.stations.head.settling import Settled

_ERRORS: dict[Outcome, type[PicloudError]] = {
    Outcome.FAULTY: CardFaulty,
    Outcome.IO_ERROR: CardIOError,
    Outcome.FAKE_CAPACITY: FakeCapacity,
    Outcome.WOULD_NOT_BOOT: WouldNotBoot,
    Outcome.INTERRUPTED: Interrupted,
    Outcome.REFUSED: TargetRefused,
    Outcome.FAILED: HostStorage,
}


def result_of_report(job: RemoteJob, settled: Settled) -> CardResult:
    """The result of ``job``."""
    report = settled.report
    kind = _ERRORS.get(report.outcome, ConfigurationError)
    error = None
    if report.outcome is not Outcome.VERIFIED:
        what = f"{job.station}: {report.reason}"
        error = kind(what, hint=report.hint, details=report.details)
    return CardResult(
        job,
        report.outcome,
        report.seconds,
        receipt=report.receipt,
        receipt_name=settled.receipt_name,
        error=error,
    )


def unknown(job: RemoteJob, what: str) -> CardResult:
    """The result of a card of which its station does not say what became of it; ``what`` words
    that."""
    reader = reader_said(job.target.node, job.slot, job.station)
    error = NetworkError(
        what,
        hint=f"look at the card in {reader}; the same command asks {job.station} first, and makes "
        "no second card",
    )
    return CardResult(job, Outcome.UNKNOWN, error=error)

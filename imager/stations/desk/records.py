"""What a station remembers of its cards until the head has it: a file for each, written in time.

In: cards that are begun, and their reports. Out: the same again, also after a power cut: a card
whose work was cut short with its program is reported as interrupted. Nothing secret is in a record.

``work/<job>.lock`` is held by the program that does the job; ``work/<job>+<node>.json`` is one
card of it; ``<job>.stop`` asks that program to stop. Where ``<batch>.closed`` or
``<job>.closed`` is, nothing of it is begun.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.durable import require_free
from imager.base.errors import ConfigurationError, Interrupted, PicloudError, TargetRefused
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.receipt import Receipt, ReceiptError, decode_receipt
from imager.rack.history.ledger import ROOM_PER_CARD
from imager.rack.history.outcome import Outcome
from imager.stations.wire.order import CLOCK_SECONDS, ORDER_SECONDS, CardWork, WorkOrder
from imager.stations.wire.report import MOST_RECEIPT_BYTES, CardReport, report_from
from imager.stations.wire.reports import AtDesk, Reports, given_out
from imager.stations.wire.survey import MOST_CARDS, digest

_LIMIT_BYTES = 2 * MOST_RECEIPT_BYTES
_LOCK, _STOP, _RECORD, _CLOSED = ".lock", ".stop", ".json", ".closed"
_SINCE, _BEGIN = "since", "begin.lock"


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one station, in its own private ``folder``."""

    folder: TrustedFolder

    @property
    def receipts(self) -> TrustedFolder:
        """The receipts of all cards ever made here."""
        return self.folder / "receipts"

    @property
    def _work(self) -> TrustedFolder:
        return self.folder / "work"

    def since(self) -> float:
        """When this station began to remember, in seconds since 1970; begins now if it never
        did."""
        self.folder.make_private()
        with self.folder.locked(f"{_SINCE}{_LOCK}"):
            try:
                return float(self.folder.read(_SINCE, 100))
            except (FileNotFoundError, ValueError):
                now = time.time()
                self.folder.write(_SINCE, str(now).encode(), mode=0o600)
                return now

    @contextmanager
    def doing(self, order: WorkOrder) -> Iterator[Path]:
        """Do a job: no other program does the same one meanwhile, nor has ever done it. Yields the
        path of the file whose presence asks to stop.

        Raises TargetRefused for a job that was begun before or is closed, HostStorage where there
        is no room for the reports.
        """
        self._require_room(len(order.cards))
        lock = f"{order.job}{_LOCK}"
        with ExitStack() as held:
            with self.folder.locked(_BEGIN):
                self._require_new(order)
                held.enter_context(self._work.make_private().locked(lock))
                # Who closes the batch after this finds them.
                for card in order.cards:
                    self._write(order, card, None)
            yield self._work.path / f"{order.job}{_STOP}"

    def _require_new(self, order: WorkOrder) -> None:
        reasons = {
            f"{order.job}{_LOCK}": "was begun here before",
            f"{order.job}{_CLOSED}": "comes so late that its head waits for it no more",
            f"{order.batch}{_CLOSED}": "is of a run that is over",
        }
        for name in self._work.names():
            if name in reasons:
                raise TargetRefused(
                    f"job {order.job} {reasons[name]}", hint="run the head's command again"
                )

    def ended(self, order: WorkOrder, card: CardWork, report: CardReport) -> None:
        """Remember how a card of a job ended."""
        self._write(order, card, report)

    def receipt(self, name: str) -> Receipt | None:
        """The receipt of that file name; None where there is none."""
        if not name:
            return None
        try:
            return decode_receipt(self.receipts.read(name, MOST_RECEIPT_BYTES))
        except (FileNotFoundError, ReceiptError):
            return None

    def stop(self, batch: str) -> int:
        """Ask every job of ``batch`` that is being done to stop, and begin none that comes later;
        returns how many were asked."""
        self._close([batch])
        jobs = [job for job in self._jobs() if job.startswith(f"{batch}.") and self._is_held(job)]
        for job in jobs:
            self._work.write(f"{job}{_STOP}", b"")
        return len(jobs)

    def hand_over(
        self,
        rack: str,
        done: Sequence[str],
        aside: Sequence[str] = (),
        closed: Sequence[str] = (),
    ) -> Reports:
        """Forget the reports ``done`` of ``rack``, which the head has; give the next ones, but for
        those that are to be left ``aside``. Of the batches and jobs ``closed`` nothing is begun
        any more: what is not told now never was."""
        self._close(closed)
        reports: list[CardReport] = []
        making: list[AtDesk] = []
        unreadable: dict[str, str] = {}
        # Known before the records are read: none of such a job is written afterwards. While nothing
        # begins: the file of a job's lock is there before it is locked.
        with self.folder.make_private().locked(_BEGIN):
            over = tuple(job for job in self._jobs() if not self._is_held(job))
        for name in [name for name in self._work.names() if name.endswith(_RECORD)]:
            stem = name.removesuffix(_RECORD)
            try:
                record = self._read(name)
            except (ConfigurationError, JsonFault) as error:
                # Whose it is, is not known either.
                if len(unreadable) < MOST_CARDS:
                    unreadable[stem] = str(error)
                continue
            if record is None or record.rack != rack:
                continue
            report = record.report
            if not record.ended and self._is_held(record.job):
                making.append(AtDesk(report.batch, report.node, report.slot))
            elif stem in done:
                self._work.remove(name)
            elif stem not in aside and len(reports) < MOST_CARDS:
                # It may have ended since it was read.
                latest = record if record.ended else self._read(name) or record
                reports.append(latest.report)
        self._sweep()
        given = given_out(reports, making, over, self.since())
        return replace(given, closed=tuple(closed), unreadable=unreadable)

    def report(self, rack: str, name: str) -> CardReport:
        """The report ``name`` of ``rack``. Raises TargetRefused where there is none, else as
        ``_read``."""
        record = self._read(f"{name}{_RECORD}")
        if record is None or record.rack != rack:
            raise TargetRefused(f"there is no report {name} here", hint="ask for the reports again")
        return record.report

    def _close(self, names: Sequence[str]) -> None:
        for name in names:
            with self.folder.locked(_BEGIN):
                self._work.make_private().write(f"{name}{_CLOSED}", b"")

    def _sweep(self) -> None:
        """Remove what is left of jobs that are over, whose reports are handed over, and of batches
        that are closed, where their orders would be too old to be begun."""
        names = self._work.names()
        for name in names:
            if name.endswith(_CLOSED) and self._is_past(name):
                self._work.remove(name)
        for job in self._jobs():
            if any(name.startswith(f"{job}+") for name in names) or self._is_held(job):
                continue
            if self._is_past(f"{job}{_LOCK}"):
                self._work.remove(f"{job}{_STOP}")
                self._work.remove(f"{job}{_LOCK}")

    def _is_past(self, name: str) -> bool:
        """Whether no order can be begun that was made before the file ``name`` was."""
        try:
            with self._work.open(name) as file:
                age = time.time() - os.fstat(file).st_mtime
        except FileNotFoundError:
            return False  # whoever asked at the same time has swept it
        return age > ORDER_SECONDS + 2 * CLOCK_SECONDS

    def _jobs(self) -> list[str]:
        """Each job that is remembered."""
        names = self._work.names()
        return [name.removesuffix(_LOCK) for name in names if name.endswith(_LOCK)]

    def _is_held(self, job: str) -> bool:
        """Whether a program is doing it now."""
        if f"{job}{_LOCK}" not in self._work.names():
            return False
        try:
            with self._work.locked(f"{job}{_LOCK}", wait=False):
                return False
        except BlockingIOError:
            return True

    def _write(self, order: WorkOrder, card: CardWork, report: CardReport | None) -> None:
        document = {
            "rack": order.rack,
            "job": order.job,
            "ended": report is not None,
            "report": (report or _cut_short(order, card)).to_json(),
        }
        name = f"{report_name(order, card)}{_RECORD}"
        self._work.write(name, json.dumps(document).encode(), mode=0o600)

    def _read(self, name: str) -> _Record | None:
        """None for one that is gone. Raises ConfigurationError or JsonFault for what is none, as
        another version may have written it."""
        try:
            return _record(read_object(self._work.read(name, _LIMIT_BYTES)))
        except FileNotFoundError:
            return None

    def _require_room(self, cards: int) -> None:
        require_free(
            self.folder.make_private().path,
            cards * ROOM_PER_CARD,
            f"the reports of {cards} cards may take",
            "free some space on that station first; no card was touched",
        )


def report_name(order: WorkOrder, card: CardWork) -> str:
    """What the report of a card is called, on its station."""
    return f"{order.job}+{card.node}"


def report_on(
    order: WorkOrder,
    card: CardWork,
    outcome: Outcome,
    error: PicloudError | None,
    *,
    seconds: float = 0.0,
    receipt: Receipt | None = None,
) -> CardReport:
    """How work on ``card`` ended."""
    return CardReport(
        name=report_name(order, card),
        batch=order.batch,
        node=card.node,
        path=card.path,
        slot=card.slot,
        outcome=outcome,
        reason=error.what if error else "",
        hint=error.hint if error else "",
        details=error.details if error else (),
        seconds=seconds,
        recipe=card.recipe,
        release_sha256=order.golden.release_sha256,
        receipt=receipt,
    )


@dataclass(frozen=True, slots=True)
class _Record:
    """``report`` says that the card was cut short, until it has ``ended``."""

    rack: str
    job: str
    ended: bool
    report: CardReport


def _record(read: JsonObject) -> _Record:
    return _Record(
        digest(read, "rack"),
        read.text("job"),
        read.boolean("ended"),
        report_from(read.child("report")),
    )


def _cut_short(order: WorkOrder, card: CardWork) -> CardReport:
    error = Interrupted(
        f"{card.path}: the station's program was ended while it made this card",
        hint="the card is blank or whole; run the same command again",
    )
    return report_on(order, card, Outcome.INTERRUPTED, error)

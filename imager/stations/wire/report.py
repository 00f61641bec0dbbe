"""What a station says while it works, and how each card ended.

In: events of the workers and their results, on the station; JSON from one, on the head. Out:
Progress lines, which may be lost, and CardReports, which are collected (``reports.py``).
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import asdict, dataclass, replace

from imager.base.json_fields import JsonObject
from imager.base.timestamps import is_precise
from imager.base.units import MiB
from imager.card.receipt.receipt import Receipt, ReceiptError, ReceiptResult, decode_receipt
from imager.rack.batch.card_progress import CardEvent, Moment, PhaseBegan, PhaseEnded, Said
from imager.rack.history.outcome import Outcome
from imager.stations.wire.order import named, node_named
from imager.stations.wire.survey import MOST_TEXT, bounded, digest, short

MOST_RECEIPT_BYTES = 16 * MiB
_MOST_TOLD = 1000
_MOST_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class CardReport:
    """How one card ended; ``name`` is unique on its station. ``recipe`` and
    ``release_sha256`` are what was ordered. ``receipt`` is None where the card was
    refused. ``path`` and ``slot`` say where it is."""

    name: str
    batch: str
    node: str
    path: str
    slot: str
    outcome: Outcome
    reason: str
    hint: str
    details: tuple[str, ...]
    seconds: float
    recipe: str
    release_sha256: str
    receipt: Receipt | None

    def to_json(self) -> dict[str, object]:
        """The object on the wire, and in the station's file."""
        document = asdict(replace(self, receipt=None))
        return document | {"receipt": _packed(self.receipt) if self.receipt else None}


def report_from(read: JsonObject) -> CardReport:
    """The report in ``read``; raises JsonFault that names the field which is wrong."""
    receipt = read.optional("receipt", read.text)
    details = read.texts("details")
    bounded(details, _MOST_TOLD, read)
    report = CardReport(
        name=named(read, "name"),
        batch=named(read, "batch"),
        node=node_named(read, "node"),
        path=short(read, "path"),
        slot=short(read, "slot"),
        outcome=read.choice("outcome", Outcome),
        reason=read.text("reason")[:MOST_TEXT],
        hint=read.text("hint")[:MOST_TEXT],
        details=tuple(detail[:MOST_TEXT] for detail in details),
        seconds=read.number("seconds", _MOST_SECONDS),
        recipe=digest(read, "recipe"),
        release_sha256=digest(read, "release_sha256"),
        receipt=None if receipt is None else _receipt(read, receipt),
    )
    if report.outcome in (Outcome.SAVED, Outcome.UNKNOWN):
        raise read.fault("outcome", f"{report.outcome} is no end of a card on a station")
    if report.receipt is not None:
        _require_its_own(report, report.receipt, read)
    elif report.outcome is Outcome.VERIFIED:
        raise read.fault("receipt", "is missing, and the card is verified")
    return report


def _require_its_own(report: CardReport, receipt: Receipt, read: JsonObject) -> None:
    """Raise JsonFault where ``receipt`` says other things than the report. Its node and time make
    the name of a file on the head."""
    if receipt.node != report.node or receipt.image.source is not None:
        raise read.fault("receipt", f"is not that of a card of {report.node}")
    if not is_precise(receipt.finished_at):
        raise read.fault("receipt", "does not say when the card was finished")
    verified = receipt.result is ReceiptResult.VERIFIED
    if verified != (report.outcome is Outcome.VERIFIED):
        result = receipt.result.value
        raise read.fault("receipt", f"says {result}, and the report says {report.outcome.value}")


def _packed(receipt: Receipt) -> str:
    """Base64 of zlib: on its way a text within a text within a text would grow by its quotes."""
    return base64.b64encode(zlib.compress(receipt.encode())).decode()


def _receipt(read: JsonObject, text: str) -> Receipt:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(text, validate=True), MOST_RECEIPT_BYTES)
        if not unpacker.eof:
            raise ValueError(f"it is cut short, or larger than {MOST_RECEIPT_BYTES} bytes")
        return decode_receipt(data)
    except (ReceiptError, zlib.error, ValueError) as error:
        raise read.fault("receipt", str(error)) from None


@dataclass(frozen=True, slots=True)
class NodeMoment:
    """How far the card of ``node`` is."""

    node: str
    moment: Moment


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a worker reported about the card of ``node``."""

    node: str
    event: CardEvent


@dataclass(frozen=True, slots=True)
class StationProgress:
    """What one job of a station did in the last second. ``ended`` are nodes whose report can be
    collected; ``fault`` and ``hint`` say why the whole job was not begun."""

    job: str
    moments: tuple[NodeMoment, ...] = ()
    told: tuple[Told, ...] = ()
    ended: tuple[str, ...] = ()
    fault: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return {
            "job": self.job,
            "moments": [{"node": one.node, **asdict(one.moment)} for one in self.moments],
            "told": [entry for one in self.told if (entry := _told_json(one))],
            "ended": list(self.ended),
            "fault": self.fault,
            "hint": self.hint,
        }


def _told_json(told: Told) -> dict[str, object] | None:
    """None for what stays on the station: findings are in the receipt."""
    kinds = {PhaseBegan: "began", PhaseEnded: "ended", Said: "said"}
    kind = kinds.get(type(told.event))
    return None if kind is None else {"node": told.node, "kind": kind, **asdict(told.event)}


def progress_from(read: JsonObject) -> StationProgress:
    """The progress in ``read``; raises JsonFault that names the field which is wrong."""
    for name in ("moments", "told", "ended"):
        bounded(read.items(name), _MOST_TOLD, read)
    ended = read.texts("ended")
    return StationProgress(
        job=named(read, "job"),
        moments=tuple(map(_moment, read.children("moments"))),
        told=tuple(map(_told, read.children("told"))),
        ended=tuple(name[:MOST_TEXT] for name in ended),
        fault=read.text("fault")[:MOST_TEXT],
        hint=read.text("hint")[:MOST_TEXT],
    )


def _moment(read: JsonObject) -> NodeMoment:
    moment = Moment(
        phase=short(read, "phase"),
        done_bytes=read.integer("done_bytes"),
        total_bytes=read.optional("total_bytes", read.integer),
        phase_seconds=read.number("phase_seconds", _MOST_SECONDS),
        moved_bytes=read.integer("moved_bytes"),
        expected_bytes=read.integer("expected_bytes"),
        done_steps=read.integer("done_steps"),
        total_steps=read.integer("total_steps"),
    )
    return NodeMoment(node_named(read, "node"), moment)


def _told(read: JsonObject) -> Told:
    return Told(node_named(read, "node"), _event(read))


def _event(read: JsonObject) -> CardEvent:
    kind = read.text("kind")
    if kind == "said":
        return Said(read.text("message")[:MOST_TEXT], read.boolean("warning"))
    phase, total = short(read, "phase"), read.optional("total_bytes", read.integer)
    if kind == "began":
        return PhaseBegan(phase, total)
    if kind != "ended":
        raise read.fault("kind", "is none that is known")
    seconds = read.number("seconds", _MOST_SECONDS)
    return PhaseEnded(phase, read.integer("done_bytes"), total, seconds, read.boolean("failed"))

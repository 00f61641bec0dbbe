"""What became of cards on stations, brought into the ledger: in this run, or by the next one.

In: reports that stations kept. Out: lines in the ledger and receipts, each once, however often the
same report comes. A report counts only for the card that the ledger says this station began in
this batch: nothing else that a station says changes what is known of a node.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from imager.base.errors import NetworkError, PicloudError
from imager.base.json_fields import JsonFault, JsonObject
from imager.base.text import printable
from imager.card.receipt.receipt import Receipt
from imager.card.receipt.store import save_receipt
from imager.config.rack import Rack
from imager.node.keys.signing import known_public_key
from imager.rack.history.ledger import (
    Assigned,
    CardFinished,
    append,
    now,
    read_ledger,
)
from imager.rack.history.outcome import Outcome
from imager.stations.wire.bus import StationBus
from imager.stations.wire.order import CLOCK_SECONDS, ORDER_SECONDS
from imager.stations.wire.report import CardReport
from imager.stations.wire.reports import AtDesk, report_of_pieces, reports_from

ASK_SECONDS = 30.0
LATEST_SECONDS = ORDER_SECONDS + 2 * CLOCK_SECONDS
"""No station begins an order that is older than this by the head's clock."""
_MOST_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Settled:
    """A report that is in the ledger now, and the file name of its receipt, or empty."""

    report: CardReport
    receipt_name: str


@dataclass(frozen=True, slots=True)
class Collected:
    """What one station gave out: ``settled`` are the reports that are in the ledger now, ``making``
    what it makes now, ``over`` are jobs that nothing more comes of. It remembers all that it did
    ``since`` then (seconds since 1970). ``fault`` says why it gave nothing."""

    settled: tuple[Settled, ...] = ()
    making: tuple[AtDesk, ...] = ()
    over: tuple[str, ...] = ()
    since: float = 0.0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was left of earlier runs: ``settled`` is in the ledger now, ``making`` is being made
    now, by node. ``untold`` has, by their names, why stations did not say what became of cards that
    they began."""

    settled: tuple[Settled, ...]
    making: Mapping[str, AtDesk]
    untold: Mapping[str, str]


def collect(
    rack: Rack, bus: StationBus, station: str, ordered: Mapping[str, str] | None = None
) -> Collected:
    """Take every report of ``rack`` that ``station`` has. ``ordered`` are the images, by node, that
    this run ordered: a card that is verified to hold another one is not good. Raises HostStorage
    when the ledger cannot be written: the station then keeps its reports."""
    key = (known_public_key(rack.folder) or b"").hex()
    if not key:
        return Collected()
    settled: list[Settled] = []
    making: tuple[AtDesk, ...] = ()
    over: tuple[str, ...] = ()
    since = time.time()
    done: list[str] = []
    for _ in range(_MOST_ROUNDS):
        try:
            found = reports_from(_asked(bus, station, {"rack": key, "done": done}))
            large = [_large(bus, station, key, name) for name in found.large]
        except JsonFault as error:
            fault = printable(f"its reports cannot be understood: {error}")
            return Collected(tuple(settled), fault=fault)
        except PicloudError as error:
            # The master itself may be away for a while.
            return Collected(tuple(settled), fault=error.what)
        reports = (*found.reports, *large)
        for report in reports:
            held = _held_against(report, (ordered or {}).get(report.node))
            one = settle(rack, station, held)
            if one is not None:
                settled.append(one)
        making, over, since = found.making, found.over, found.since
        done = [one.name for one in reports]
        if not done:
            break
    return Collected(tuple(settled), making, over, since)


def _asked(bus: StationBus, station: str, asked: Mapping[str, object]) -> JsonObject:
    answer = bus.ask([station], "reports", asked, seconds=ASK_SECONDS)[station]
    if answer.document is None:
        raise NetworkError(answer.fault, hint="see that it is on")
    return JsonObject(answer.document)


def _large(bus: StationBus, station: str, key: str, name: str) -> CardReport:
    """A report that is too large for an answer."""

    def piece(start: int) -> str:
        asked = {"rack": key, "done": [], "large": name, "start": start}
        return _asked(bus, station, asked).text("piece")

    return report_of_pieces(name, piece)


def _held_against(report: CardReport, image_id: str | None) -> CardReport:
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


def settle(rack: Rack, station: str, report: CardReport) -> Settled | None:
    """Write ``report`` into the ledger, and its receipt beside; None where the ledger knows of no
    such card, or knows its end already."""
    begun = read_ledger(rack.folder).state_of(report.node).begun
    if begun is None or (begun.station, begun.batch) != (station, report.batch):
        return None
    receipt = _kept(rack, station, report.receipt) if report.receipt else ""
    image = report.receipt.image if report.receipt else None
    append(
        rack.folder,
        _finished(
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


def _finished(
    begun: Assigned,
    outcome: Outcome,
    *,
    reason: str,
    hint: str,
    receipt: str = "",
    image_id: str = "",
    recipe: str = "",
    release_sha256: str = "",
) -> CardFinished:
    return CardFinished(
        at=now(),
        batch=begun.batch,
        node=begun.node,
        target=begun.target,
        slot=begun.slot,
        outcome=outcome.value,
        reason=reason,
        hint=hint,
        receipt=receipt,
        image_id=image_id,
        recipe=recipe,
        release_sha256=release_sha256,
    )


def not_begun(rack: Rack, begun: Assigned, outcome: Outcome, reason: str, hint: str) -> None:
    """Say in the ledger that nothing was done to the card that ``begun`` speaks of."""
    append(rack.folder, _finished(begun, outcome, reason=reason, hint=hint))


def collect_earlier(rack: Rack, bus: StationBus, stations: Sequence[str]) -> Earlier:
    """Bring into the ledger what earlier runs of the head left on ``stations``. The caller holds
    ``batch_lock``."""
    settled: list[Settled] = []
    making: dict[str, AtDesk] = {}
    untold: dict[str, str] = {}
    for station in stations:
        found = collect(rack, bus, station)
        settled += found.settled
        if found.fault:
            if _unended(rack, station):
                untold[station] = found.fault
            continue
        here = {card.node: card for card in found.making}
        making |= here
        for begun in _unended(rack, station):
            # A station that was made anew meanwhile cannot know what it did before.
            if begun.node not in here and _is_past(begun) and found.since < _time_of(begun):
                not_begun(
                    rack,
                    begun,
                    Outcome.INTERRUPTED,
                    f"{station} never began this card",
                    "it is as it was; run the same command again",
                )
    return Earlier(tuple(settled), making, untold)


def _unended(rack: Rack, station: str) -> list[Assigned]:
    ledger = read_ledger(rack.folder)
    states = (ledger.state_of(node.name).begun for node in rack.nodes)
    return [begun for begun in states if begun is not None and begun.station == station]


def _is_past(begun: Assigned) -> bool:
    return time.time() - _time_of(begun) > LATEST_SECONDS


def _time_of(begun: Assigned) -> float:
    """0 for what is no time: then nothing is concluded from it."""
    with suppress(ValueError):
        return datetime.fromisoformat(begun.at).timestamp()
    return 0.0

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
_TOGETHER = 8
"""Stations that are asked at once: their answers are some 256 KiB each, and all that a script may
say is 4 MiB."""


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
    rack: Rack, bus: StationBus, stations: Sequence[str], ordered: Mapping[str, str] | None = None
) -> Mapping[str, Collected]:
    """Take every report of ``rack`` that ``stations`` have; what each gave, by its name.

    They are asked together, because the programs of Salt cost the head a second for each question.
    ``ordered`` are the images, by node, that this run ordered: a card that is verified to hold
    another one is not good. Raises HostStorage when the ledger cannot be written: the stations then
    keep their reports.
    """
    key = (known_public_key(rack.folder) or b"").hex()
    found = {name: Collected() for name in stations}
    if key:
        for some in range(0, len(stations), _TOGETHER):
            _collect(rack, bus, key, dict.fromkeys(stations[some : some + _TOGETHER], ()),
                     ordered or {}, found)  # fmt: skip
    return found


def _collect(
    rack: Rack,
    bus: StationBus,
    key: str,
    done: dict[str, tuple[str, ...]],
    ordered: Mapping[str, str],
    found: dict[str, Collected],
) -> None:
    """Bring what the stations in ``done`` give out into ``found``. ``done`` are the names of the
    reports that are in the ledger, by station; who has no more is asked no more."""
    for _ in range(_MOST_ROUNDS):
        answers = _asked(bus, key, done)
        ledger = read_ledger(rack.folder)
        for name, answer in answers.items():
            before = found[name]
            try:
                given = reports_from(answer) if isinstance(answer, JsonObject) else None
                large = [_large(bus, name, key, one) for one in given.large] if given else []
            except JsonFault as error:
                given, answer = None, f"its reports cannot be understood: {printable(str(error))}"
            except PicloudError as error:
                given, answer = None, error.what
            if given is None:
                found[name] = replace(before, fault=str(answer))
                del done[name]
                continue
            reports = (*given.reports, *large)
            settled = list(before.settled)
            for report in reports:
                begun = ledger.state_of(report.node).begun
                held = _held_against(report, ordered.get(report.node))
                one = settle(rack, name, held, begun)
                if one is not None:
                    settled.append(one)
            found[name] = Collected(tuple(settled), given.making, given.over, given.since)
            done[name] = tuple(one.name for one in reports)
            if not reports:
                del done[name]
        if not done:
            return


def _asked(
    bus: StationBus, key: str, done: Mapping[str, tuple[str, ...]]
) -> Mapping[str, JsonObject | str]:
    """What each station answers, or why it does not."""
    own = {name: {"done": list(names)} for name, names in done.items()}
    try:
        answers = bus.ask(list(done), "reports", {"rack": key}, seconds=ASK_SECONDS, own=own)
    except PicloudError as error:
        # The master itself may be away for a while.
        return dict.fromkeys(done, error.what)
    return {
        name: answer.fault if answer.document is None else JsonObject(answer.document)
        for name, answer in answers.items()
    }


def _large(bus: StationBus, station: str, key: str, name: str) -> CardReport:
    """A report that is too large for an answer."""

    def piece(start: int) -> str:
        asked = {"rack": key, "done": [], "large": name, "start": start}
        answer = bus.ask([station], "reports", asked, seconds=ASK_SECONDS)[station]
        if answer.document is None:
            raise NetworkError(answer.fault, hint="see that it is on")
        return JsonObject(answer.document).text("piece")

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


def settle(rack: Rack, station: str, report: CardReport, begun: Assigned | None) -> Settled | None:
    """Write ``report`` into the ledger, which says that ``begun`` is not over, and its receipt
    beside; None where it knows of no such card, or knows its end already."""
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
    collected = collect(rack, bus, stations)
    ledger = read_ledger(rack.folder)
    states = (ledger.state_of(node.name).begun for node in rack.nodes)
    unended = [begun for begun in states if begun is not None]
    for station, found in collected.items():
        settled += found.settled
        its = [begun for begun in unended if begun.station == station]
        if found.fault:
            if its:
                untold[station] = found.fault
            continue
        here = {card.node: card for card in found.making}
        making |= here
        for begun in its:
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


def _is_past(begun: Assigned) -> bool:
    return time.time() - _time_of(begun) > LATEST_SECONDS


def _time_of(begun: Assigned) -> float:
    """0 for what is no time: then nothing is concluded from it."""
    with suppress(ValueError):
        return datetime.fromisoformat(begun.at).timestamp()
    return 0.0

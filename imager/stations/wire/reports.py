"""What a station gives out of its reports, which it keeps until the head says that it has them.

In: CardReports, on the station; JSON from one, on the head. Out: Reports. Salt cuts off what is
larger than 1 MiB, as the report of a card with some 20 GiB of data is: one that is too large for an
answer is only named in it, and asked for in pieces.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.units import KiB
from imager.stations.wire.order import is_name, named, node_named
from imager.stations.wire.report import (
    MOST_RECEIPT_BYTES,
    CardReport,
    report_from,
)
from imager.stations.wire.survey import MOST_CARDS, MOST_TEXT, bounded, short

MOST_AT_ONCE = 256 * KiB
"""Reports are given out until there are so many bytes; the rest when the head asks again."""
PIECE_LETTERS = 512 * KiB
_MOST_JOBS = 1000
_MOST_MAKING = 1000
"""Of several orders: what is not told here is taken for not begun."""
_MOST_TIME = 1e11
_MOST_BYTES = 2 * MOST_RECEIPT_BYTES


@dataclass(frozen=True, slots=True)
class AtDesk:
    """A card that a station is making now, for this rack."""

    batch: str
    node: str
    slot: str


@dataclass(frozen=True, slots=True)
class Reports:
    """What a station gives out of its reports: some of them, the names of others that are ``large``
    and come in pieces, and which cards it is ``making`` now. ``over`` are jobs that nothing more
    comes of. It remembers all that it did ``since`` then (seconds since 1970). ``closed`` are
    batches and jobs of which it begins nothing any more. Reports that are ``unreadable`` are named,
    each with the reason."""

    reports: tuple[CardReport, ...]
    large: tuple[str, ...]
    making: tuple[AtDesk, ...]
    over: tuple[str, ...]
    since: float
    closed: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return {
            "reports": [report.to_json() for report in self.reports],
            "large": list(self.large),
            "making": [asdict(card) for card in self.making],
            "over": list(self.over),
            "since": self.since,
            "closed": list(self.closed),
            "unreadable": dict(self.unreadable),
        }


def given_out(
    reports: Sequence[CardReport], making: Sequence[AtDesk], over: Sequence[str], since: float
) -> Reports:
    """As much of all these as one answer takes; the head asks again for the rest."""
    some: list[CardReport] = []
    large: list[str] = []
    size = 0
    for report in reports[:MOST_CARDS]:
        own = len(json.dumps(report.to_json()))
        if own > MOST_AT_ONCE:
            large.append(report.name)
        elif size + own <= MOST_AT_ONCE:
            some.append(report)
            size += own
    return Reports(
        tuple(some), tuple(large), tuple(making[:_MOST_MAKING]), tuple(over[-_MOST_JOBS:]), since
    )


def reports_from(read: JsonObject) -> Reports:
    """The reports in ``read``; one that is none is ``unreadable``. Raises JsonFault that names the
    field which is wrong, as it does for one without a name."""
    bounded(read.items("reports"), MOST_CARDS, read)
    bounded(read.items("making"), _MOST_MAKING, read)
    unreadable = _reasons(read)
    reports = []
    for one in read.children("reports"):
        name = named(one, "name")
        try:
            reports.append(report_from(one))
        except JsonFault as error:
            unreadable[name] = str(error)[:MOST_TEXT]
    return Reports(
        tuple(reports),
        names_in(read, "large"),
        tuple(
            AtDesk(named(card, "batch"), node_named(card, "node"), short(card, "slot"))
            for card in read.children("making")
        ),
        names_in(read, "over", _MOST_JOBS),
        read.number("since", _MOST_TIME),
        names_in(read, "closed") if "closed" in read else (),  # an older station closes none
        unreadable,
    )


def _reasons(read: JsonObject) -> dict[str, str]:
    if "unreadable" not in read:  # an older station does not say
        return {}
    found = read.child("unreadable")
    bounded(found.values, MOST_CARDS, found)
    return {name: found.text(name)[:MOST_TEXT] for name in found.values if is_name(name)}


def names_in(read: JsonObject, name: str, most: int = MOST_CARDS) -> tuple[str, ...]:
    """A list of names of reports or jobs."""
    found = read.texts(name)
    bounded(found, most, read)
    each: Iterable[JsonObject] = (JsonObject({"name": one}, f"{name}[]") for one in found)
    return tuple(named(one, "name") for one in each)


def piece_of(report: CardReport, start: int) -> str:
    """The letters of ``report`` from number ``start`` on; fewer than ``PIECE_LETTERS`` are the last
    ones. Each call packs it anew, with the same result."""
    text = json.dumps(report.to_json()).encode()
    return base64.b64encode(zlib.compress(text)).decode()[start : start + PIECE_LETTERS]


def report_of_pieces(name: str, piece: Callable[[int], str]) -> CardReport:
    """The report ``name``, of which ``piece`` gives the letters from a number on. Raises JsonFault
    for what is none, and having asked for no more than any report has; else as ``piece``."""
    letters, last = "", PIECE_LETTERS
    while last == PIECE_LETTERS and len(letters) < _MOST_BYTES:
        found = piece(len(letters))
        letters, last = letters + found, len(found)
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(base64.b64decode(letters, validate=True), _MOST_BYTES)
    except (zlib.error, ValueError) as error:
        raise JsonFault(f"report {name}: {error}") from None
    if not unpacker.eof:
        raise JsonFault(f"report {name}: it is cut short, or larger than {_MOST_BYTES} bytes")
    report = report_from(read_object(text))
    if report.name != name:
        raise JsonFault(f"report {name}: it is that of another card")
    return report

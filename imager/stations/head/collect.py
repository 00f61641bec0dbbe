"""What became of cards on stations, brought into the ledger: in this run, or by the next one.

In: reports that stations kept. Out: lines in the ledger and receipts (``settling.py``), each once,
however often the same report comes. One that cannot be taken is named, and holds up no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from imager.base.errors import NetworkError, PicloudError
from imager.base.json_fields import JsonFault, JsonObject
from imager.base.text import printable
from imager.config.rack import Rack
from imager.node.keys.signing import known_public_key
from imager.rack.history.ledger import Ledger, read_ledger
from imager.stations.head.settling import Settled, settle
from imager.stations.wire.bus import Document, StationBus
from imager.stations.wire.order import CLOCK_SECONDS, ORDER_SECONDS
from imager.stations.wire.report import CardReport
from imager.stations.wire.reports import AtDesk, Reports, report_of_pieces, reports_from

ASK_SECONDS = 30.0
LATEST_SECONDS = ORDER_SECONDS + 2 * CLOCK_SECONDS
"""No station begins an order that is older than this by the head's clock."""
_MOST_ROUNDS = 100
_TOGETHER = 8
"""Stations that are asked at once: their answers are some 256 KiB each, and all that a script may
say is 4 MiB."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one station gave out: ``settled`` are the reports that are in the ledger now, ``making``
    what it makes now, ``over`` are jobs that nothing more comes of, ``closed`` batches and jobs of
    which it begins nothing any more. It remembers all that it did ``since`` then (seconds since
    1970). ``untaken`` are nodes whose report cannot be taken, and why. ``fault`` says why it did
    not give everything."""

    settled: tuple[Settled, ...] = ()
    making: tuple[AtDesk, ...] = ()
    over: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    since: float = 0.0
    untaken: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


@dataclass(slots=True)
class _Giver:
    """A station that is asked until it gives nothing new. ``done`` are the names of the reports
    that it may forget, ``aside`` of those that it is to keep to itself, ``ends`` the batches that
    it is to close."""

    name: str
    ends: Sequence[str]
    settled: list[Settled] = field(default_factory=list)
    untaken: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)
    last: Reports | None = None
    fault: str = ""
    is_over: bool = False

    @property
    def question(self) -> Document:
        """What it alone is asked."""
        return {"done": sorted(self.done), "aside": sorted(self.aside), "closed": list(self.ends)}

    def end(self, fault: str) -> None:
        """Ask it no more."""
        self.fault, self.is_over = fault, True

    def collected(self) -> Collected:
        """All that it gave."""
        settled, fault = tuple(self.settled), self.fault
        if self.last is None:
            return Collected(settled, untaken=self.untaken, fault=fault)
        last = self.last
        return Collected(
            settled, last.making, last.over, last.closed, last.since, self.untaken, fault
        )


class _Collection:
    """One collection of the reports of ``rack``."""

    def __init__(self, rack: Rack, bus: StationBus, key: str) -> None:
        self._rack, self._bus, self._key = rack, bus, key

    def ask(self, givers: Iterable[_Giver]) -> None:
        """Take all that they have."""
        for _ in range(_MOST_ROUNDS):
            asked = {giver.name: giver for giver in givers if not giver.is_over}
            if not asked:
                return
            answers = self._answers(asked)
            ledger = read_ledger(self._rack.folder)
            for name, giver in asked.items():
                self._take(giver, answers[name], ledger)

    def _answers(self, asked: Mapping[str, _Giver]) -> Mapping[str, Reports | str]:
        """What each gives, or why it does not."""
        own = {name: giver.question for name, giver in asked.items()}
        what = {"rack": self._key}
        try:
            answers = self._bus.ask(list(asked), "reports", what, seconds=ASK_SECONDS, own=own)
        except PicloudError as error:
            # The master itself may be away for a while.
            return dict.fromkeys(asked, error.what)
        found: dict[str, Reports | str] = {}
        for name, answer in answers.items():
            if answer.document is None:
                found[name] = answer.fault
                continue
            try:
                found[name] = reports_from(JsonObject(answer.document))
            except JsonFault as error:
                found[name] = f"its reports cannot be understood: {printable(str(error))}"
        return found

    def _take(self, giver: _Giver, given: Reports | str, ledger: Ledger) -> None:
        if isinstance(given, str):
            giver.end(given)
            return
        giver.last = given
        known = giver.done | giver.aside
        giver.done = set()
        for report in given.reports:
            self._settle(giver, report, ledger)
        for name, why in given.unreadable.items():
            self._leave(giver, name, why, ledger)
        for name in given.large:
            if name not in giver.aside:
                self._take_large(giver, name, ledger)
        giver.is_over = giver.done | giver.aside <= known

    def _settle(self, giver: _Giver, report: CardReport, ledger: Ledger) -> None:
        one = settle(self._rack, giver.name, report, ledger.state_of(report.node).begun)
        if one is not None:
            giver.settled.append(one)
        giver.done.add(report.name)

    def _leave(self, giver: _Giver, name: str, why: str, ledger: Ledger) -> None:
        """Leave the report there, where the ledger waits for it."""
        node = _awaited(ledger, giver.name, name)
        if node is None:
            giver.done.add(name)
            return
        giver.aside.add(name)
        giver.untaken[node] = printable(why)

    def _take_large(self, giver: _Giver, name: str, ledger: Ledger) -> None:
        """Take a report that is too large for an answer, unless nobody waits for it."""
        if _awaited(ledger, giver.name, name) is None:
            giver.done.add(name)
            return

        def piece(start: int) -> str:
            asked = {"rack": self._key, "done": [], "large": name, "start": start}
            names = [giver.name]
            answer = self._bus.ask(names, "reports", asked, seconds=ASK_SECONDS)[giver.name]
            if answer.document is None:
                raise NetworkError(answer.fault, hint="see that it is on")
            return JsonObject(answer.document).text("piece")

        try:
            report = report_of_pieces(name, piece)
        except JsonFault as error:
            self._leave(giver, name, str(error), ledger)
        except PicloudError as error:
            # It may come the next time.
            giver.aside.add(name)
            giver.fault = error.what
        else:
            self._settle(giver, report, ledger)


def collect(
    rack: Rack,
    bus: StationBus,
    stations: Sequence[str],
    ended: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, Collected]:
    """Take every report of ``rack`` that ``stations`` have; what each gave, by its name.

    They are asked together, because the programs of Salt cost the head a second for each question.
    ``ended`` are batches and jobs, by station, of which nobody waits for an order any more: the
    station closes them. Raises HostStorage when the ledger cannot be written: the stations then
    keep their reports.
    """
    key = (known_public_key(rack.folder) or b"").hex()
    givers = [_Giver(name, (ended or {}).get(name, ())) for name in stations]
    if key:
        collection = _Collection(rack, bus, key)
        for some in range(0, len(givers), _TOGETHER):
            collection.ask(givers[some : some + _TOGETHER])
    return {giver.name: giver.collected() for giver in givers}


def _awaited(ledger: Ledger, station: str, name: str) -> str | None:
    """The node of the report ``name``, if the ledger waits for it."""
    job, _, node = name.rpartition("+")
    begun = ledger.state_of(node).begun
    if begun is None or begun.station != station or job.rpartition(".")[0] != begun.batch:
        return None
    return node

"""The cards of many stations in one batch: begun, watched, collected, whatever fails meanwhile.

In: groups of jobs, each for one station; more can be added at any time. Out: a result for each job,
and a line in the ledger for all but those whose station cannot be asked: of these the ledger knows
that they were begun, and the next run asks. Progress is heard as events, which may be lost; what
counts are the reports, which are collected.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from imager.base.errors import ConfigurationError, Interrupted, NetworkError
from imager.base.json_fields import JsonFault, JsonObject
from imager.image.compose.golden import GoldenImage
from imager.rack.batch.card_progress import CardBoard, CardEvent, Moment, Said
from imager.rack.batch.crew import Orders
from imager.rack.batch.workers import CardResult, Watch, known_error
from imager.rack.history.ledger import read_ledger
from imager.rack.history.outcome import Outcome, outcome_of
from imager.stations.head.asking import Asking
from imager.stations.head.collect import LATEST_SECONDS, Collected
from imager.stations.head.line import FOLLOW_SECONDS, Line
from imager.stations.head.lookouts import Lookouts
from imager.stations.head.ordered_cards import OrderedCards
from imager.stations.head.prepare import prepare
from imager.stations.head.remote import RemoteJob
from imager.stations.head.results import result_of_report, unknown
from imager.stations.head.settling import not_begun
from imager.stations.wire.bus import StationBus, StationSaid
from imager.stations.wire.report import StationProgress, progress_from
from imager.stations.wire.survey import Survey

GIVE_UP_SECONDS = 300.0
"""One that does not answer for so long is given up: its cards are unknown."""
STOPPED_SECONDS = 60.0
"""The same, once a person stopped the batch."""
_TURN_SECONDS = 0.2
_THE_REST = "run the same command again for the rest"


class StationCrew:
    """The cards of one batch on stations; for one thread only."""

    def __init__(
        self,
        orders: Orders,
        watch: Watch,
        bus: StationBus,
        surveys: Mapping[str, Survey],
        publish: Callable[[GoldenImage], None],
        lookouts: Lookouts | None = None,
    ) -> None:
        """``surveys`` say which golden images each station has, and may change meanwhile;
        ``publish`` makes one readable for the others, and may be called by several threads at
        once."""
        self._orders, self._watch, self._bus = orders, watch, bus
        self._surveys, self._publish, self._lookouts = surveys, publish, lookouts
        self._preparers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prepare")
        self._reports = Asking(orders.rack, bus)
        self._told: queue.SimpleQueue[tuple[RemoteJob, CardEvent]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._lines: dict[str, Line] = {}
        self._groups: dict[str, OrderedCards] = {}
        self._boards: dict[str, CardBoard] = {}
        self._moments: dict[str, Moment] = {}
        self._stopped_at: float | None = None
        self._count = 0
        self.results: list[CardResult] = []

    @property
    def is_busy(self) -> bool:
        """Whether any card has not ended."""
        return bool(self._groups)

    @property
    def at_work(self) -> tuple[str, ...]:
        """See AtWork."""
        return tuple(name for group in self._groups.values() for name in group.jobs)

    def moment(self, name: str) -> Moment | None:
        """See AtWork."""
        if name in self._moments:
            return self._moments[name]
        board = self._boards.get(name)
        return board.moment() if board is not None else None

    def add(self, jobs: Sequence[RemoteJob]) -> None:
        """Order the cards ``jobs``; those of one station and one golden image go together."""
        groups: dict[tuple[str, str], list[RemoteJob]] = {}
        for job in jobs:
            key = self._orders.golden_of(job.node).image.key
            groups.setdefault((job.station, key), []).append(job)
        for (station, _), its in groups.items():
            self._count += 1
            self._add(f"{self._orders.batch}.{self._count}", station, its)

    def _add(self, name: str, station: str, jobs: Sequence[RemoteJob]) -> None:
        orders = self._orders
        if station not in self._lines:
            self._lines[station] = Line(station, self._bus, orders, self._publish)
        preparing = {}
        for job in jobs:
            self._watch.began(job)
            board = CardBoard(partial(self._report, job), self._stop)
            self._boards[job.name] = board
            preparing[job.name] = self._preparers.submit(
                prepare,
                job,
                orders.golden_of(job.node),
                orders.rack,
                f"{name}+{job.name}",
                board,
            )
        golden = orders.golden_of(jobs[0].node).image
        named = {job.name: job for job in jobs}
        self._groups[name] = OrderedCards(name, self._lines[station], golden, named, preparing)

    def _report(self, job: RemoteJob, event: CardEvent) -> None:
        """In the thread that prepares ``job``."""
        self._told.put((job, event))

    def turn(self, seconds: float = _TURN_SECONDS) -> None:
        """Go on with everything for about ``seconds``, and show what happened."""
        until = time.monotonic() + seconds
        try:
            for said in self._bus.heard(seconds):
                self._hear(said)
        except NetworkError as error:
            # The master was started anew, perhaps. The bars stand still; reports are collected.
            deaf = Said(f"{error.what}; how its card ended is asked for", warning=True)
            for group in self._groups.values():
                group.line.nudged = True
                for job in group.jobs.values():
                    self._watch.heard(job, deaf)
        # A bus to which nobody listens yet does not wait.
        time.sleep(max(0.0, min(seconds, until - time.monotonic())))
        while not self._told.empty():
            self._watch.heard(*self._told.get())
        for group in list(self._groups.values()):
            self._go_on(group)
        self._follow()
        self._collect()
        for group in list(self._groups.values()):
            if not group.jobs:
                del self._groups[group.name]
        self._watch.turn(self)

    def stop(self) -> None:
        """Stop every card as Ctrl-C would; the caller goes on calling ``turn``."""
        if self._stopped_at is not None:
            return
        self._stopped_at = time.monotonic()
        self._stop.set()
        for line in self._lines.values():
            line.stop()

    def close(self) -> None:
        """Take back what was handed over. What stations began they finish, and the next run
        collects."""
        self._stop.set()
        self._preparers.shutdown(cancel_futures=True)
        self._reports.close()
        for line in self._lines.values():
            line.close()

    # ── one group of cards ──────────────────────────────────────────────────────────────────

    def _go_on(self, group: OrderedCards) -> None:
        if group.ordering is None:
            self._order(group)
        elif group.ordering.done() and group.told_at == math.inf:
            group.told_at = time.monotonic()
            error = group.ordering.exception()
            # Once it was asked, it may have been told whatever went wrong: its reports say.
            if error is not None and group.name not in group.line.asked:
                known = known_error(error)
                group.refused = (known.what, known.hint)

    def _order(self, group: OrderedCards) -> None:
        """Order the cards of ``group`` once all are prepared; one that cannot be is none of it."""
        if not all(future.done() for future in group.preparing.values()):
            return
        cards = []
        for name, future in group.preparing.items():
            error = future.exception()
            if error is None and self._stop.is_set():
                error = Interrupted(f"{name}: not begun", hint=_THE_REST)
            if error is None:
                cards.append(future.result())
            else:
                result = CardResult(group.jobs[name], outcome_of(error), error=known_error(error))
                self._end(group, name, result)
        group.preparing = {}
        if cards:
            group.line.heard_at = time.monotonic()
            survey = self._surveys.get(group.line.station)
            group.ordering = group.line.begin(group.name, cards, group.golden, survey)

    def _hear(self, said: StationSaid) -> None:
        """What a station says counts for jobs of its own."""
        document, line = JsonObject(said.document), self._lines.get(said.station)
        if self._lookouts is not None and document.values.get("event") == "cards":
            self._lookouts.hear(said.station, changed=document.values.get("changed") is True)
            return
        if line is None:
            return
        line.heard_at = time.monotonic()
        if document.values.get("event") != "progress":
            # The last line of an order, for one.
            line.nudged = True
            over = self._groups.get(str(document.values.get("job")))
            if over is not None and over.line is line:
                over.ended = (time.monotonic(), str(document.values.get("fault")))
            return
        with suppress(JsonFault):
            progress = progress_from(document)
            group = self._groups.get(progress.job)
            if group is not None and group.line is line:
                self._show(group, progress)

    def _show(self, group: OrderedCards, progress: StationProgress) -> None:
        for one in progress.moments:
            if one.node in group.jobs:
                self._moments[one.node] = one.moment
        for told in progress.told:
            if told.node in group.jobs:
                self._watch.heard(group.jobs[told.node], told.event)
        group.spoke, group.line.patience = True, FOLLOW_SECONDS
        group.line.take_back(group.name)
        if progress.fault:
            group.refused = (f"{group.line.station}: {progress.fault}", progress.hint)
        if progress.fault or progress.ended:
            group.line.nudged = True

    def _follow(self) -> None:
        """Have those speak anew that fell silent."""
        now = time.monotonic()
        for line in self._lines.values():
            silent = now - max(line.heard_at, line.followed_at)
            if silent > line.patience and self._ordered(line):
                line.follow()

    # ── reports ─────────────────────────────────────────────────────────────────────────────

    def _collect(self) -> None:
        """Take what was collected, and ask those who have something."""
        for line, found in self._reports.taken():
            self._collected(line, self._ordered(line), found)
        self._reports.ask({line: self._ordered(line) for line in self._lines.values()})

    def _ordered(self, line: Line) -> list[OrderedCards]:
        return [one for one in self._groups.values() if one.line is line and one.ordering]

    def _collected(self, line: Line, groups: Sequence[OrderedCards], found: Collected) -> None:
        for one in found.settled:
            for group in groups:
                if one.report.batch == self._orders.batch and one.report.node in group.jobs:
                    job = group.jobs[one.report.node]
                    self._end(group, job.name, result_of_report(job, one))
        for group in groups:
            for name in [name for name in group.jobs if name in found.untaken]:
                what = f"{line.station}: its report cannot be taken: {found.untaken[name]}"
                self._end(group, name, unknown(group.jobs[name], what))
        now = time.monotonic()
        if found.fault:
            self._without_answer(line, groups, found.fault, now)
            return
        line.heard_at = now
        making = {card.node for card in found.making if card.batch == self._orders.batch}
        for group in groups:
            never = group.refused
            if group.ended is not None and line.collected_at > group.ended[0]:
                # It was asked after that, so it has told of every card that was begun.
                never = never or (f"{line.station} never began it: {group.ended[1]}", _THE_REST)
            is_over = group.name in found.over or group.name in found.closed
            if is_over or now - group.told_at > LATEST_SECONDS:
                never = never or (f"{line.station} never began it", _THE_REST)
            if never is not None:
                for name in [name for name in group.jobs if name not in making]:
                    self._not_begun(group, name, *never)

    def _without_answer(
        self, line: Line, groups: Sequence[OrderedCards], fault: str, now: float
    ) -> None:
        since, patience = line.heard_at, GIVE_UP_SECONDS
        if self._stopped_at is not None:
            since, patience = max(since, self._stopped_at), STOPPED_SECONDS
        if now - since > patience:
            for group in groups:
                for name, job in list(group.jobs.items()):
                    what = f"{line.station} cannot be asked what became of it: {fault}"
                    self._end(group, name, unknown(job, what))

    def _not_begun(self, group: OrderedCards, name: str, what: str, hint: str) -> None:
        """The card is as it was."""
        rack, station = self._orders.rack, group.line.station
        begun = read_ledger(rack.folder).state_of(name).begun
        if begun is not None and (begun.station, begun.batch) == (station, self._orders.batch):
            not_begun(rack, begun, Outcome.FAILED, what, hint)
        error = ConfigurationError(what, hint=hint)
        self._end(group, name, CardResult(group.jobs[name], Outcome.FAILED, error=error))

    def _end(self, group: OrderedCards, name: str, result: CardResult) -> None:
        del group.jobs[name]
        self._moments.pop(name, None)
        self._boards.pop(name, None)
        self.results.append(result)
        self._watch.ended(result)

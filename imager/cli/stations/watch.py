"""``rack watch --stations``: cards that are put in at any desk, as if it were this computer's.

In: stations. Out: for the flashing station, who makes the cards, and which come and go. Stations
are asked what is in their readers when one of them says that something changed, and every few
seconds where one does not say so by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from imager.base.cache import Cache
from imager.base.errors import TargetRefused
from imager.cli.stations.head import Stations, job_of
from imager.rack.batch.crew import Orders
from imager.rack.batch.station import Station, Teller, name_of
from imager.rack.batch.workers import CardResult, Stop, Watch
from imager.rack.plan.candidates import Unfit
from imager.rack.plan.plan import PlannedCard
from imager.rack.plan.survey import GoldenImages
from imager.stations.head.crew import StationCrew
from imager.stations.head.flash import Head, begun_on_stations
from imager.stations.head.lookouts import Lookouts
from imager.stations.head.remote import RemoteCard
from imager.stations.head.roll_call import RollCall
from imager.stations.wire.survey import Survey

POLL_SECONDS = 5.0
SELDOM_SECONDS = 60.0
"""Where all say by themselves when a card is put in."""


class StationReaders:
    """The readers of all stations. Only one thread may use it."""

    def __init__(self, stations: Stations, orders: Orders, images: GoldenImages) -> None:
        self._stations, self._orders, self._images = stations, orders, images
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="roll call")
        self._asking: Future[RollCall] | None = None
        self._asked_at = 0.0
        self._told: dict[str, tuple[str, int, str]] = {}
        self._unfit: dict[str, Unfit] = {}
        self._absent: dict[str, str] = {}
        self.lookouts = Lookouts(stations.bus, stations.names)
        self.surveys: dict[str, Survey] = {}
        self.cards: dict[str, RemoteCard] = {}

    def tell(self, station: Station, teller: Teller, seconds: float) -> None:
        """See Readers (``imager.cli.rack.station``)."""
        del seconds  # the crew waits for what stations say
        if self.surveys or self._absent:  # who was asked has a token to speak with
            self.lookouts.keep()
        if self._asking is not None and self._asking.done():
            asking, self._asking = self._asking, None
            with suppress(TargetRefused):  # none of them answers now: perhaps later
                self._compare(asking.result(), station, teller)
        if self._asking is None and time.monotonic() - self._asked_at >= self._patience():
            self._asked_at = time.monotonic()
            self.lookouts.has_news = False
            orders = self._orders
            self._asking = self._asker.submit(
                self._stations.roll, orders.rack, self._images, orders.limits
            )

    def _patience(self) -> float:
        """Seconds from one question to the next."""
        lookouts = self.lookouts
        is_calm = lookouts.cover(self._absent) and not lookouts.has_news
        return SELDOM_SECONDS if is_calm else POLL_SECONDS

    def close(self) -> None:
        """Ask no more."""
        self.lookouts.close()
        self._asker.shutdown(cancel_futures=True)

    def _compare(self, roll: RollCall, station: Station, teller: Teller) -> None:
        self.surveys |= roll.surveys
        self.cards |= roll.cards
        here = {name_of(one.target): one for one in roll.candidates}
        for name in [name for name in self._told if name not in here]:
            if name.partition(":")[0] in roll.surveys:
                del self._told[name]
                station.gone(name)
        for name, candidate in here.items():
            facts = candidate.target.facts
            identity = (facts.path, facts.diskseq, facts.cid)
            if self._told.get(name) != identity:
                self._told[name] = identity
                station.came(candidate)
        for unfit in roll.unfit:
            if self._unfit.get(unfit.target.node) != unfit:
                self._unfit[unfit.target.node] = unfit
                teller.refused(unfit)
        for name, why in roll.absent.items():
            if self._absent.get(name) != why:
                teller.absent(name, why)
        self._absent = dict(roll.absent)


class Shift:
    """The crew of stations, for a flashing station whose cards are theirs."""

    def __init__(self, crew: StationCrew, readers: StationReaders) -> None:
        self._crew, self._readers = crew, readers

    @property
    def is_busy(self) -> bool:
        """See Makers."""
        return self._crew.is_busy

    @property
    def busy(self) -> tuple[str, ...]:
        """See Makers."""
        return self._crew.at_work

    @property
    def results(self) -> list[CardResult]:
        """How each card ended."""
        return self._crew.results

    def make(self, step: PlannedCard) -> None:
        """See Makers."""
        self._crew.add([job_of(step, self._readers.cards)])

    def turn(self, seconds: float) -> None:
        """Go on for ``seconds``."""
        self._crew.turn(seconds)

    def stop(self) -> None:
        """Stop every card."""
        self._crew.stop()


@contextmanager
def shift_on_stations(
    cache: Cache,
    orders: Orders,
    stations: Stations,
    readers: StationReaders,
    nodes: Sequence[str],
    watch: Watch,
) -> Iterator[tuple[Shift, Stop]]:
    """Who makes the cards; a batch in the ledger, until the block ends."""
    head = Head(stations.bus, readers.surveys, cache, readers.lookouts)
    try:
        with begun_on_stations(orders, nodes, watch, head) as (crew, stopped):
            yield Shift(crew, readers), stopped
    finally:
        readers.close()

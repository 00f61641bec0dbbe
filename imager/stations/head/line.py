"""Everything the head does with one station, one thing after the other and beside the others.

In: prepared cards. Out: an order that the station has, assigned in the ledger before; reports. Each
call waits for Salt, so it runs in the line's own thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from imager.base.errors import Interrupted, PicloudError
from imager.base.programs import tool_version
from imager.image.compose.golden import GoldenImage
from imager.node.keys.signing import rack_key
from imager.rack.batch.crew import Orders
from imager.rack.history.events import Assigned, now
from imager.rack.history.ledger import append
from imager.stations.head.prepare import Prepared
from imager.stations.wire.bus import StationBus
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.made_of import made_of
from imager.stations.wire.order import WorkOrder
from imager.stations.wire.survey import Survey

STOP_SECONDS = 20.0
FOLLOW_SECONDS = 5.0
"""One at work that was not heard for so long is asked to speak anew: whom its program told how far
it is may be gone, as a minion is that was killed. If in vain, the next time later."""
_MOST_PATIENCE_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class Line:
    """``publish(golden)`` makes an image readable for the station. ``heard_at`` is when it last
    said anything (seconds of a monotonic clock), ``collected_at`` when its reports were last asked
    for, ``nudged`` whether it has something to collect. ``asked`` are the jobs of which it may have
    been told. It may be silent for ``patience`` seconds, and for ever before it has said how far it
    is; ``followed_at`` is when it was last asked to say that anew."""

    station: str
    bus: StationBus
    orders: Orders
    publish: Callable[[GoldenImage], None]
    heard_at: float = field(default_factory=time.monotonic)
    collected_at: float = field(default_factory=time.monotonic)
    nudged: bool = False
    patience: float = math.inf
    followed_at: float = 0.0
    asked: set[str] = field(default_factory=set)
    _stopped: bool = False
    _following: Future[None] | None = None
    _handed: dict[str, list[str]] = field(default_factory=dict)
    _thread: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"line to {self.station}")

    def begin(
        self, job: str, cards: Sequence[Prepared], golden: GoldenImage, survey: Survey | None
    ) -> Future[None]:
        """Assign ``cards`` in the ledger, hand over their deltas, and have the station begin. What
        it said last, ``survey``, tells whether it has ``golden``, or can make it."""
        return self._thread.submit(self._begin, job, cards, golden, survey)

    def stop(self) -> None:
        """Ask the station to stop every card of this batch, and order no more."""
        self._stopped = True
        asked = {"batch": self.orders.batch}
        self._thread.submit(self.bus.ask, [self.station], "stop", asked, seconds=STOP_SECONDS)

    def follow(self) -> None:
        """Have the station say anew how far this batch is, if its program is heard by nobody."""
        self.followed_at = time.monotonic()
        self.patience = min(1.5 * self.patience, _MOST_PATIENCE_SECONDS)
        if self._following is None or self._following.done():
            asked = {"batch": self.orders.batch}
            self._following = self._thread.submit(self.bus.begin, self.station, "follow", asked)

    def take_back(self, job: str) -> None:
        """Take back the deltas of ``job``, which the station has; those of a job that it has not
        read yet stay."""
        if job in self._handed:
            self._thread.submit(self._take_back, job)

    def close(self) -> None:
        """Wait for what is being done, begin nothing more, and take back every delta."""
        self._thread.shutdown(cancel_futures=True)
        for job in list(self._handed):
            self._take_back(job)

    def _begin(
        self, job: str, cards: Sequence[Prepared], golden: GoldenImage, survey: Survey | None
    ) -> None:
        orders = self.orders
        wanted, its = wanted_golden(golden), None
        if survey is None or survey.goldens.get(wanted.key) != wanted.digest:
            if survey is not None and wanted.key in survey.makes:
                its = made_of(golden)
            if its is None:
                self.publish(golden)
        if self._stopped:
            raise Interrupted("not begun", hint="run the same command again for the rest")
        key = rack_key(orders.rack)
        for card in cards:
            append(orders.rack.folder, self._assigned(card, golden))
        for card in cards:
            self._handed.setdefault(job, []).append(card.work.secret)
            self.bus.hand(self.station, card.work.secret, card.delta)
        order = WorkOrder(
            job=job,
            batch=orders.batch,
            rack=key.public.hex(),
            version=tool_version(),
            at=time.time(),
            golden=wanted,
            cards=tuple(card.work for card in cards),
            update=orders.update,
            probe=orders.probe,
            at_once=orders.at_once,
            max_size_bytes=orders.limits.max_size_bytes,
            made_of=its,
        )
        secrets = [card.work.secret for card in cards]
        self.asked.add(job)
        self.bus.begin(self.station, "work", order.to_json(), secrets)

    def _take_back(self, job: str) -> None:
        for secret in self._handed.pop(job, ()):
            with suppress(PicloudError):
                self.bus.take_back(self.station, secret)

    def _assigned(self, card: Prepared, golden: GoldenImage) -> Assigned:
        facts = card.job.target.facts
        return Assigned(
            at=now(),
            batch=self.orders.batch,
            node=card.job.name,
            target=card.job.target.node,
            slot=card.job.slot,
            card_size_bytes=facts.size_bytes,
            model=facts.model,
            serial=facts.serial,
            cid=facts.cid,
            diskseq=facts.diskseq,
            station=self.station,
            image_id=card.work.image_id,
            recipe=card.work.recipe,
            release_sha256=golden.release_sha256,
        )

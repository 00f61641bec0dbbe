"""When stations are asked for their reports, and which of them together.

In: the lines to all stations, with the orders that each has. Out: what they gave. Each question
waits for a program of Salt, so it is asked in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from imager.config.rack import Rack
from imager.stations.head.collect import Collected, collect
from imager.stations.head.line import Line
from imager.stations.head.ordered_cards import OrderedCards
from imager.stations.wire.bus import StationBus

QUIET_SECONDS = 20.0
"""A station that was not heard for so long is asked for its reports."""
LOST_SECONDS = 120.0
"""An order of which nothing was heard for so long is taken back, unless it was begun. A desk that
is busy, or slow, takes a good part of a minute until its program runs."""
_LEAST_SECONDS = 2.0
"""Between two collections of one station."""
_MOST_COLLECTING = 3
"""Questions at once; who has something meanwhile is asked together with others after them."""


class Asking:
    """The questions for reports of one batch of ``rack``; for one thread only."""

    def __init__(self, rack: Rack, bus: StationBus) -> None:
        self._rack, self._bus = rack, bus
        self._collectors = ThreadPoolExecutor(_MOST_COLLECTING, thread_name_prefix="collect")
        self._asked: dict[Future[Mapping[str, Collected]], tuple[Line, ...]] = {}

    def taken(self) -> Iterator[tuple[Line, Collected]]:
        """What stations gave since the last time."""
        for future, lines in list(self._asked.items()):
            if future.done():
                del self._asked[future]
                for line in lines:
                    yield line, future.result()[line.station]

    def ask(self, orders: Mapping[Line, Sequence[OrderedCards]]) -> None:
        """Ask those who have something, and those who were silent for long."""
        told: list[Line] = []
        quiet: list[Line] = []
        now = time.monotonic()
        busy = [line for lines in self._asked.values() for line in lines]
        for line, its in orders.items():
            if not its or line in busy or now - line.collected_at < _LEAST_SECONDS:
                continue
            if line.nudged or any(one.refused for one in its):
                told.append(line)
            elif now - max(line.heard_at, line.collected_at) >= QUIET_SECONDS:
                quiet.append(line)
        # Who is silent holds up those who are asked beside it.
        for lines in (told, quiet):
            if lines and len(self._asked) < _MOST_COLLECTING:
                self._ask({line: orders[line] for line in lines}, now)

    def close(self) -> None:
        """Ask no more, and wait for what was asked."""
        self._collectors.shutdown(cancel_futures=True)

    def _ask(self, orders: Mapping[Line, Sequence[OrderedCards]], now: float) -> None:
        lost: dict[str, list[str]] = {}
        for line, its in orders.items():
            line.collected_at, line.nudged = now, False
            for one in its:
                if now - one.told_at > LOST_SECONDS and not one.spoke:
                    lost.setdefault(line.station, []).append(one.name)
        names = [line.station for line in orders]
        future = self._collectors.submit(collect, self._rack, self._bus, names, lost)
        self._asked[future] = tuple(orders)

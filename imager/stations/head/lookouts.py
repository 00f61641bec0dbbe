"""Stations that say by themselves when cards come and go, so that they are asked more seldom.

In: stations, and what they say. Out: whether all may be asked seldom, and whether one has something
new. Each question to stations is a program of Salt on the master, which runs for a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from imager.stations.wire.bus import StationBus

LOOKOUT_SECONDS = 300
"""A lookout ends then, for its head may be gone; another one begins a little before."""
_EARLIER_SECONDS = 30
_STALE_SECONDS = 15.0
"""A lookout says something every five seconds."""
_AGAIN_SECONDS = 20.0


class Lookouts:
    """A lookout on each of ``stations``. Only one thread may use it."""

    def __init__(self, bus: StationBus, stations: Sequence[str]) -> None:
        self._bus, self._stations = bus, stations
        self._heard: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._beginner = ThreadPoolExecutor(1, thread_name_prefix="lookouts")
        self.has_news = False
        """Whether cards came or went; for who asks to set back."""

    def hear(self, station: str, *, changed: bool) -> None:
        """Its lookout says whether cards came or went. One that was not heard for a while may have
        missed some."""
        self.has_news |= changed or not self._is_heard(station)
        self._heard[station] = time.monotonic()

    def cover(self, absent: Collection[str]) -> bool:
        """Whether all say by themselves what is new, but for those that are ``absent``."""
        return all(name in absent or self._is_heard(name) for name in self._stations)

    def keep(self) -> None:
        """Begin a lookout where there is none, or soon will be none."""
        now = time.monotonic()
        for name in self._stations:
            age = now - self._begun.get(name, -math.inf)
            is_ending = age > LOOKOUT_SECONDS - _EARLIER_SECONDS
            if is_ending or (age > _AGAIN_SECONDS and not self._is_heard(name)):
                self._begun[name] = now
                asked = {"seconds": LOOKOUT_SECONDS}
                self._beginner.submit(self._bus.begin, name, "lookout", asked)

    def close(self) -> None:
        """Begin no more."""
        self._beginner.shutdown(cancel_futures=True)

    def _is_heard(self, station: str) -> bool:
        return time.monotonic() - self._heard.get(station, -math.inf) < _STALE_SECONDS

"""How many cards to write at a time: as many as the bus bears, and no more.

In: which cards move bytes, and how many. Out: whether one more may begin. Cards on one USB root
port share its wire: beyond some number each one more only makes the others slower, and a failing
reader then holds up all of them. That number is not written on any hub, so it is found out: twice
as many are let in for as long as that makes the sum of their rates grow. Cards elsewhere (built-in
slots, files) share nothing we know of.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FIRST = 4
"""Cards that begin at once on one port: three fill a USB 2 port, and on USB 3 they are few."""
WINDOW_SECONDS = 3.0
GROWTH = 1.15
"""Twice the cards on a wire with room give nearly twice the sum; noise alone is not growth."""


@dataclass(slots=True)
class _Port:
    """One wire: how many may use it, and what was measured with how many."""

    allowed: int = FIRST
    settled: bool = False
    best_rate: float = 0.0
    since: float | None = None
    moved: int = 0
    moving: set[str] = field(default_factory=set)

    def look(self, now: float) -> None:
        if self.settled or len(self.moving) < self.allowed:
            # Fewer cards than allowed prove nothing about the wire.
            self.since, self.moved = None, 0
        elif self.since is None:
            self.since, self.moved = now, 0
        elif now - self.since >= WINDOW_SECONDS:
            self._judge(self.moved / (now - self.since))
            self.since = None

    def _judge(self, rate: float) -> None:
        if rate >= self.best_rate * GROWTH:
            self.best_rate = rate
            self.allowed *= 2
        else:
            self.allowed //= 2
            self.settled = True


class Limiter:
    """Knows who is at work. Not for several threads: the one that starts the work asks it."""

    def __init__(self, jobs: int | None = None) -> None:
        """``jobs`` is the most a person wants at a time, whatever the bus bears."""
        self._jobs = jobs
        self._at_work: dict[str, str | None] = {}
        self._ports: dict[str, _Port] = {}

    def may_begin(self, port: str | None) -> bool:
        """Whether a card behind ``port`` may begin now."""
        if self._jobs is not None and len(self._at_work) >= self._jobs:
            return False
        if port is None:
            return True
        return Counter(self._at_work.values())[port] < self._port(port).allowed

    def began(self, card: str, port: str | None) -> None:
        """``card`` is at work from now on."""
        self._at_work[card] = port

    def moved(self, card: str, size_bytes: int) -> None:
        """``card`` wrote or read so many bytes since the last time."""
        port = self._at_work.get(card)
        if port is not None and size_bytes:
            self._port(port).moving.add(card)
            self._port(port).moved += size_bytes

    def ended(self, card: str) -> None:
        """``card`` is done, one way or the other."""
        port = self._at_work.pop(card, None)
        if port is not None:
            self._port(port).moving.discard(card)

    def look(self, now: float) -> None:
        """Judge every port by what moved until ``now`` (seconds of any steady clock)."""
        for port in self._ports.values():
            port.look(now)

    def allowed(self, port: str) -> int:
        """How many cards may be at work behind ``port``."""
        return self._port(port).allowed

    def _port(self, name: str) -> _Port:
        return self._ports.setdefault(name, _Port())

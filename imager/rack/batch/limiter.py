"""How many cards to write at the same time: as many as the USB connection can carry.

In: which cards move bytes, and how many. Out: whether one more may begin. Cards on one USB root
port share its connection: above some number each additional card only makes the others slower, and
one bad reader delays all. That number depends on the hubs, so it is measured: twice as many cards
are allowed for as long as that makes the sum of their rates grow. Cards elsewhere (built-in slots,
files) share no connection that we know of.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FIRST = 4
"""How many cards may begin at once on a port: three fill a USB 2 port; for USB 3 it is few."""
WINDOW_SECONDS = 3.0
GROWTH = 1.15
"""The sum of the rates must grow by this factor. With free capacity twice the cards give nearly
twice the sum; a small growth may be chance."""


@dataclass(slots=True)
class _Port:
    """One root port: how many cards may use it, and the rate measured with how many."""

    allowed: int = FIRST
    settled: bool = False
    best_rate: float = 0.0
    since: float | None = None
    moved: int = 0
    moving: set[str] = field(default_factory=set)

    def look(self, now: float) -> None:
        if self.settled or len(self.moving) < self.allowed:
            # With fewer cards than allowed nothing can be said about the limit.
            self.since = None
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
    """Knows which cards are being written. For one thread only, the one that starts the work."""

    def __init__(self, jobs: int | None = None) -> None:
        """``jobs`` is the most cards at a time that the person wants; None for no such limit."""
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
        """Count ``card`` as being written from now on."""
        self._at_work[card] = port

    def moved(self, card: str, size_bytes: int) -> None:
        """``card`` wrote or read so many bytes since the last time."""
        port = self._at_work.get(card)
        if port is not None and size_bytes:
            self._port(port).moving.add(card)
            self._port(port).moved += size_bytes

    def ended(self, card: str) -> None:
        """``card`` is finished, or has failed."""
        port = self._at_work.pop(card, None)
        if port is not None:
            self._port(port).moving.discard(card)

    def look(self, now: float) -> None:
        """Adjust each port's limit by what moved until ``now`` (seconds of a monotonic clock)."""
        for port in self._ports.values():
            port.look(now)

    def allowed(self, port: str) -> int:
        """How many cards may be written at a time behind ``port``."""
        return self._port(port).allowed

    def _port(self, name: str) -> _Port:
        return self._ports.setdefault(name, _Port())

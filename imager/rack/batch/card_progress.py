"""What the workers report about their cards, so that one thread can show all of them.

In: phases and notes, from the threads that do the work. Out: events in the order in which they
happened, and at any time how far each card is. A batch is stopped here too: after the stop, the
next report of a card raises KeyboardInterrupt, as Ctrl-C would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.progress import FindingData, Phase


@dataclass(frozen=True, slots=True)
class PhaseBegan:
    """A phase of ``total_bytes``, where that is known."""

    phase: str
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A phase has ended, or has ``failed``."""

    phase: str
    done_bytes: int
    total_bytes: int | None
    seconds: float
    failed: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A note, or a ``warning``."""

    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class FindingReported:
    """Something wrong with the card, as data."""

    finding: FindingData


CardEvent = PhaseBegan | PhaseEnded | Said | FindingReported


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a card is: its present ``phase`` (empty between two phases), and how many bytes were
    moved so far, of ``expected_bytes`` if nothing goes wrong (0 while that is not known)."""

    phase: str
    done_bytes: int
    total_bytes: int | None
    phase_seconds: float
    moved_bytes: int
    expected_bytes: int

    @property
    def bytes_per_second(self) -> float:
        """The mean rate of the present phase."""
        return self.done_bytes / self.phase_seconds if self.phase_seconds > 0 else 0.0

    @property
    def share(self) -> float:
        """The part of all its work that is done, from 0 to 1."""
        if not self.expected_bytes:
            return 0.0
        # What is read a second time, or probed, was not expected.
        return min(0.99, self.moved_bytes / self.expected_bytes)

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the present rate; None while there is no rate."""
        if not self.done_bytes:
            return None
        left = max(0, self.expected_bytes - self.moved_bytes)
        return left / max(1.0, self.bytes_per_second)


class _BatchCounter:
    def __init__(self, board: CardBoard, name: str, total_bytes: int | None) -> None:
        self.name, self.total_bytes = name, total_bytes
        self.done_bytes = 0
        self.began = time.monotonic()
        self._board = board

    def advance(self, done: int) -> None:
        self._board.advanced(self, done)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class _BatchSteps:
    """Steps of a phase: no bytes of the card."""

    def __init__(self, board: CardBoard) -> None:
        self._board = board

    def advance(self, _: int) -> None:
        self._board.require_going_on()


class CardBoard:
    """One card's Progress (``imager.base.progress``); safe to share between threads."""

    def __init__(self, hear: Callable[[CardEvent], None], stop: threading.Event) -> None:
        self._hear, self._stop = hear, stop
        self._lock = threading.Lock()
        self._phases: list[_BatchCounter] = []
        self._moved = self._expected = 0

    def expect(self, size_bytes: int) -> None:
        """Set how many bytes will be moved for this card in total."""
        with self._lock:
            self._expected = size_bytes

    def require_going_on(self) -> None:
        """Raise KeyboardInterrupt when the batch was stopped."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        """See Progress."""
        self.require_going_on()
        counter = _BatchCounter(self, name, total_bytes)
        with self._lock:
            self._phases.append(counter)
        self._hear(PhaseBegan(name, total_bytes))
        failed = True
        try:
            yield counter
            failed = False
        finally:
            with self._lock:
                self._phases.remove(counter)
            self._hear(PhaseEnded(name, counter.done_bytes, total_bytes, counter.seconds, failed))

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        """See Progress. A batch shows how far its cards are in bytes."""
        with self.phase(name):
            yield _BatchSteps(self)

    def advanced(self, counter: _BatchCounter, size_bytes: int) -> None:
        """Count; raises KeyboardInterrupt when the batch was stopped."""
        with self._lock:
            counter.done_bytes += size_bytes
            self._moved += size_bytes
        self.require_going_on()

    def note(self, message: str) -> None:
        """See Progress."""
        self._hear(Said(message, warning=False))

    def warn(self, message: str) -> None:
        """See Progress."""
        self._hear(Said(message, warning=True))

    def finding(self, finding: FindingData) -> None:
        """See Progress."""
        self._hear(FindingReported(finding))

    def moment(self) -> Moment:
        """How far the card is now."""
        with self._lock:
            if not self._phases:
                return Moment("", 0, None, 0.0, self._moved, self._expected)
            now = self._phases[-1]
            return Moment(
                now.name,
                now.done_bytes,
                now.total_bytes,
                now.seconds,
                self._moved,
                self._expected,
            )

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
    moved so far, of ``expected_bytes`` if nothing goes wrong (0 while that is not known). A phase
    that no bytes measure has steps: ``done_steps`` of ``total_steps``, else both are 0."""

    phase: str
    done_bytes: int
    total_bytes: int | None
    phase_seconds: float
    moved_bytes: int
    expected_bytes: int
    done_steps: int = 0
    total_steps: int = 0

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
    def phase_share(self) -> float | None:
        """The part of the present phase that is done, from 0 to 1; None where it cannot be told."""
        done, total = self.done_bytes, self.total_bytes
        if self.total_steps:
            done, total = self.done_steps, self.total_steps
        return min(1.0, done / total) if total else None

    @property
    def phase_seconds_left(self) -> float | None:
        """An estimate of the present phase from what was done of it; None while that is nothing."""
        share = self.phase_share
        return self.phase_seconds * (1 - share) / share if share else None

    @property
    def seconds_left(self) -> float | None:
        """An estimate of all its work from the present rate; None while there is no rate, or it is
        not known how much work there is."""
        if not (self.done_bytes and self.expected_bytes):
            return None
        left = max(0, self.expected_bytes - self.moved_bytes)
        return left / max(1.0, self.bytes_per_second)

    @property
    def known_seconds_left(self) -> float | None:
        """An estimate of all its work, else of the present phase; None while neither is known."""
        left = self.seconds_left
        return self.phase_seconds_left if left is None else left


class _BatchCounter:
    """Counts bytes of the card, or steps where ``total_steps`` says how many there are."""

    def __init__(
        self, board: CardBoard, name: str, total_bytes: int | None, total_steps: int = 0
    ) -> None:
        self.name, self.total_bytes, self.total_steps = name, total_bytes, total_steps
        self.done_bytes = self.done_steps = 0
        self.began = time.monotonic()
        self._board = board

    def advance(self, done: int) -> None:
        self._board.advanced(self, done)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


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
        with self._phase(_BatchCounter(self, name, total_bytes)) as counter:
            yield counter

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        """See Progress. They are no bytes of the card."""
        with self._phase(_BatchCounter(self, name, None, count)) as counter:
            yield counter

    @contextmanager
    def _phase(self, counter: _BatchCounter) -> Iterator[Phase]:
        self.require_going_on()
        name, total_bytes = counter.name, counter.total_bytes
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

    def advanced(self, counter: _BatchCounter, done: int) -> None:
        """Count; raises KeyboardInterrupt when the batch was stopped."""
        with self._lock:
            if counter.total_steps:
                # Their number is an estimate.
                counter.done_steps = min(counter.done_steps + done, counter.total_steps)
            else:
                counter.done_bytes += done
                self._moved += done
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
                now.done_steps,
                now.total_steps,
            )

"""Measures how fast each phase was: bytes, seconds, and the bytes of every second.

In: ``advance(bytes)`` from worker threads. Out: figures for the receipt. The same calls move the
progress bar that the person sees.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.progress import Phase, Progress


@dataclass(frozen=True, slots=True)
class PhaseFigures:
    """One finished phase; ``samples`` are the bytes done in each second from its start."""

    name: str
    size_bytes: int
    seconds: float
    samples: tuple[int, ...]

    @property
    def bytes_per_second(self) -> float:
        """The mean rate over the phase."""
        return self.size_bytes / self.seconds if self.seconds > 0 else 0.0


class Meter:
    """Counts one phase; safe to share between threads."""

    def __init__(
        self, name: str, phase: Phase, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._phase, self._clock = name, phase, clock
        self._lock = threading.Lock()
        self._begun = clock()
        self._samples: list[int] = []

    def advance(self, size_bytes: int) -> None:
        """Count ``size_bytes`` as done now."""
        with self._lock:
            second = int(self._clock() - self._begun)
            self._samples += [0] * (second + 1 - len(self._samples))
            self._samples[second] += size_bytes
        self._phase.advance(size_bytes)

    def skip(self, size_bytes: int) -> None:
        """Move the bar by ``size_bytes`` that need not be done."""
        self._phase.advance(size_bytes)

    def figures(self) -> PhaseFigures:
        """The figures of what was counted until now."""
        with self._lock:
            samples = tuple(self._samples)
        seconds = round(self._clock() - self._begun, 6)
        return PhaseFigures(self._name, sum(samples), seconds, samples)


@contextmanager
def metered(
    progress: Progress,
    name: str,
    total_bytes: int | None,
    phases: list[PhaseFigures],
    *,
    shown: str = "",
) -> Iterator[Meter]:
    """A phase of ``progress`` that is also measured; its figures are added to ``phases`` at its
    end. ``shown`` is what the bar is called where it counts other bytes as well."""
    with progress.phase(shown or name, total_bytes) as phase:
        meter = Meter(name, phase)
        try:
            yield meter
        finally:
            phases.append(meter.figures())

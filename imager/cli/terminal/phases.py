"""One phase of the work as a person or a program sees it: a bar, a line at its end, or JSON.

In: how many bytes or steps are done, from any thread. Out: a bar with the time left on a terminal,
and the time gone by where there is nothing to count; the line that says how long it took.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from imager.base.text import printable
from imager.base.units import format_rate, format_seconds, format_size, format_transfer
from imager.cli.terminal.folding import shortened

if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

_BAR = "{desc:<12} {percentage:3.0f}% |{bar}| {moved}{speed}  {remaining} left"
_BAR_OF_STEPS = "{desc:<12} {percentage:3.0f}% |{bar}| {remaining} left"
_BAR_UNSIZED = "{desc} … {elapsed}{speed}"
_LEAST_NAME, _BESIDE_NAME, _SIZES = 12, 46, 18
"""Columns of a phase's name, of all that must stand beside it (a bar of ten, the rate, the time
left), and of the sizes, which are left out where there is no room."""
_TICK_SECONDS = 1.0
_JSON_INTERVAL_SECONDS = 0.5


def phase_summary(name: str, done_bytes: int, seconds: float) -> str:
    """``write: 612 MB in 31.0 s, 19.7 MB/s``"""
    if not done_bytes:
        return f"{name}: {format_seconds(seconds)}"
    return f"{name}: {format_transfer(done_bytes, seconds)}"


class PhaseCounter:
    """A phase's time and its bytes, or its steps where ``steps`` says how many it has, counted from
    any thread."""

    def __init__(self, name: str, total_bytes: int | None, steps: int = 0) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self.steps = steps
        self.done_bytes = self.done_steps = 0
        self.began = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, done: int) -> None:
        """See Phase."""
        with self._lock:
            if self.steps:
                # Their number is an estimate, and no bar goes past its end.
                done = min(done, self.steps - self.done_steps)
                self.done_steps += done
            else:
                self.done_bytes += done
            self.changed(done)

    def changed(self, done: int) -> None:
        """Called after every step, while the lock is held."""

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Bytes a second, as a mean."""
        return self.done_bytes / max(self.seconds, 1e-6)

    def summary(self) -> str:
        """One line that says how far it is."""
        return phase_summary(self.name, self.done_bytes, self.seconds)


class _Bar(_Tqdm):
    """A bar that says sizes and rates as all other lines do."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What ``bar_format`` can name."""
        known = dict(super().format_dict)
        done, total, columns = known["n"], known["total"], known["ncols"]
        rate = known["rate"] or done / max(known["elapsed"], 1e-6)
        known["speed"] = f"  {format_rate(rate)}" if done else ""
        known["moved"] = f"{format_size(done)}/{format_size(total or 0)}"
        if columns:
            room, name = columns - _BESIDE_NAME, known["prefix"]
            if room < max(len(name), _LEAST_NAME) + _SIZES:
                known["moved"] = ""
            known["prefix"] = shortened(name, max(room, _LEAST_NAME))
        return known


class BarCounter(PhaseCounter):
    """A phase with a bar on standard error."""

    def __init__(self, name: str, total_bytes: int | None, steps: int = 0) -> None:
        super().__init__(name, total_bytes, steps)
        sized = _BAR if total_bytes else _BAR_UNSIZED
        self._bar = _Bar(
            desc=printable(name),
            total=steps or total_bytes,
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
            bar_format=_BAR_OF_STEPS if steps else sized,
            miniters=1,
            # Steps come in bursts: what is left is estimated from all that were done.
            smoothing=0 if steps else 0.3,
        )

        self._over = threading.Event()
        if not total_bytes:
            # Without bytes nothing else shows that it is at work.
            threading.Thread(target=self._tick, daemon=True).start()

    def changed(self, done: int) -> None:
        """Move the bar."""
        self._bar.update(done)

    def close(self) -> None:
        """Take the bar away."""
        self._over.set()
        self._bar.close()

    def _tick(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            self._bar.refresh()


class JsonCounter(PhaseCounter):
    """A phase as JSON events: begin, running, and done or failed."""

    def __init__(
        self, name: str, total_bytes: int | None, event: Callable[..., None], steps: int = 0
    ) -> None:
        super().__init__(name, total_bytes, steps)
        self._event = event
        self._told = 0.0
        self.tell("begin")

    def changed(self, done: int) -> None:
        """Tell it now and then."""
        if time.monotonic() - self._told >= _JSON_INTERVAL_SECONDS:
            self.tell("running")

    def tell(self, state: str) -> None:
        """Tell how far it is."""
        self._told = time.monotonic()
        steps = {"done_steps": self.done_steps, "total_steps": self.steps} if self.steps else {}
        self._event(
            "progress",
            phase=self.name,
            state=state,
            done_bytes=self.done_bytes,
            total_bytes=self.total_bytes,
            seconds=round(self.seconds, 3),
            bytes_per_second=round(self.rate),
            **steps,
        )

"""How long work reports what it is doing: to an object that it is given.

In: phases with a size in bytes, notes, warnings. Out: nothing; ``imager.cli`` turns them into
bars, plain lines or JSON, and is the only wing that prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Phase(Protocol):
    """One stretch of work: a known or unknown number of bytes, or a known number of steps."""

    def advance(self, done: int, /) -> None:
        """Report so many more bytes, or steps, ``done``; safe to call from worker threads."""


class FindingData(Protocol):
    """Something found wrong, as data for a program."""

    def to_json(self) -> dict[str, object]:
        """Its fields."""


class Progress(Protocol):
    """What a stage reports to."""

    def phase(self, name: str, total_bytes: int | None = None) -> AbstractContextManager[Phase]:
        """Begin a phase; leaving the context ends it, an exception in it marks it failed."""

    def steps(self, name: str, count: int) -> AbstractContextManager[Phase]:
        """As ``phase``, for work that no bytes measure: ``count`` steps, each of about the same
        time, so that what is left can be estimated."""

    def note(self, message: str) -> None:
        """Report something good to know: a cache was used, a default was taken."""

    def warn(self, message: str) -> None:
        """Report something the person should act on, though the work goes on."""

    def finding(self, finding: FindingData) -> None:
        """Report a finding as data, for ``--json``; people read of it in notes and errors."""


class _QuietPhase:
    def advance(self, done: int) -> None:
        pass


class Quiet:
    """A Progress that ignores every report."""

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        yield _QuietPhase()

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        with self.phase(name) as phase:
            yield phase

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass

    def finding(self, finding: FindingData) -> None:
        pass

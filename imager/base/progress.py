"""How long work reports what it is doing: to an object that it is given.

In: phases with a size in bytes, notes, warnings. Out: nothing; ``imager.cli`` turns them into
bars, plain lines or JSON, and is the only wing that prints.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

_LOOK_SECONDS = 0.2


class Phase(Protocol):
    """One stretch of work: a known or unknown number of bytes, or a known number of steps."""

    def advance(self, done: int, /) -> None:
        """Report so many more bytes, or steps, ``done``; safe to call from worker threads."""


@contextmanager
def followed(phase: Phase, reached: Callable[[], int]) -> Iterator[None]:
    """Advance ``phase`` while the block runs something that does not say how far it is, to what
    ``reached`` says, which is asked now and then, and once at the end."""
    over, done = threading.Event(), 0

    def look() -> None:
        nonlocal done
        if (now := reached()) > done:
            phase.advance(now - done)
            done = now

    def follow() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()
    look()


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

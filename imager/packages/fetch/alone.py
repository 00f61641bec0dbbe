"""One run at a time locks and fetches packages; what it makes serves those that waited.

In: the terms of a run. Out: a block in which no other run does so: two would add to the same file
of what came in so far of a package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from imager.base.errors import Interrupted
from imager.release.terms import FetchTerms


@contextmanager
def alone(terms: FetchTerms) -> Iterator[None]:
    """Let one run at a time lock and fetch packages; others wait for what it makes."""
    folder = terms.cache.made("packages")
    try:
        with ExitStack() as held:
            try:
                held.enter_context(folder.locked("pacman.lock", wait=False))
            except BlockingIOError:
                terms.progress.note("another run is fetching packages; waiting for it")
                held.enter_context(folder.locked("pacman.lock"))
            yield
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while fetching packages; those that came in are kept",
            hint="run the same command again; it goes on from there",
        ) from None

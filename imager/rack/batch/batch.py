"""A batch: every job is done, whatever happens to some; the ledger knows it from beginning to end.

In: orders and jobs, confirmed by a person. Out: a result for each job. Ctrl-C and a service
manager's stop do not tear the work: each card is left blank or whole, and says which.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from imager.base.errors import BatchFailed, Interrupted
from imager.rack.batch.crew import CardJob, CardResult, Crew, Orders, Watch
from imager.rack.history.ledger import BatchBegun, BatchEnded, append, now, require_room
from imager.rack.history.outcome import Outcome


def flash(orders: Orders, jobs: Sequence[CardJob], watch: Watch) -> tuple[CardResult, ...]:
    """Do every job and return the results in the order of ``jobs``.

    The caller holds ``batch_lock``. Raises HostStorage, before any card is touched, when this
    computer's disk has no room for what is to be written down.
    """
    with begun(orders, [job.name for job in jobs], watch) as (crew, stopped):
        for job in jobs:
            crew.add(job)
        while crew.is_busy:
            crew.turn()
            if stopped.is_set():
                crew.stop()
    found = {result.job.name: result for result in crew.results}
    return tuple(found[job.name] for job in jobs)


@contextmanager
def begun(
    orders: Orders, nodes: Sequence[str], watch: Watch
) -> Iterator[tuple[Crew, threading.Event]]:
    """A crew whose work is a batch in the ledger, and the event that a signal sets; no worker
    outlives the block. Raises as ``flash`` does."""
    folder = orders.rack.folder
    require_room(folder, len(nodes))
    # When it began, and chance: a name no other batch has.
    batch = f"{now()}-{secrets.token_hex(2)}"
    append(folder, BatchBegun(now(), batch, tuple(nodes), os.getpid()))
    crew = Crew(replace(orders, batch=batch), watch)
    with interruptible(crew) as stopped:
        yield crew, stopped
    append(folder, BatchEnded(now(), batch, exit_code_of(crew.results)))


def exit_code_of(results: Sequence[CardResult]) -> int:
    """0 when every card is good, 130 after Ctrl-C, else 30."""
    if all(result.is_verified for result in results):
        return 0
    if any(result.outcome is Outcome.INTERRUPTED for result in results):
        return Interrupted.exit_code
    return BatchFailed.exit_code


@contextmanager
def interruptible(crew: Crew) -> Iterator[threading.Event]:
    """Signals set the event instead of tearing the thread that hands out the work out of the
    middle of it; whatever else ends the block, no worker outlives it."""
    stopped = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        crew.close()
        for number, handler in previous.items():
            signal.signal(number, handler)

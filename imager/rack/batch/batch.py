"""A batch: every job is done, even when others fail; the ledger has a line for each step.

In: orders and jobs, confirmed by a person. Out: a result for each job. After Ctrl-C, or when a
service manager stops the program, each card is left blank or whole, and its result says which.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from imager.base.errors import BatchFailed, Interrupted
from imager.rack.batch.crew import CardJob, Crew, Orders
from imager.rack.batch.workers import CardResult, Stop, Watch, interruptible, worked_off
from imager.rack.history.events import BatchBegun, BatchEnded, now
from imager.rack.history.ledger import append, require_room
from imager.rack.history.outcome import Outcome


def flash(orders: Orders, jobs: Sequence[CardJob], watch: Watch) -> tuple[CardResult, ...]:
    """Do every job and return the results in the order of ``jobs``.

    The caller holds ``batch_lock``. Raises HostStorage, before any card is written, when this
    computer's disk has no room for the ledger and the receipts.
    """
    with begun(orders, [job.name for job in jobs], watch) as (crew, stopped):
        return worked_off(crew, jobs, stopped)


@contextmanager
def begun(orders: Orders, nodes: Sequence[str], watch: Watch) -> Iterator[tuple[Crew, Stop]]:
    """A crew whose work is a batch in the ledger, and the stop that a signal sets. When the block
    ends, all workers have ended. Raises as ``flash`` does."""
    folder = orders.rack.folder
    batch = begin_batch(folder, nodes)
    crew = Crew(replace(orders, batch=batch), watch)
    with interruptible(crew) as stopped:
        yield crew, stopped
    end_batch(folder, batch, crew.results)


def begin_batch(rack: Path, nodes: Sequence[str]) -> str:
    """The name of a batch over ``nodes`` that the ledger of the folder ``rack`` says has begun.
    Raises HostStorage when there is no room for it and the receipts of its cards."""
    require_room(rack, len(nodes))
    # The time and a random number: no other batch has this name.
    batch = f"{now()}-{secrets.token_hex(2)}"
    append(rack, BatchBegun(now(), batch, tuple(nodes), os.getpid()))
    return batch


def end_batch(rack: Path, batch: str, results: Sequence[CardResult]) -> None:
    """Say in the ledger that it ended, and how."""
    append(rack, BatchEnded(now(), batch, exit_code_of(results)))


def exit_code_of(results: Sequence[CardResult]) -> int:
    """0 when every card is good, 130 after Ctrl-C, else 30."""
    if all(result.is_verified for result in results):
        return 0
    if any(result.outcome is Outcome.INTERRUPTED for result in results):
        return Interrupted.exit_code
    return BatchFailed.exit_code

"""A few transfers in flight at a time, in order, with bounded memory.

In: jobs and what to do with one. Out: nothing, or the first error, after every worker has
stopped. A worker takes the next job, reads and writes with its own page-aligned buffers, and takes
the next: there is no queue to fill and none to drain, and the card stays busy while another
worker prepares its block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

JobT = TypeVar("JobT")
ToolsT = TypeVar("ToolsT")
_LOOK_SECONDS = 0.002


class _Jobs(Generic[JobT]):
    """The jobs still to do, handed out one at a time to any thread until someone stops it."""

    def __init__(self, jobs: Iterable[JobT]) -> None:
        self._jobs = iter(jobs)
        self._lock = threading.Lock()
        self._stopped = False
        self._busy = 0

    def work_off(self, work: Callable[[JobT], None]) -> None:
        """Do one job after the other; in a thread of its own."""
        while True:
            with self._lock:
                if self._stopped:
                    return
                try:
                    job = next(self._jobs)
                except StopIteration:
                    return
                self._busy += 1
            try:
                work(job)
            finally:
                with self._lock:
                    self._busy -= 1

    def stop(self) -> None:
        """Hand out no more, and return when nobody is at work on one any more.

        It looks now and then: Ctrl-C could leave the lock of a threading.Condition taken.
        """
        with self._lock:
            self._stopped = True
        while self._busy:
            time.sleep(_LOOK_SECONDS)


def in_flight(
    jobs: Iterable[JobT],
    work: Callable[[JobT, ToolsT], None],
    *,
    depth: int,
    tools: Callable[[], ToolsT],
) -> None:
    """Do ``work(job, tools)`` for every job, ``depth`` at a time, begun in order.

    ``tools()`` makes each worker's own buffers. The first exception of a worker, or Ctrl-C, stops
    the others at their next job; it is raised when all have stopped, so that nobody touches the
    card after this function has returned.
    """
    todo = _Jobs(jobs)

    def worker() -> None:
        own = tools()
        todo.work_off(lambda job: work(job, own))

    with ThreadPoolExecutor(depth, thread_name_prefix="card") as pool:
        workers: list[Future[None]] = []
        try:
            for _ in range(depth):
                workers.append(pool.submit(worker))
            wait(workers, return_when=FIRST_EXCEPTION)
        finally:
            _until_stopped(todo)
    for done in workers:
        done.result()


def _until_stopped(todo: _Jobs[JobT]) -> None:
    """Stop, however often Ctrl-C is pressed: a transfer cannot be called back. The executor is not
    asked: Ctrl-C while it starts a thread makes it forget that thread."""
    while True:
        try:
            todo.stop()
        except KeyboardInterrupt:
            continue
        return

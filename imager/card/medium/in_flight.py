"""Does several transfers at the same time, begun in order, with bounded memory.

In: jobs, and a function that does one. Out: nothing, or the first error, after every worker has
stopped. Each worker takes a job, reads and writes with its own page-aligned buffers, and takes the
next job. So the card stays busy while another worker prepares its block.
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
    """The jobs still to do. Threads take them one by one, until they are done or stopped."""

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
        """Give out no more jobs, and return when no thread works on one any more.

        It checks again and again instead of waiting on a threading.Condition: Ctrl-C could leave
        the lock of a Condition taken for ever.
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
    abandon: Callable[[], None] = lambda: None,
) -> None:
    """Do ``work(job, tools)`` for every job, ``depth`` at a time, begun in order.

    ``tools()`` makes the buffers of one worker. After the first exception of a worker, or Ctrl-C,
    no worker begins another job; it is raised when all have stopped. So nothing is read or written
    any more after this function has returned. ``abandon`` is called when no job is wanted any more:
    ``jobs`` that wait for something then wait no longer.
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
            _until_stopped(todo, abandon)
    for done in workers:
        done.result()


def _until_stopped(todo: _Jobs[JobT], abandon: Callable[[], None]) -> None:
    """Stop ``todo`` and wait, however often Ctrl-C is pressed: a transfer that has begun cannot be
    stopped. The executor cannot do this: Ctrl-C while it starts a thread makes it forget that
    thread."""
    while True:
        try:
            abandon()
            todo.stop()
        except KeyboardInterrupt:
            continue
        return

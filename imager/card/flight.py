"""A few transfers in flight at a time, in order, with bounded memory.

In: jobs and what to do with one. Out: nothing, or the first error, after every worker has
stopped. A worker takes the next job, reads and writes with its own page-aligned buffers, and takes
the next: there is no queue to fill and none to drain, and the card stays busy while another
worker prepares its block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Job = TypeVar("Job")
Tools = TypeVar("Tools")


class _Jobs(Generic[Job]):
    """The jobs still to do, handed out one at a time to any thread until someone stops it."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Job]:
        while not self._stopped.is_set():
            with self._lock:
                try:
                    job = next(self._jobs)
                except StopIteration:
                    return
            yield job


def in_flight(
    jobs: Iterable[Job],
    work: Callable[[Job, Tools], None],
    *,
    depth: int,
    tools: Callable[[], Tools],
) -> None:
    """Do ``work(job, tools)`` for every job, ``depth`` at a time, begun in order.

    ``tools()`` makes each worker's own buffers. The first exception of a worker, or Ctrl-C, stops
    the others at their next job; it is raised when all have stopped, so that nobody touches the
    card after this function has returned.
    """
    todo = _Jobs(jobs)

    def worker() -> None:
        own = tools()
        for job in todo:
            work(job, own)

    pool = ThreadPoolExecutor(depth, thread_name_prefix="card")
    workers = [pool.submit(worker) for _ in range(depth)]
    try:
        wait(workers, return_when=FIRST_EXCEPTION)
    finally:
        todo.stop()
        _until_stopped(workers)
        pool.shutdown()
    for done in workers:
        done.result()


def _until_stopped(workers: list[Future[None]]) -> None:
    """Wait for every worker, however often Ctrl-C is pressed: a transfer cannot be called back."""
    while True:
        try:
            wait(workers)
        except KeyboardInterrupt:
            continue
        return

"""Makes several cards at the same time, each in a thread of its own; no failure affects another.

In: jobs, one for each card; more can be added at any time. Out: for each job a result, also when it
failed. The thread that owns the workers gives out the work, receives their reports, and is the only
one that shows anything. What a job is, and how its card is made, a subclass says.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from imager.base.errors import Interrupted, PicloudError
from imager.base.units import MiB
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Target
from imager.card.make.finish import MadeCard
from imager.card.receipt.receipt import Receipt
from imager.card.save.save import SavedCard
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.rack.batch.card_progress import CardBoard, CardEvent, Moment
from imager.rack.batch.limiter import Limiter
from imager.rack.history.outcome import Outcome, outcome_of

BUFFERS_BYTES = 96 * MiB
"""For the transfers of all cards together; reading back holds half a MiB more for each."""
_TURN_SECONDS = 0.1


class Job(Protocol):
    """One card to be made."""

    @property
    def name(self) -> str:
        """What it is called; no two jobs of one run have the same name."""

    @property
    def target(self) -> Target:
        """Where."""

    @property
    def slot(self) -> str:
        """The label of its slot, or empty."""


JobT = TypeVar("JobT", bound=Job)


@dataclass(frozen=True, slots=True)
class CardResult:
    """How a job ended: with a ``receipt`` for a verified card, with what was ``saved`` of one that
    was read, with an ``error`` for any other."""

    job: Job
    outcome: Outcome
    seconds: float = 0.0
    receipt: Receipt | None = None
    receipt_name: str = ""
    error: PicloudError | None = None
    saved: SavedCard | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the card is good, or was saved whole."""
        return self.outcome in (Outcome.VERIFIED, Outcome.SAVED)

    @property
    def fault(self) -> str:
        """The outcome and the error's text; only one of them where both are the same word."""
        what = self.error.what if self.error is not None else ""
        return str(self.outcome) if what == self.outcome else f"{self.outcome}: {what}"


class AtWork(Protocol):
    """What can be asked of workers while they work."""

    @property
    def at_work(self) -> tuple[str, ...]:
        """The names of the jobs that are being done now."""

    def moment(self, name: str) -> Moment | None:
        """How far the card of the job ``name`` is; None before it is begun."""


class Watch(Protocol):
    """Shows what happens. It is called only by the thread that owns the workers."""

    def began(self, job: Job) -> None:
        """A worker begins the job."""

    def heard(self, job: Job, event: CardEvent) -> None:
        """The worker of ``job`` reports something."""

    def ended(self, result: CardResult) -> None:
        """A job has ended."""

    def turn(self, crew: AtWork) -> None:
        """Some time has passed."""


def memory_share(cards: int) -> int:
    """Bytes of transfers that each of so many ``cards`` written at a time may hold."""
    return BUFFERS_BYTES // max(1, cards)


class Workers(ABC, Generic[JobT]):
    """The workers of one run."""

    def __init__(
        self, watch: Watch, at_once: int | None = None, kernel: HostTrees | None = None
    ) -> None:
        """``at_once`` is the most cards that a person wants at a time; None for no such limit."""
        self._watch = watch
        self._kernel = kernel or HostTrees()
        self._limiter = Limiter(at_once)
        # Not a SimpleQueue: a signal at the very end of its timeout makes that wait for ever
        # (seen with CPython 3.11.7), and then Ctrl-C would be the one thing that is not heard.
        self._told: queue.Queue[tuple[JobT, CardEvent | CardResult]] = queue.Queue()
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._moved: dict[str, int] = {}
        self.waiting: list[JobT] = []
        self.boards: dict[str, CardBoard] = {}
        self.results: list[CardResult] = []

    @abstractmethod
    def _make(self, job: JobT, board: CardBoard, options: WriteOptions) -> MadeCard | SavedCard:
        """Make the card of ``job``, or save it; in its worker's thread."""

    @property
    def is_busy(self) -> bool:
        """Whether any job is being done or waits."""
        return bool(self._threads or self.waiting)

    @property
    def at_work(self) -> tuple[str, ...]:
        """See AtWork."""
        return tuple(self._threads)

    def moment(self, name: str) -> Moment | None:
        """See AtWork."""
        board = self.boards.get(name)
        return board.moment() if board is not None else None

    def add(self, job: JobT) -> None:
        """Add ``job``; it is begun as soon as the limits allow it."""
        self.waiting.append(job)

    def turn(self, seconds: float = _TURN_SECONDS) -> None:
        """Begin the jobs that may begin, then receive reports for at most ``seconds`` and show
        them."""
        self._begin()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                job, told = self._told.get(timeout=left)
            except queue.Empty:
                break
            self._hear(job, told)
        self._measure()
        self._watch.turn(self)

    def stop(self) -> None:
        """Stop every card at its next report, as Ctrl-C would, and begin no other. The caller must
        go on calling ``turn`` until they are not busy any more."""
        self._stop.set()
        while self.waiting:
            job = self.waiting.pop()
            error = Interrupted(
                f"{job.target.node}: not begun", hint="run the same command again for the rest"
            )
            self._end(CardResult(job, Outcome.INTERRUPTED, error=error))

    def close(self) -> None:
        """Stop all workers, show nothing any more, and wait until they have ended."""
        self._stop.set()
        self.waiting.clear()
        for thread in self._threads.values():
            thread.join()
        self._threads.clear()

    def _port(self, job: JobT) -> str | None:
        """What the card of ``job`` shares with others, so that not too many are made at a time: a
        USB port carries only so much. None for nothing."""
        return job.target.root_port(self._kernel)

    def _begin(self) -> None:
        for job in list(self.waiting):
            port = self._port(job)
            if self._limiter.may_begin(port):
                self.waiting.remove(job)
                self._limiter.began(job.name, port)
                self._start(job)

    def _start(self, job: JobT) -> None:
        board = CardBoard(lambda event: self._told.put((job, event)), self._stop)
        self.boards[job.name] = board
        share = memory_share(len(self._threads) + len(self.waiting) + 1)
        options = options_for(job.target, most_bytes=share)
        work = partial(self._work, job, board, options)
        thread = threading.Thread(target=work, name=f"card of {job.name}")
        self._threads[job.name] = thread
        self._watch.began(job)
        thread.start()

    def _hear(self, job: JobT, told: CardEvent | CardResult) -> None:
        if not isinstance(told, CardResult):
            self._watch.heard(job, told)
            return
        self._threads.pop(job.name).join()
        self._limiter.ended(job.name)
        self._moved.pop(job.name, None)
        self._end(told)

    def _end(self, result: CardResult) -> None:
        self.results.append(result)
        self._watch.ended(result)

    def _measure(self) -> None:
        for name in self._threads:
            moved = self.boards[name].moment().moved_bytes
            self._limiter.moved(name, moved - self._moved.get(name, 0))
            self._moved[name] = moved
        self._limiter.look(time.monotonic())

    def _work(self, job: JobT, board: CardBoard, options: WriteOptions) -> None:
        began = time.monotonic()
        try:
            done = self._make(job, board, options)
            seconds = time.monotonic() - began
            if isinstance(done, SavedCard):
                result = CardResult(job, Outcome.SAVED, seconds, saved=done)
            else:
                result = CardResult(
                    job,
                    Outcome.VERIFIED,
                    seconds,
                    receipt=done.receipt,
                    receipt_name=done.receipt_path.name,
                )
        except BaseException as error:  # noqa: BLE001 - one card must not end the others' work
            known = known_error(error)
            result = CardResult(
                job,
                outcome_of(error),
                time.monotonic() - began,
                receipt_name=known.receipt,
                error=known,
            )
        self._told.put((job, result))


class Closed(Protocol):
    """Who works in threads that must have ended before the program goes on."""

    def close(self) -> None:
        """Stop them, and wait until they have ended."""


class Stop:
    """Whether somebody asked for the end. A signal's handler sets it, and the next signal may come
    while that one runs: the lock of a threading.Event would then be waited for by the very thread
    that holds it."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Ask for the end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._is_set


@contextmanager
def interruptible(workers: Closed) -> Iterator[Stop]:
    """While the block runs, Ctrl-C and SIGTERM set the stop and do not interrupt the main thread
    in the middle of its work. When the block ends, for any reason, all workers have ended."""
    stopped = Stop()
    previous = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        workers.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def worked_off(
    workers: Workers[JobT], jobs: Sequence[JobT], stopped: Stop
) -> tuple[CardResult, ...]:
    """Do every job, until ``stopped`` is set, and return the results in the order of ``jobs``."""
    for job in jobs:
        workers.add(job)
    while workers.is_busy:
        workers.turn()
        if stopped.is_set():
            workers.stop()
    found = {result.job.name: result for result in workers.results}
    return tuple(found[job.name] for job in jobs)


def known_error(error: BaseException) -> PicloudError:
    """``error``, or one that says what an unexpected exception in a worker was: probably our own
    mistake."""
    if isinstance(error, PicloudError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted before its card was touched", hint="run it again")
    lines = traceback.format_exception(error)
    return PicloudError(
        f"a mistake of picloud-image: {type(error).__name__}: {error}",
        hint="please report it with the lines above and the command you ran",
        details=[line.rstrip() for entry in lines for line in entry.splitlines()],
    )

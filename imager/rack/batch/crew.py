"""Makes several cards at the same time, each in a thread of its own; no failure affects another.

In: jobs, one for each card; more can be added at any time. Out: for each job a result, also when it
failed. The thread that owns the crew gives out the work, receives the workers' reports, and is the
only one that shows anything. All cards are written from one golden file, which is in this
computer's memory after the first. A node's own image is made only when its card is next, so that
the first card begins at once.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from imager.base.errors import Interrupted, PicloudError
from imager.base.units import MiB
from imager.card.host.refusals import accept
from imager.card.host.swap_room import require_swap_room
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, Target
from imager.card.make.boot_check import BootCheck
from imager.card.make.finish import MadeCard
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.receipt.receipt import Receipt
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.config.rack import Node, Rack
from imager.node.content import recipe_of
from imager.node.edit.edit import OpenGolden
from imager.node.image import NodeImage
from imager.node.personalise import personalise_one
from imager.rack.batch.card_progress import CardBoard, CardEvent, Moment
from imager.rack.batch.limiter import Limiter
from imager.rack.history.outcome import Outcome, outcome_of
from imager.rack.history.recorded import Work, recorded

BUFFERS_BYTES = 96 * MiB
"""For the transfers of all cards together; reading back holds half a MiB more for each."""
_TURN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CardJob:
    """A node's card to be made: where, and of what size (bytes). ``slot`` is a label or empty."""

    node: Node
    target: Target
    size_bytes: int
    slot: str = ""

    @property
    def name(self) -> str:
        """The node's name: no batch has two cards for one node."""
        return self.node.name


@dataclass(frozen=True, slots=True)
class CardResult:
    """How a job ended: with a ``receipt`` for a verified card, with an ``error`` for any other."""

    job: CardJob
    outcome: Outcome
    seconds: float = 0.0
    receipt: Receipt | None = None
    receipt_name: str = ""
    error: PicloudError | None = None

    @property
    def is_verified(self) -> bool:
        """Whether the card is good."""
        return self.outcome is Outcome.VERIFIED

    @property
    def fault(self) -> str:
        """The outcome and the error's text; only one of them where both are the same word."""
        what = self.error.what if self.error is not None else ""
        return str(self.outcome) if what == self.outcome else f"{self.outcome}: {what}"


class Watch(Protocol):
    """Shows what happens. It is called only by the thread that owns the crew."""

    def began(self, job: CardJob) -> None:
        """A worker begins the job."""

    def heard(self, job: CardJob, event: CardEvent) -> None:
        """The worker of ``job`` reports something."""

    def ended(self, result: CardResult) -> None:
        """A job has ended."""

    def turn(self, crew: Crew) -> None:
        """Some time has passed."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How a crew works: for which rack, from which golden image, within which limits.

    ``at_once`` is the most cards a person wants at a time. ``update`` and ``probe`` are as for
    ``make_card``.
    """

    rack: Rack
    golden_of: Callable[[Node], OpenGolden]
    limits: Limits
    batch: str = ""
    at_once: int | None = None
    update: bool = True
    probe: bool = True
    kernel: HostTrees = field(default_factory=HostTrees)


def memory_share(cards: int) -> int:
    """Bytes of transfers that each of so many ``cards`` written at a time may hold."""
    return BUFFERS_BYTES // max(1, cards)


class Crew:
    """The workers of one run."""

    def __init__(self, orders: Orders, watch: Watch) -> None:
        self._orders, self._watch = orders, watch
        self._limiter = Limiter(orders.at_once)
        self._told: queue.SimpleQueue[tuple[CardJob, CardEvent | CardResult]] = queue.SimpleQueue()
        self._stop = threading.Event()
        # To make a node's image keeps a processor busy: more at a time would only delay the first.
        # Few threads do it, because each keeps the memory it has used (malloc's arenas).
        self._preparers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prepare")
        self._threads: dict[str, threading.Thread] = {}
        self._moved: dict[str, int] = {}
        self._bootable: set[tuple[str, tuple[str, ...]]] = set()
        self.waiting: list[CardJob] = []
        self.boards: dict[str, CardBoard] = {}
        self.results: list[CardResult] = []

    @property
    def is_busy(self) -> bool:
        """Whether any job is being done or waits."""
        return bool(self._threads or self.waiting)

    @property
    def at_work(self) -> tuple[str, ...]:
        """The nodes whose cards are being made now."""
        return tuple(self._threads)

    def moment(self, node: str) -> Moment | None:
        """How far the card of ``node`` is; None before it is begun."""
        board = self.boards.get(node)
        return board.moment() if board is not None else None

    def add(self, job: CardJob) -> None:
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
        go on calling ``turn`` until the crew is not busy any more."""
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
        self._preparers.shutdown()

    def _begin(self) -> None:
        for job in list(self.waiting):
            port = job.target.root_port(self._orders.kernel)
            if self._limiter.may_begin(port):
                self.waiting.remove(job)
                self._limiter.began(job.name, port)
                self._start(job)

    def _start(self, job: CardJob) -> None:
        board = CardBoard(lambda event: self._told.put((job, event)), self._stop)
        self.boards[job.name] = board
        share = memory_share(len(self._threads) + len(self.waiting) + 1)
        options = options_for(job.target, most_bytes=share)
        work = partial(self._work, job, board, options)
        thread = threading.Thread(target=work, name=f"card of {job.name}")
        self._threads[job.name] = thread
        self._watch.began(job)
        thread.start()

    def _hear(self, job: CardJob, told: CardEvent | CardResult) -> None:
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

    # ── in the worker's thread ──────────────────────────────────────────────────────────────

    def _work(self, job: CardJob, board: CardBoard, options: WriteOptions) -> None:
        began = time.monotonic()
        try:
            made = self._make(job, board, options)
            result = CardResult(
                job,
                Outcome.VERIFIED,
                time.monotonic() - began,
                receipt=made.receipt,
                receipt_name=made.receipt_path.name,
            )
        except BaseException as error:  # noqa: BLE001 - one card must not end the others' work
            known = error if isinstance(error, PicloudError) else _unexpected(error)
            result = CardResult(
                job,
                outcome_of(error),
                time.monotonic() - began,
                receipt_name=known.receipt,
                error=known,
            )
        self._told.put((job, result))

    def _make(self, job: CardJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        orders = self._orders
        golden = orders.golden_of(job.node)
        recipe = self._preparers.submit(recipe_of, golden, orders.rack, job.node).result()
        work = Work(
            job.name, job.target, golden.image.release_sha256, recipe, orders.batch, job.slot
        )
        return recorded(orders.rack, work, lambda: self._card(job, golden, board, options))

    def _card(
        self, job: CardJob, golden: OpenGolden, board: CardBoard, options: WriteOptions
    ) -> MadeCard:
        orders = self._orders
        require_swap_room(job.target, golden.image, orders.rack)
        image, check = self._preparers.submit(self._image, job, golden, board).result()
        # Every byte of the map goes to the card and comes back.
        board.expect(2 * image.manifest.extents.total_bytes)
        order = CardOrder(
            image,
            accept(job.target, image.layout.size_bytes, orders.limits),
            orders.rack.receipts,
            options=options,
            check=check,
            kernel=orders.kernel,
        )
        return make_card(order, board, update=orders.update, probe=orders.probe)

    def _image(
        self, job: CardJob, golden: OpenGolden, board: CardBoard
    ) -> tuple[NodeImage, BootCheck]:
        rack, node = self._orders.rack, job.node
        image = personalise_one(golden, rack, node, job.size_bytes, board)
        check = BootCheck(node, image)
        self._require_bootable(node, check)
        return image, check

    def _require_bootable(self, node: Node, check: BootCheck) -> None:
        """Run the boot check on the first image of each kind before its card is written. Each card
        itself is checked at its end."""
        kind = (node.model, node.roles)
        if kind not in self._bootable:
            check.of_image()
            self._bootable.add(kind)


def _unexpected(error: BaseException) -> PicloudError:
    """The error for an unexpected exception in a worker: probably our own mistake."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted before its card was touched", hint="run it again")
    lines = traceback.format_exception(error)
    return PicloudError(
        f"a mistake of picloud-image: {type(error).__name__}: {error}",
        hint="please report it with the lines above and the command you ran",
        details=[line.rstrip() for entry in lines for line in entry.splitlines()],
    )

"""Puts the saved cards of many nodes back onto cards at the same time.

In: jobs, one for each node, confirmed by a person. Out: for each a result, a receipt, and lines in
the ledger. Each saved card is read once, and its card written, read back and proven as with
``write --image``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from imager.card.host.refusals import accept
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, Target
from imager.card.make.finish import MadeCard
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.source.opened import WantedImage, opened_source
from imager.card.stages import WriteOptions
from imager.config.rack import Rack
from imager.rack.batch.batch import begin_batch, end_batch
from imager.rack.batch.card_progress import CardBoard
from imager.rack.batch.workers import CardResult, Watch, Workers, interruptible, worked_off
from imager.rack.history.events import CardRestored, now
from imager.rack.history.ledger import append
from imager.rack.history.recorded import Work, recorded
from imager.rack.plan.saved import SavedNode


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """A saved card, and where it is put back."""

    saved: SavedNode
    target: Target
    slot: str = ""

    @property
    def name(self) -> str:
        """Its node's name."""
        return self.saved.node.name


@dataclass(frozen=True, slots=True)
class RestoreOrders:
    """For which rack, within which limits; else as ``Orders`` of a crew."""

    rack: Rack
    limits: Limits
    probe: bool
    batch: str = ""
    at_once: int | None = None
    kernel: HostTrees = field(default_factory=HostTrees)


class Restorers(Workers[RestoreJob]):
    """The workers of one run."""

    def __init__(self, orders: RestoreOrders, watch: Watch) -> None:
        super().__init__(watch, orders.at_once, orders.kernel)
        self._orders = orders

    def _make(self, job: RestoreJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        saved, facts, batch = job.saved, job.saved.facts, self._orders.batch
        work = Work(
            job.name,
            job.target,
            facts.release_sha256,
            saved.recipe,
            batch,
            job.slot,
            facts.image_id,
        )
        return recorded(self._orders.rack, work, lambda: self._card(job, board, options))

    def _card(self, job: RestoreJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        orders, saved = self._orders, job.saved
        # While it is written, the bar also moves over what need not be written.
        board.expect(saved.size_bytes + saved.mapped_bytes)
        with opened_source(WantedImage(str(saved.path))) as opened:
            order = SourceOrder(
                opened.source,
                saved.size_bytes,
                accept(job.target, saved.size_bytes, orders.limits),
                orders.rack.receipts,
                options=options,
                kernel=orders.kernel,
                node=job.name,
            )
            made = make_poured_card(order, board, probe=orders.probe)
        append(
            orders.rack.folder,
            CardRestored(
                now(), orders.batch, job.name, job.target.node, str(saved.path), saved.saved_at
            ),
        )
        return made


def restore(
    orders: RestoreOrders, jobs: Sequence[RestoreJob], watch: Watch
) -> tuple[CardResult, ...]:
    """Do every job and return the results in the order of ``jobs``. The caller holds
    ``batch_lock``. Raises HostStorage, before any card is written, when there is no room for the
    receipts."""
    folder = orders.rack.folder
    batch = begin_batch(folder, [job.name for job in jobs])
    restorers = Restorers(replace(orders, batch=batch), watch)
    with interruptible(restorers) as stopped:
        results = worked_off(restorers, jobs, stopped)
    end_batch(folder, batch, results)
    return results

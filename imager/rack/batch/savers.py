"""Saves the cards of many nodes at the same time, each into a file of its own.

In: jobs, one for each node's card. Out: for each a result, and a line in the ledger. The cards are
only read. One that is dying takes its time and loses what it must; the others do not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.errors import HostStorage, Interrupted, PicloudError
from imager.base.units import SECTOR_BYTES
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Target
from imager.card.inspect.verify import open_target
from imager.card.save.at_rest import at_rest
from imager.card.save.card_map import map_card
from imager.card.save.save import SavedCard, SaveOrder, require_room, save_card
from imager.card.save.saved_file import SavedFile
from imager.card.stages import WriteOptions
from imager.rack.batch.card_progress import CardBoard
from imager.rack.batch.workers import CardResult, Watch, Workers, interruptible, worked_off
from imager.rack.history.events import CardSaved, now
from imager.rack.history.ledger import append
from imager.rack.history.outcome import Outcome, outcome_of


@dataclass(frozen=True, slots=True)
class SaveJob:
    """The card of the node ``name``, which is to be saved into ``files``. ``image_id`` is what its
    stamp says; empty for one that cannot be read."""

    name: str
    target: Target
    files: SavedFile
    slot: str = ""
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class SaveOrders:
    """For the rack in the folder ``rack``; at most ``at_once`` cards at a time."""

    rack: Path
    at_once: int | None = None
    kernel: HostTrees = field(default_factory=HostTrees)


class Savers(Workers[SaveJob]):
    """The workers of one run."""

    def __init__(self, orders: SaveOrders, watch: Watch) -> None:
        super().__init__(watch, orders.at_once, orders.kernel)
        self._orders = orders

    def _make(self, job: SaveJob, board: CardBoard, options: WriteOptions) -> SavedCard:
        """Save the card, with a line in the ledger that says how it ended; an image that is not
        whole is an error of the card."""
        del options  # nothing is written to the card
        try:
            saved = self._saved(job, board)
            if failure := saved.error():
                raise failure
        except BaseException as error:
            # The card's own error is more important than that the ledger cannot be written.
            with suppress(HostStorage):
                append(self._orders.rack, _event(job, error=error))
            raise
        append(self._orders.rack, _event(job, saved))
        return saved

    def _saved(self, job: SaveJob, board: CardBoard) -> SavedCard:
        node = Path(job.target.node)
        # Once more: it may have been mounted since the plan was shown.
        sector = at_rest(node, self._orders.kernel).facts.logical_bytes or SECTOR_BYTES
        try:
            with open_target(node) as fresh:
                card = map_card(fresh.raw, sector_bytes=sector)
                require_room(card, job.files, SaveOrder())
                board.expect(card.in_use_bytes + (card.size_bytes if job.files.packing else 0))
                return save_card(fresh, card, job.files, SaveOrder(), board)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{job.target.node}: interrupted; what was read of it is kept",
                hint="run the same command again: it goes on from there",
            ) from None


def _event(
    job: SaveJob, saved: SavedCard | None = None, error: BaseException | None = None
) -> CardSaved:
    what = error.what if isinstance(error, PicloudError) else f"{type(error).__name__}: {error}"
    return CardSaved(
        at=now(),
        node=job.name,
        target=job.target.node,
        slot=job.slot,
        file=str(job.files.path),
        outcome=outcome_of(error) if error else Outcome.SAVED,
        reason=what if error else "",
        image_id=job.image_id,
        map_sha256=saved.map_sha256 if saved else "",
    )


def save(orders: SaveOrders, jobs: Sequence[SaveJob], watch: Watch) -> tuple[CardResult, ...]:
    """Do every job and return the results in the order of ``jobs``. The caller holds
    ``batch_lock``: no other run writes these cards meanwhile."""
    savers = Savers(orders, watch)
    with interruptible(savers) as stopped:
        return worked_off(savers, jobs, stopped)

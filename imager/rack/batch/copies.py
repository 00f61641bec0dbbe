"""One image on many cards at the same time, from one reading of its source.

In: a source and accepted targets. Out: a result for each. All cards begin at once, for whoever came
later would need a reading of its own; the slowest one sets the pace of the writing. A card that
fails drops out, and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imager.base.trusted_folder import TrustedFolder
from imager.card.host.refusals import AcceptedTarget
from imager.card.host.target import Target
from imager.card.make.finish import MadeCard
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.source.source import ImageSource
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.card.write.pour import Pouring
from imager.rack.batch.card_progress import CardBoard
from imager.rack.batch.workers import (
    CardResult,
    Watch,
    Workers,
    interruptible,
    memory_share,
    worked_off,
)


@dataclass(frozen=True, slots=True)
class CopyJob:
    """One card that gets the image."""

    accepted: AcceptedTarget
    slot = ""

    @property
    def name(self) -> str:
        """Where it is."""
        return self.target.node

    @property
    def target(self) -> Target:
        """Where it is to be made."""
        return self.accepted.target


@dataclass(frozen=True, slots=True)
class CopyOrders:
    """What is copied: ``mapped_bytes`` of it go to each card. Receipts go into ``receipts``."""

    source: ImageSource
    mapped_bytes: int
    receipts: TrustedFolder
    probe: bool


class Copiers(Workers[CopyJob]):
    """The workers of one run for as many ``cards`` of one source."""

    def __init__(self, orders: CopyOrders, jobs: Sequence[CopyJob], watch: Watch) -> None:
        super().__init__(watch)
        self._orders = orders
        share = memory_share(len(jobs))
        blocks = [options_for(job.target, most_bytes=share).block_bytes for job in jobs]
        self._pouring = Pouring(orders.source, block_bytes=max(blocks), expected=len(jobs))

    def _port(self, job: CopyJob) -> str | None:
        """See Workers: none waits, so that all get what is read."""
        del job
        return None

    def _make(self, job: CopyJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        orders = self._orders
        # While it is written, the bar also moves over what need not be written.
        board.expect(orders.source.least_bytes + orders.mapped_bytes)
        order = SourceOrder(
            orders.source, job.accepted.need_bytes, job.accepted, orders.receipts, options=options
        )
        return make_poured_card(order, board, probe=orders.probe, pouring=self._pouring)


def copy_to(orders: CopyOrders, jobs: Sequence[CopyJob], watch: Watch) -> tuple[CardResult, ...]:
    """Make every card and return the results in the order of ``jobs``; after Ctrl-C each card is
    left blank or whole, and its result says which."""
    copiers = Copiers(orders, jobs, watch)
    with interruptible(copiers) as stopped:
        return worked_off(copiers, jobs, stopped)

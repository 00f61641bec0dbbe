"""Makes the cards of many nodes at the same time.

In: jobs, one for each node's card; more can be added at any time. Out: for each job a result. All
cards are written from one golden file, which is in this computer's memory after the first. A node's
own image is made only when its card is next, so that the first card begins at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from imager.card.host.refusals import accept
from imager.card.host.swap_room import require_swap_room
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits, Target
from imager.card.make.boot_check import BootCheck
from imager.card.make.finish import MadeCard
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.stages import WriteOptions
from imager.config.rack import Node, Rack
from imager.node.content import recipe_of
from imager.node.edit.edit import OpenGolden
from imager.node.image import NodeImage
from imager.node.personalise import personalise_one
from imager.rack.batch.card_progress import CardBoard
from imager.rack.batch.workers import Watch, Workers
from imager.rack.history.recorded import Work, recorded
from imager.rack.plan.plan import PlannedCard


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


class Crew(Workers[CardJob]):
    """The workers of one run for the nodes of a rack."""

    def __init__(self, orders: Orders, watch: Watch) -> None:
        super().__init__(watch, orders.at_once, orders.kernel)
        self._orders = orders
        # To make a node's image keeps a processor busy: more at a time would only delay the first.
        # Few threads do it, because each keeps the memory it has used (malloc's arenas).
        self._preparers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="prepare")
        self._bootable: set[tuple[str, tuple[str, ...]]] = set()

    @property
    def busy(self) -> tuple[str, ...]:
        """See Makers (``imager.rack.batch.station``)."""
        return (*self.at_work, *(job.name for job in self.waiting))

    def make(self, step: PlannedCard) -> None:
        """See Makers."""
        card = step.candidate
        self.add(CardJob(step.node, card.target, card.size_bytes, card.slot or ""))

    def close(self) -> None:
        """See Workers."""
        super().close()
        self._preparers.shutdown()

    # ── in the worker's thread ──────────────────────────────────────────────────────────────

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

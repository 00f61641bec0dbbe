"""The cards of one order, made here by the engine of ``rack flash``.

In: a WorkOrder and its deltas. Out: cards, a report of each that is kept until the head has it, and
once a second what goes on. Nobody needs to listen: a station finishes what it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.errors import (
    ConfigurationError,
    NotAuthentic,
    PicloudError,
    TargetRefused,
)
from imager.base.programs import tool_version
from imager.card.host.disks import Disk, disk_named
from imager.card.host.refusals import accept
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits
from imager.card.make.boot_check import BootCheck
from imager.card.make.finish import MadeCard
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.stages import WriteOptions
from imager.image.compose.golden import GoldenImage
from imager.rack.batch.card_progress import CardBoard, CardEvent
from imager.rack.batch.workers import (
    AtWork,
    CardResult,
    Job,
    Workers,
    interruptible,
    known_error,
    worked_off,
)
from imager.rack.history.outcome import outcome_of
from imager.stations.desk.desk import EVERY_SECONDS, Desk
from imager.stations.desk.golden import ordered_golden
from imager.stations.desk.image import ordered_image
from imager.stations.desk.records import report_on
from imager.stations.desk.survey import station_limits
from imager.stations.wire.order import (
    CLOCK_SECONDS,
    ORDER_SECONDS,
    CardWork,
    WorkOrder,
)
from imager.stations.wire.report import NodeMoment, StationProgress, Told

_MOST_SAID = 200
"""Of what workers say in a second; the rest is in the receipts."""


@dataclass(frozen=True, slots=True)
class DeskJob:
    """One ordered card, and the disk it is made on."""

    card: CardWork
    target: Disk

    @property
    def name(self) -> str:
        """The node."""
        return self.card.node

    @property
    def slot(self) -> str:
        """The label of the reader, or empty."""
        return self.card.slot


class DeskCrew(Workers[DeskJob]):
    """The workers of one order."""

    def __init__(
        self,
        desk: Desk,
        order: WorkOrder,
        golden: GoldenImage,
        secrets: MutableMapping[str, bytes],
        watch: _Teller,
    ) -> None:
        super().__init__(watch, order.at_once, desk.kernel)
        self._desk, self._order, self._golden = desk, order, golden
        self._deltas = secrets

    def _make(self, job: DeskJob, board: CardBoard, options: WriteOptions) -> MadeCard:
        order, desk = self._order, self._desk
        packed = self._deltas.pop(job.card.secret, None)
        if packed is None:
            raise NotAuthentic(
                f"the head handed nothing over for {job.name}", hint="run the same command again"
            )
        image = ordered_image(order, job.card, self._golden, packed)
        del packed
        check = BootCheck(_Bootable(job.name, job.card.model), image)
        check.of_image()
        board.expect(2 * image.manifest.extents.total_bytes)
        limits = station_limits(desk.records, desk.cache, order.max_size_bytes)
        made = CardOrder(
            image,
            accept(_unchanged(job, limits, desk.kernel), image.layout.size_bytes, limits),
            desk.records.receipts,
            options=options,
            check=check,
            kernel=desk.kernel,
        )
        return make_card(made, board, update=order.update, probe=order.probe)


@dataclass(frozen=True, slots=True)
class _Bootable:
    name: str
    model: str


def _unchanged(job: DeskJob, limits: Limits, kernel: HostTrees) -> Disk:
    """The disk of ``job``, if it still is the one that was surveyed. What its first MiB holds is
    compared once it is claimed."""
    disk, card = disk_named(job.target.kernel_name, limits.ours, kernel), job.card
    pairs = (
        ("medium count (diskseq)", card.diskseq, disk.diskseq or 0),
        ("size in bytes", card.size_bytes, disk.size_bytes),
    )
    changes = [f"{what}: {old} then, {new} now" for what, old, new in pairs if old != new]
    if changes:
        raise TargetRefused(
            f"{card.path} is no longer the disk that was confirmed",
            hint="a card or reader was exchanged; look again and start again",
            details=changes,
        )
    return replace(disk, first_mib=card.first_mib)


def work(
    desk: Desk, order: WorkOrder, secrets: MutableMapping[str, bytes]
) -> tuple[CardResult, ...]:
    """Make every card of ``order`` and keep its report. Each of ``secrets`` is removed when its
    card is begun, so that nothing holds it when that is done.

    Raises PicloudError where none is begun: the order is old or another version's, this station has
    no room, the golden image cannot be had; KeyboardInterrupt where the head was stopped before
    it was. To be called in the main thread, where SIGTERM becomes a KeyboardInterrupt.
    """
    _require_fresh(order)
    jobs = [DeskJob(card, _disk(card, desk.kernel)) for card in order.cards]
    with desk.records.doing(order) as stop:
        teller = _Teller(desk, order, stop)
        try:
            golden = ordered_golden(desk, order, stop)
        except (PicloudError, KeyboardInterrupt) as error:
            for job in jobs:
                teller.ended(CardResult(job, outcome_of(error), error=known_error(error)))
            raise
        crew = DeskCrew(desk, order, golden, secrets, teller)
        with interruptible(crew) as stopped:
            teller.stop = stopped.set
            results = worked_off(crew, jobs, stopped)
            teller.turn(crew)
        return results


def _disk(card: CardWork, kernel: HostTrees) -> Disk:
    """The disk as it is now; one that is gone has no size, and is refused when its turn comes."""
    name = card.path.removeprefix(f"{kernel.dev}/")
    if "/" in name:
        raise TargetRefused(
            f"{card.path} is no disk of this station", hint="run the head's command again"
        )
    return disk_named(name, (), kernel)


def _require_fresh(order: WorkOrder) -> None:
    if order.version != tool_version():
        raise ConfigurationError(
            f"this station has picloud-image {tool_version()}, the head {order.version}",
            hint="install the head's version on this station",
        )
    late = time.time() - order.at
    if not -CLOCK_SECONDS < late < ORDER_SECONDS:
        raise TargetRefused(
            f"the order is {late:.0f} s old by this station's clock", hint="run the command again"
        )


class _Teller:
    """The Watch of a station's crew: a line a second, and the report of each card."""

    def __init__(self, desk: Desk, order: WorkOrder, stop: Path) -> None:
        self._desk, self._order, self._stop = desk, order, stop
        self._said: list[Told] = []
        self._ended: list[str] = []
        self._last = 0.0
        self.stop: Callable[[], None] = lambda: None

    def began(self, job: Job) -> None:
        """See Watch."""

    def heard(self, job: Job, event: CardEvent) -> None:
        """See Watch."""
        if len(self._said) < _MOST_SAID:
            self._said.append(Told(job.name, event))

    def ended(self, result: CardResult) -> None:
        """See Watch."""
        card = next(card for card in self._order.cards if card.node == result.job.name)
        records = self._desk.records
        receipt = result.receipt or records.receipt(result.receipt_name)
        report = report_on(
            self._order,
            card,
            result.outcome,
            result.error,
            seconds=result.seconds,
            receipt=receipt,
        )
        records.ended(self._order, card, report)
        self._ended.append(card.node)

    def turn(self, crew: AtWork) -> None:
        """See Watch."""
        now = time.monotonic()
        if now - self._last < EVERY_SECONDS and not self._ended:
            return
        self._last = now
        moments = (
            NodeMoment(name, moment)
            for name in crew.at_work
            if (moment := crew.moment(name)) is not None
        )
        said, ended = tuple(self._said), tuple(self._ended)
        self._said.clear()
        self._ended.clear()
        self._desk.tell(StationProgress(self._order.job, tuple(moments), said, ended))
        if self._stop.exists():
            self.stop()

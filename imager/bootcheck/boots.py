"""The partition that each board boots from: the first, or the one that autoboot.txt names.

In: a card and the files of its first partition. Out: for each board the files of its own, and what
is wrong with the way there. A second boot partition is read once, for all boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from imager.base.boards import Board
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.meanings import finding
from imager.bootcheck.partitions import Card, read_boot
from imager.bootcheck.route.autoboot import AUTOBOOT, Autoboot


@dataclass(frozen=True, slots=True)
class BootPartition:
    """Where a board's boot goes on. ``contents`` is None where it cannot; ``arrived`` are the steps
    from the first partition to this one, none where it is the first itself."""

    number: int
    contents: Contents | None
    findings: tuple[Finding, ...] = ()
    arrived: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """The files of the first partition that lead here."""
        return self.arrived[:1]

    def placed(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """``findings`` about this partition, which is named where it is not the first."""
        for found in findings:
            if self.arrived:
                yield replace(found, what=f"partition {self.number}: {found.what}")
            else:
                yield found


class BootPartitions:
    """The partitions of ``card`` from which boards boot; ``first`` are the files of the first."""

    def __init__(self, card: Card, first: Contents) -> None:
        self.first = first
        self._card = card
        self._others: dict[int, BootPartition] = {}

    def of(self, model: Board) -> BootPartition:
        """The one that ``model`` boots from."""
        sent = Autoboot.of(self.first, model)
        if sent.partition == 1:
            return BootPartition(1, self.first, sent.findings)
        if sent.partition not in self._others:
            self._others[sent.partition] = self._read(sent.partition)
        other = self._others[sent.partition]
        return replace(other, findings=(*sent.findings, *other.findings))

    def _read(self, number: int) -> BootPartition:
        arrived = (AUTOBOOT, f"partition {number}")
        volume, found = read_boot(self._card, number)
        if volume is not None:
            contents = Contents(volume, {}, self._card.budget)
            return BootPartition(number, contents, tuple(found), arrived)
        why = found[0].what if found else f"the card has no partition {number}"
        lost = finding(Code.AUTOBOOT, f"{AUTOBOOT}: boot_partition={number}: {why}", path=AUTOBOOT)
        return BootPartition(number, None, (lost,), arrived)

"""The partition that each board boots from: the first, or the one that autoboot.txt names.

In: a card and the files of its first partition. Out: for each board the files of its own, and what
is wrong with the way there. A second boot partition is read once, for all boards.

The EEPROM of a Pi 4 or 5 goes further: where autoboot.txt leads nowhere it takes the first one, and
where that has no firmware for it the next FAT that has (Raspberry Pi documentation, "autoboot.txt":
"the first bootable FAT partition", which has a start.elf, or a config.txt for a Pi 5; release notes
of the EEPROM, 2022-10-18). Both depend on its age.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from imager.base.boards import Board
from imager.bootcheck.contents import Contents
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.meanings import finding
from imager.bootcheck.partitions import GPT_TYPES, TYPES_PROVEN, TYPES_REPORTED, Card, read_boot
from imager.bootcheck.route.autoboot import AUTOBOOT, Autoboot
from imager.bootcheck.route.chain import BOOT_IMAGE, RECOVERY

_FAT_TYPES = TYPES_PROVEN | TYPES_REPORTED | GPT_TYPES


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
        return tuple(step for step in self.arrived if step == AUTOBOOT)

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
        """The one that ``model`` boots from. What was not looked at is noted anew, for it."""
        for contents in self._all():
            contents.unseen.clear()
        sent = Autoboot.of(self.first, model)
        if sent.partition == 1:
            other = None if model.needs_bootcode else self._next_bootable(model)
            return other or BootPartition(1, self.first, sent.findings)
        other = self._other(sent.partition)
        if other.contents is None and not model.needs_bootcode and _is_bootable(self.first, model):
            back = [replace(each, severity=Severity.WARNING) for each in other.findings]
            return BootPartition(1, self.first, (*sent.findings, *back))
        return replace(other, findings=(*sent.findings, *other.findings))

    @property
    def unseen(self) -> Mapping[str, str]:
        """The files that were asked for since then, and not looked at to their end; why."""
        return {path: why for each in self._all() for path, why in each.unseen.items()}

    def _all(self) -> Iterator[Contents]:
        yield self.first
        yield from (each.contents for each in self._others.values() if each.contents is not None)

    def _next_bootable(self, model: Board) -> BootPartition | None:
        """The first other FAT that ``model`` can start from, where the first partition is none."""
        if self._card.table is None or _is_bootable(self.first, model):
            return None
        for part in self._card.table.partitions:
            if part.index == 1 or part.type_id not in _FAT_TYPES:
                continue
            other = self._other(part.index)
            if other.contents is not None and _is_bootable(other.contents, model):
                what = (
                    f"partition 1 has nothing that a {model.title} starts, partition {part.index} "
                    "has"
                )
                way = finding(Code.BOOT_PARTITION_LATER, what)
                arrived = (f"partition {part.index}",)
                return replace(other, findings=(way, *other.findings), arrived=arrived)
        return None

    def _other(self, number: int) -> BootPartition:
        if number not in self._others:
            self._others[number] = self._read(number)
        return self._others[number]

    def _read(self, number: int) -> BootPartition:
        arrived = (AUTOBOOT, f"partition {number}")
        volume, found = read_boot(self._card, number)
        if volume is not None:
            contents = Contents(volume, {}, self._card.budget)
            return BootPartition(number, contents, tuple(found), arrived)
        why = found[0].what if found else f"the card has no partition {number}"
        lost = finding(Code.AUTOBOOT, f"{AUTOBOOT}: boot_partition={number}: {why}", path=AUTOBOOT)
        return BootPartition(number, None, (lost,), arrived)


def _is_bootable(contents: Contents, model: Board) -> bool:
    """Whether an EEPROM would take the partition for one to boot ``model`` from."""
    pair = model.firmware_pair("")
    names = (pair[0] if pair else "config.txt", BOOT_IMAGE, *RECOVERY.values())
    return any((entry := contents.entry(name)) and entry.size_bytes for name in names)

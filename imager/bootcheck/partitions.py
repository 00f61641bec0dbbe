"""What the boot ROM needs of the partition table and of the boot partition.

In: a way to read the card. Out: the parsed parts and the findings about them. Only the first table
entry counts for the boot ROM, and only by its type; sources: Raspberry Pi documentation ("legacy
boot flow") and the reports in raspberrypi/firmware issues 1711, 1738 and 2030.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from imager.base.boards import Board
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.instead import Instead, no_card
from imager.bootcheck.meanings import finding
from imager.bootcheck.root.roots import Roots
from imager.disk.budget import Budget
from imager.disk.extents import Extent
from imager.disk.fat.volume import FatError, FatFault, FatVolume, FaultKind
from imager.disk.manifest import Reader
from imager.disk.mbr import MbrError, Partition
from imager.disk.padded import padded
from imager.disk.table import TYPE_PROTECTIVE, PartitionTable, TablePartition, read_table

TYPES_PROVEN = frozenset({0x0B, 0x0C})
TYPES_REPORTED = frozenset({0x01, 0x04, 0x06, 0x0E})
TYPE_EFI = 0xEF
"""EFI system: a Pi 3 refuses it (raspberrypi/firmware issue 1711), the EEPROM of a Pi 4 or 5 takes
it since mid 2020 (raspberrypi/rpi-eeprom issue 126)."""
GPT_TYPES = frozenset(
    {"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"}
)
"""Basic data and EFI system: what the EEPROM of a Pi 4 or 5 (since mid 2020) takes for a FAT in a
GPT; sources: raspberrypi/rpi-eeprom issues 126, 359 and 818, pftf/RPi4 issue 259."""

_FAULT_CODES = {
    FaultKind.COPIES_DIFFER: Code.FAT_COPIES_DIFFER,
    FaultKind.CROSS_LINKED: Code.FAT_CROSS_LINKED,
    FaultKind.LOOP: Code.FAT_CHAIN,
    FaultKind.CHAIN_BROKEN: Code.FAT_CHAIN,
    FaultKind.CHAIN_SHORT: Code.FAT_CHAIN,
    FaultKind.CHAIN_LONG: Code.FAT_CHAIN,
    FaultKind.LOST_CLUSTERS: Code.FAT_LOST_CLUSTERS,
    FaultKind.DIRECTORY_DAMAGED: Code.FAT_DIRECTORY,
    FaultKind.BACKUP_DIFFERS: Code.FAT_BACKUP_DIFFERS,
    FaultKind.CLUSTER_COUNT: Code.FAT_SIZE,
    FaultKind.TOO_LARGE: Code.FAT_SIZE,
    FaultKind.DIRTY: Code.FAT_DIRTY,
    FaultKind.NOT_LOOKED_AT: Code.NOT_LOOKED_AT,
}


@dataclass(frozen=True, slots=True)
class Card:
    """The parts of a card that could be read; a part that could not is None. ``read`` gives
    zeros past the card's end, and ``budget`` is what is left for looking at it further."""

    table: PartitionTable | None
    fat: FatVolume | None
    roots: Roots
    findings: tuple[Finding, ...]
    read: Reader
    budget: Budget
    size_bytes: int

    @property
    def has_gpt(self) -> bool:
        """Whether the boot partition is found through a GPT, because the first entry of the MBR
        only protects one."""
        return self.table is not None and _protects(self.table)

    def findings_for(self, board: Board) -> Iterator[Finding]:
        """What is wrong with the way to the boot partition for some boards only."""
        boot = self.table.mbr.partition(1) if self.table else None
        if boot is None or boot.type_id not in (TYPE_PROTECTIVE, TYPE_EFI):
            return
        if boot.type_id == TYPE_EFI:
            refused = board.needs_bootcode
            code = Code.PARTITION_TYPE_REFUSED if refused else Code.PARTITION_TYPE_UNPROVEN
            yield finding(code, f"partition 1 has type {TYPE_EFI:02x}")
        elif board.needs_bootcode:
            yield finding(Code.GPT_ONLY, "the card has a GPT and only a protective MBR")


def read_card(read: Reader, size_bytes: int) -> Card:
    """Read table and boot partition of a card of ``size_bytes``."""
    read, budget = padded(read, size_bytes), Budget.of_disk(size_bytes)
    table = _table_or_instead(read, size_bytes)
    if isinstance(table, Instead):
        roots = Roots(read, None, size_bytes, budget)
        missing = finding(Code.MBR_MISSING, table.what, mend=table.mend)
        return Card(None, None, roots, (missing,), read, budget, size_bytes)
    roots = Roots(read, table, size_bytes, budget)
    findings = list(_table_findings(table, size_bytes))
    fat = None
    boot = _boot_partition(table)
    if boot is not None and boot.extent.offset < size_bytes:
        fat, found = _read_fat(read, boot.extent, boot.index, size_bytes, budget)
        findings.extend(found)
    return Card(table, fat, roots, tuple(findings), read, budget, size_bytes)


def _protects(table: PartitionTable) -> bool:
    first = table.mbr.partition(1)
    return first is not None and first.type_id == TYPE_PROTECTIVE


def _boot_partition(table: PartitionTable) -> TablePartition | Partition | None:
    """The first partition in an MBR, the first one for a FAT in a GPT."""
    if not _protects(table):
        return table.mbr.partition(1)
    return next((part for part in table.partitions if part.type_id in GPT_TYPES), None)


def _table_or_instead(read: Reader, size_bytes: int) -> PartitionTable | Instead:
    """The table of a card, or what it is that is no card. A FAT without a table, and a disc for
    PCs, have a first sector like that of a card."""
    try:
        table = read_table(read, size_bytes)
    except MbrError as error:
        return no_card(read, size_bytes) or Instead(str(error))
    first = table.mbr.partition(1)
    types = TYPES_PROVEN | TYPES_REPORTED | {TYPE_PROTECTIVE}
    if table.partitions and first is not None and first.type_id in types:
        return table
    found = no_card(read, size_bytes)
    is_typed = any(part.type_id for part in table.partitions)
    return found if found is not None and (found.is_disc or not is_typed) else table


def _table_findings(table: PartitionTable, size_bytes: int) -> Iterator[Finding]:
    yield from _cut_short(table, size_bytes)
    boot = table.mbr.partition(1)
    if _protects(table):
        if table.gpt is None:
            what = f"the table says that there is a GPT, and {table.gpt_fault}"
            yield finding(Code.BOOT_PARTITION_MISSING, what)
        elif _boot_partition(table) is None:
            what = "no partition of the GPT is of a type for FAT (basic data, EFI system)"
            yield finding(Code.BOOT_PARTITION_MISSING, what)
    elif boot is None:
        yield finding(Code.BOOT_PARTITION_MISSING, "the first entry of the table is empty")
    elif boot.type_id not in TYPES_PROVEN | {TYPE_EFI}:
        what = f"partition 1 has type {boot.type_id:02x}"
        known = boot.type_id in TYPES_REPORTED
        yield finding(Code.PARTITION_TYPE_UNPROVEN if known else Code.PARTITION_TYPE_REFUSED, what)
    if table.gpt_fault and not _protects(table):
        protective = next(p for p in table.mbr.partitions if p.type_id == TYPE_PROTECTIVE)
        # The kernel's block/partitions/msdos.c leaves such a table alone altogether.
        what = f"entry {protective.index} of the table says that there is a GPT, and "
        yield finding(Code.GPT_LOST, what + table.gpt_fault)
    ordered = sorted(table.partitions, key=lambda partition: partition.extent.offset)
    for low, high in pairwise(ordered):
        if low.extent.end > high.extent.offset:
            what = f"partitions {low.index} and {high.index} overlap"
            yield finding(Code.PARTITIONS_OVERLAP, what)


def _cut_short(table: PartitionTable, size_bytes: int) -> Iterator[Finding]:
    """One finding for all that lies behind the end, because it has one cause."""
    beyond = [part for part in table.partitions if part.extent.end > size_bytes]
    if not beyond:
        return
    end = max(part.extent.end for part in beyond)
    places = [
        f"partition {part.index} begins at byte {part.extent.offset}"
        if part.extent.offset >= size_bytes
        else f"partition {part.index} ends at byte {part.extent.end}"
        for part in beyond[:4]
    ]
    what = f"cut short at byte {size_bytes} of {end}: {', '.join(places)}"
    yield finding(Code.PARTITION_OUTSIDE, what)


def read_boot(card: Card, index: int) -> tuple[FatVolume | None, list[Finding]]:
    """The FAT on another partition than the first, and what is wrong with it; None and no finding
    where the card has no such partition, or one of type 00, which Linux has and no firmware."""
    boot = card.table.partition(index) if card.table else None
    if boot is None or not boot.type_id or boot.extent.offset >= card.size_bytes:
        return None, []
    return _read_fat(card.read, boot.extent, index, card.size_bytes, card.budget)


def _read_fat(
    read: Reader, place: Extent, index: int, size_bytes: int, budget: Budget
) -> tuple[FatVolume | None, list[Finding]]:
    where = f"partition {index}"
    try:
        fat = FatVolume.parse(
            read, place.offset, min(place.length, size_bytes - place.offset), budget
        )
    except FatError as error:
        return None, [finding(Code.FAT_MISSING, f"{where}: {error}")]
    found = [*_shape_findings(fat, where), *(_fault_finding(fault, where) for fault in fat.faults)]
    if fat.faults_left_out:
        what = f"{where}: there are {fat.faults_left_out} more faults like these"
        found.append(finding(_FAULT_CODES[fat.faults[-1].kind], what))
    return fat, found


def _shape_findings(fat: FatVolume, where: str) -> Iterator[Finding]:
    if fat.sector_bytes != 512:
        what = f"{where} has sectors of {fat.sector_bytes} bytes"
        yield finding(Code.FAT_SECTOR_SIZE, what)
    if fat.kind != 32:
        yield finding(Code.FAT_KIND, f"{where} is FAT{fat.kind}")
    if fat.sectors_per_cluster not in (1, 4):
        what = f"{where} has {fat.sectors_per_cluster} sectors per cluster"
        yield finding(Code.FAT_CLUSTER_SIZE, what)


def _fault_finding(fault: FatFault, where: str) -> Finding:
    code = _FAULT_CODES[fault.kind]
    # Where the tables differ only for clusters of no file, nothing goes wrong today.
    harmless = fault.kind is FaultKind.COPIES_DIFFER and not fault.paths
    return finding(
        code,
        f"{where}: {fault.what}",
        path=fault.paths[0] if fault.paths else None,
        severity=Severity.WARNING if harmless else None,
    )

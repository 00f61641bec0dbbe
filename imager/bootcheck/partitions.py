"""What the boot ROM and the kernel need of the partition table and of both partitions.

In: a way to read the card. Out: the parsed parts and the findings about them. Only the first table
entry counts for the boot ROM, and only by its type; sources: Raspberry Pi documentation ("legacy
boot flow") and the reports in raspberrypi/firmware issues 1711, 1738 and 2030.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from imager.base.units import SECTOR_BYTES, MiB
from imager.bootcheck.findings import Code, Finding, Severity
from imager.bootcheck.meanings import finding
from imager.disk.budget import Budget
from imager.disk.ext4.filesystem import Ext4
from imager.disk.extents import Extent
from imager.disk.fat.volume import FatError, FatFault, FatVolume, FaultKind
from imager.disk.manifest import Reader
from imager.disk.mbr import Mbr, MbrError, Partition, parse

PROTECTIVE_GPT = 0xEE
TYPES_PROVEN = frozenset({0x0B, 0x0C})
TYPES_REPORTED = frozenset({0x01, 0x04, 0x06, 0x0E})

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
class RootFilesystem:
    """What is known of the root filesystem; ``node`` is the name in its /etc/hostname."""

    uuid: str
    label: str
    node: str | None


@dataclass(frozen=True, slots=True)
class Card:
    """The parts of a card that could be read; a part that could not is None. ``read`` gives
    zeros past the card's end, and ``budget`` is what is left for looking at it further."""

    mbr: Mbr | None
    fat: FatVolume | None
    root: RootFilesystem | None
    findings: tuple[Finding, ...]
    read: Reader
    budget: Budget
    size_bytes: int


def read_card(read: Reader, size_bytes: int) -> Card:
    """Read table, boot partition and root partition of a card of ``size_bytes``."""
    read, budget = _padded(read, size_bytes), Budget.of_disk(size_bytes)
    try:
        mbr = parse(read(0, SECTOR_BYTES))
    except MbrError as error:
        missing = finding(Code.MBR_MISSING, str(error))
        return Card(None, None, None, (missing,), read, budget, size_bytes)
    findings = list(_table_findings(mbr, size_bytes))
    fat, root = None, None
    boot = mbr.partition(1)
    if boot is not None and boot.type_id != PROTECTIVE_GPT and boot.extent.offset < size_bytes:
        fat, found = _read_fat(read, boot.extent, 1, size_bytes, budget)
        findings.extend(found)
    second = mbr.partition(2)
    if second is not None and second.extent.offset < size_bytes:
        root, found = _read_root(read, second, budget)
        findings.extend(found)
    return Card(mbr, fat, root, tuple(findings), read, budget, size_bytes)


def _padded(read: Reader, size_bytes: int) -> Reader:
    """As ``read``, with zeros behind the end: an image file may end before its last partition."""

    def padded(offset: int, length: int) -> bytes:
        inside = max(0, min(length, size_bytes - offset))
        data = read(offset, inside) if inside else b""
        return data + bytes(length - len(data))

    return padded


def _table_findings(mbr: Mbr, size_bytes: int) -> Iterator[Finding]:
    types = {partition.type_id for partition in mbr.partitions}
    if types == {PROTECTIVE_GPT}:
        yield finding(Code.GPT_ONLY, "the card has a GPT and only a protective MBR")
        return
    boot = mbr.partition(1)
    if boot is None:
        yield finding(Code.BOOT_PARTITION_MISSING, "the first entry of the table is empty")
    elif boot.type_id not in TYPES_PROVEN:
        what = f"partition 1 has type {boot.type_id:02x}"
        known = boot.type_id in TYPES_REPORTED
        yield finding(Code.PARTITION_TYPE_UNPROVEN if known else Code.PARTITION_TYPE_REFUSED, what)
    if mbr.partition(2) is None:
        yield finding(Code.ROOT_PARTITION_MISSING, "the table has no second partition")
    for partition in mbr.partitions:
        if partition.extent.end > size_bytes:
            yield finding(
                Code.PARTITION_OUTSIDE,
                f"partition {partition.index} ends at byte {partition.extent.end}, "
                f"the card at byte {size_bytes}",
            )
    ordered = sorted(mbr.partitions, key=lambda partition: partition.start_lba)
    for low, high in pairwise(ordered):
        if low.extent.end > high.extent.offset:
            what = f"partitions {low.index} and {high.index} overlap"
            yield finding(Code.PARTITIONS_OVERLAP, what)


def read_boot(card: Card, index: int) -> tuple[FatVolume | None, list[Finding]]:
    """The FAT on another partition than the first, and what is wrong with it; None and no finding
    where the card has no such partition."""
    boot = card.mbr.partition(index) if card.mbr else None
    if boot is None or boot.extent.offset >= card.size_bytes:
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


def _read_root(
    read: Reader, second: Partition, budget: Budget
) -> tuple[RootFilesystem | None, list[Finding]]:
    offset = second.extent.offset
    try:
        ext4 = Ext4.open(read, offset, budget)
    except ValueError as error:
        head = read(offset, min(MiB, second.extent.length))
        code = Code.ROOT_UNPROVEN if any(head) else Code.ROOT_FILESYSTEM
        said = str(error) if any(head) else "its first MiB holds only zeros"
        return None, [finding(code, f"partition 2: {said}")]
    findings = []
    filesystem_end = offset + ext4.blocks_count * ext4.block_size
    if filesystem_end > second.extent.end:
        what = f"its filesystem ends at byte {filesystem_end}, the partition at {second.extent.end}"
        findings.append(finding(Code.ROOT_FILESYSTEM, f"partition 2: {what}"))
    if ext4.needs_recovery:
        findings.append(finding(Code.ROOT_JOURNAL, "partition 2: its journal is not empty"))
    return RootFilesystem(str(ext4.uuid), ext4.label, _hostname(ext4)), findings


def _hostname(ext4: Ext4) -> str | None:
    """The first word of /etc/hostname; None where it is missing or the filesystem is too damaged
    to tell, which is for e2fsck to judge."""
    try:
        words = ext4.read_file("/etc/hostname", limit_bytes=4096).decode().split()
    except (ValueError, LookupError, struct.error, FileNotFoundError):
        return None
    return words[0] if words else None

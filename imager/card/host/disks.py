"""The disks of this computer, each a target.

In: the kernel's view (``imager.card.host.sysfs``). Out: Disks, whose facts were gathered at one
moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.units import SECTOR_BYTES
from imager.card.host.disk_facts import Bus, Content, DiskFacts, DiskPartition
from imager.card.host.eject import eject
from imager.card.host.exclusive import held_disk
from imager.card.host.first_mib import digest_of
from imager.card.host.refusals import against_disk, refusals, refused
from imager.card.host.sysfs import HostTrees, Properties
from imager.card.host.target import HeldTarget, Limits, Queue, Refusal, Target, TargetFacts
from imager.card.host.usage import SYSTEM_FOLDERS, backs_of, uses_of

_MANY_COMMANDS = 8
_ROOT_PORT = re.compile(r"/(usb\d+)/(\d+-\d+)(?=/)")


@dataclass(frozen=True, slots=True)
class Disk(DiskFacts, Target):
    """A whole disk that a card can be made on: mostly a card in a reader."""

    noun = "a disk"

    @property
    def facts(self) -> TargetFacts:
        """See Target."""
        return TargetFacts(
            path=self.node,
            size_bytes=self.size_bytes,
            bus=self.bus.value,
            slot=self.by_path[0] if self.by_path else "",
            by_id=self.by_id[0] if self.by_id else "",
            vendor=self.vendor,
            model=self.model,
            serial=self.serial,
            cid=self.cid,
            diskseq=self.diskseq or 0,
            logical_bytes=self.logical_bytes,
            physical_bytes=self.physical_bytes,
        )

    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        """See Target."""
        return against_disk(self, need_bytes, limits)

    @contextmanager
    def hold(self, size_bytes: int, limits: Limits, kernel: HostTrees) -> Iterator[HeldTarget]:
        """See Target. The disk is looked at again once it is open, because it may have changed
        since the person said yes."""
        with held_disk(self, kernel) as held:
            now = disk_named(self.kernel_name, limits.ours, kernel)
            reasons = refusals(now, size_bytes, limits)
            if reasons:
                raise refused(now, reasons)
            yield held

    @property
    def capacity_bytes(self) -> int:
        """See Target."""
        return self.size_bytes

    def shown_with(self, first_mib: bytes | None) -> Disk:
        """See Target."""
        return replace(self, first_mib=None if first_mib is None else digest_of(first_mib))

    @property
    def losses(self) -> tuple[str, ...]:
        """See Target."""
        on_it = self.holds or ("nothing known",)
        return (
            f"Everything on {self.title} will be lost.",
            *(f"    on it now: {held}" for held in on_it),
        )

    @property
    def takes_many(self) -> bool:
        """See Target: true of fixed disks such as NVMe and UAS; a card does one transfer at a
        time."""
        if not self.is_fixed or self.bus is Bus.MMC:
            return False
        return self.bus is Bus.NVME or self.queue.commands >= _MANY_COMMANDS

    def root_port(self, kernel: HostTrees) -> str | None:
        """See Target."""
        if self.bus is not Bus.USB:
            return None
        match = _ROOT_PORT.search(str(kernel.folder(self.kernel_name)))
        return f"{match[1]}/{match[2]}" if match else None

    def eject(self) -> bool:
        """See Target."""
        return self.bus is Bus.USB and self.removable and eject(self.node)


def list_disks(watched: Iterable[Path] = (), kernel: HostTrees | None = None) -> tuple[Disk, ...]:
    """Every disk worth showing: no RAM disks, mapped devices, optical drives, unused loops."""
    kernel = kernel or HostTrees()
    names = [name for name in kernel.block_names() if _worth_showing(name, kernel)]
    return tuple(_disk(name, tuple(watched), kernel) for name in names)


def disk_named(name: str, watched: Iterable[Path] = (), kernel: HostTrees | None = None) -> Disk:
    """The disk with this kernel name (``sdb``, no partition), whatever kind it is.

    ``watched`` are folders besides the system's own of which ``Disk.backs`` shall tell.
    """
    return _disk(name, tuple(watched), kernel or HostTrees())


def _worth_showing(name: str, kernel: HostTrees) -> bool:
    if (kernel.folder(name) / "partition").exists():
        return False
    bus = _bus(name, {}, kernel)
    if bus is Bus.LOOP:
        return bool(kernel.attribute(name, "loop/backing_file"))
    return bus is not Bus.VIRTUAL


def _disk(name: str, watched: tuple[Path, ...], kernel: HostTrees) -> Disk:
    known = kernel.properties(name)
    bus = _bus(name, known, kernel)
    backing = dict(kernel.loops()).get(name)
    return Disk(
        node=str(kernel.dev / name),
        number=kernel.number(name),
        size_bytes=_integer(kernel.attribute(name, "size")) * SECTOR_BYTES,
        bus=bus,
        diskseq=_integer(kernel.attribute(name, "diskseq")) or None,
        logical_bytes=_integer(kernel.attribute(name, "queue/logical_block_size")) or 512,
        physical_bytes=_integer(kernel.attribute(name, "queue/physical_block_size")) or 512,
        vendor=kernel.attribute(name, "device/vendor") if bus is not Bus.VIRTIO else "",
        model=kernel.attribute(name, "device/model") or kernel.attribute(name, "device/name"),
        serial=kernel.serial(name),
        cid=kernel.attribute(name, "device/cid"),
        by_path=kernel.links(name, "by-path"),
        by_id=kernel.links(name, "by-id"),
        removable=_removable(name, bus, kernel),
        read_only=kernel.attribute(name, "ro") == "1",
        content=_content(known),
        partitions=tuple(_partition(part, kernel) for part in kernel.partitions(name)),
        uses=tuple(uses_of(name, kernel)),
        backs=backs_of(name, (*SYSTEM_FOLDERS, *watched), kernel),
        backing_file=Path(backing) if backing else None,
        backing_disk=backing if backing and kernel.number_at(backing) else None,
        queue=Queue(
            optimal_bytes=_integer(kernel.attribute(name, "queue/optimal_io_size")),
            erase_bytes=_integer(kernel.attribute(name, "device/preferred_erase_size")),
            commands=_integer(kernel.attribute(name, "device/queue_depth")),
        ),
    )


def _partition(name: str, kernel: HostTrees) -> DiskPartition:
    return DiskPartition(
        node=str(kernel.dev / name),
        size_bytes=_integer(kernel.attribute(name, "size")) * SECTOR_BYTES,
        content=_content(kernel.properties(name)),
    )


def _content(known: Properties) -> Content | None:
    kind = known.get("ID_FS_TYPE") or known.get("ID_PART_TABLE_TYPE")
    return Content(kind, known.get("ID_FS_LABEL", "")) if kind else None


def _bus(name: str, known: Properties, kernel: HostTrees) -> Bus:
    where = str(kernel.folder(name))
    prefixes = {"loop": Bus.LOOP, "mmcblk": Bus.MMC, "nvme": Bus.NVME, "vd": Bus.VIRTIO}
    for prefix, bus in prefixes.items():
        if name.startswith(prefix):
            return bus
    if name.startswith(("dm-", "md", "zram", "ram", "sr", "nbd", "bcache", "zd")):
        return Bus.VIRTUAL
    if "/usb" in where or known.get("ID_BUS") == "usb":
        return Bus.USB
    return Bus.ATA if "/ata" in where or known.get("ID_BUS") == "ata" else Bus.SCSI


def _removable(name: str, bus: Bus, kernel: HostTrees) -> bool:
    # Built-in SD slots report 0, so an MMC device is judged by its kind: a card or soldered eMMC.
    if bus is Bus.MMC:
        return kernel.attribute(name, "device/type") == "SD"
    return kernel.attribute(name, "removable") == "1"


def _integer(text: str) -> int:
    return int(text) if text.isdigit() else 0

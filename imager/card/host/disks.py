"""The disks of this computer: what each is, what is on it, and who uses it.

In: the kernel's view (``imager.card.host.sysfs``). Out: frozen facts, gathered once and judged
elsewhere (``refusals``), so that every judgement can be tested without a disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imager.base.units import SECTOR_BYTES, format_size
from imager.card.host.sysfs import HostTrees, Properties
from imager.card.host.usage import SYSTEM_FOLDERS, DiskUse, backs_of, uses_of


class Bus(StrEnum):
    """How a disk is attached."""

    USB = "usb"
    MMC = "mmc"
    LOOP = "loop"
    NVME = "nvme"
    ATA = "ata"
    SCSI = "scsi"
    VIRTIO = "virtio"
    VIRTUAL = "virtual"
    """dm, md, zram, ram: made of other things, no disk of its own."""


@dataclass(frozen=True, slots=True)
class Content:
    """A filesystem, table or signature: ``kind`` as blkid names it, ``label`` may be empty."""

    kind: str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.label!r}" if self.label else self.kind


@dataclass(frozen=True, slots=True)
class DiskPartition:
    """One partition of a disk; offset and size in bytes."""

    node: str
    number: str
    offset_bytes: int
    size_bytes: int
    content: Content | None

    def __str__(self) -> str:
        what = self.content or "nothing known"
        return f"{self.node}: {format_size(self.size_bytes)}, {what}"


@dataclass(frozen=True, slots=True)
class Queue:
    """What a device says of the transfers it likes; 0 where it says nothing.

    ``optimal_bytes`` is queue/optimal_io_size, ``erase_bytes`` device/preferred_erase_size (only
    native MMC hosts know a card's), ``commands`` device/queue_depth (SCSI, so USB too). The size
    at which the kernel splits transfers (max_sectors_kb) and how many pieces it queues
    (nr_requests) do not matter: it splits any transfer, and lets it wait.
    """

    optimal_bytes: int = 0
    erase_bytes: int = 0
    commands: int = 0


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole disk as it was when looked at.

    ``node`` is its real path, ``number`` its major:minor, ``diskseq`` the kernel's count of media
    (new for every insertion; None before Linux 5.15), ``cid`` the SD card's own register, which
    only native MMC hosts show. ``backs`` are those of the watched folders that lie on this disk,
    ``backing_file`` what a loop device shows. Sizes are bytes.
    """

    node: str
    number: str
    size_bytes: int
    bus: Bus
    diskseq: int | None = None
    logical_bytes: int = 512
    physical_bytes: int = 512
    vendor: str = ""
    model: str = ""
    serial: str = ""
    cid: str = ""
    by_path: tuple[str, ...] = ()
    by_id: tuple[str, ...] = ()
    removable: bool = False
    read_only: bool = False
    content: Content | None = None
    partitions: tuple[DiskPartition, ...] = ()
    uses: tuple[DiskUse, ...] = ()
    backs: tuple[Path, ...] = ()
    backing_file: Path | None = None
    backing_disk: str | None = None
    queue: Queue = Queue()

    @property
    def has_medium(self) -> bool:
        """False for a reader with an empty slot."""
        return self.size_bytes > 0

    @property
    def is_fixed(self) -> bool:
        """Whether this looks like a disk that stays in the computer."""
        return not (self.removable or self.bus is Bus.LOOP)

    @property
    def typed_name(self) -> str:
        """What a person must type before a fixed disk is overwritten."""
        return self.model or self.node.rpartition("/")[2]

    @property
    def title(self) -> str:
        """One line that tells this disk from any other one on the desk."""
        if self.backing_file:
            made = f"the file {self.backing_file}"
        else:
            made = " ".join(filter(None, (self.vendor, self.model))) or "no model name"
        serial = f", serial {self.serial}" if self.serial else ""
        size = format_size(self.size_bytes) if self.has_medium else "no card in it"
        return f"{self.node}: {made}{serial}, {size}, {self.bus}"

    @property
    def holds(self) -> tuple[str, ...]:
        """A line for everything known to be on the disk now."""
        lines = [str(partition) for partition in self.partitions]
        if self.content is not None and not lines:
            lines = [str(self.content)]
        return tuple(lines)


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
        serial=serial_of(name, kernel),
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


def serial_of(name: str, kernel: HostTrees) -> str:
    """The serial number udev or sysfs has for a disk; readers without one share their model's."""
    return kernel.udev(kernel.number(name)).get("ID_SERIAL_SHORT", "") or (
        kernel.attribute(name, "device/serial") or kernel.attribute(name, "serial")
    )


def _partition(name: str, kernel: HostTrees) -> DiskPartition:
    return DiskPartition(
        node=str(kernel.dev / name),
        number=kernel.number(name),
        offset_bytes=_integer(kernel.attribute(name, "start")) * SECTOR_BYTES,
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

"""What is known of a disk: what it is, what is on it, and who uses it.

In: nothing. Out: frozen values, made in ``disks`` from the kernel's view and judged in
``refusals``, so that every judgement can be tested without a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from imager.base.units import format_size
from imager.card.host.target import NO_WORD, Queue
from imager.card.host.usage import DiskUse


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
    """dm, md, zram, ram: made of other disks or of memory."""


@dataclass(frozen=True, slots=True)
class Content:
    """A filesystem, table or signature: ``kind`` as blkid names it, ``label`` may be empty."""

    kind: str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.label!r}" if self.label else self.kind


@dataclass(frozen=True, slots=True)
class DiskPartition:
    """One partition of a disk; its size in bytes."""

    node: str
    size_bytes: int
    content: Content | None

    def __str__(self) -> str:
        what = self.content or "nothing known"
        return f"{self.node}: {format_size(self.size_bytes)}, {what}"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A whole disk as it was at one moment; ``disks.Disk`` makes a target of it.

    ``node`` is its real path, ``number`` its major:minor, ``diskseq`` the kernel's count of media
    (new for every insertion; None before Linux 5.15), ``cid`` the SD card's own register, which
    only native MMC hosts show. ``backs`` are the watched folders that lie on this disk. For a loop
    device ``backing_file`` is the file behind it. ``first_mib`` is as Target says. Sizes are bytes.
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
    queue: Queue = NO_WORD
    first_mib: str | None = field(default=None, compare=False)

    @property
    def kernel_name(self) -> str:
        """``sdb`` for ``/dev/sdb``."""
        return self.node.rpartition("/")[2]

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
        return self.model or self.kernel_name

    @property
    def title(self) -> str:
        """One line by which a person can tell this disk from the others."""
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

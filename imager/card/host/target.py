"""What a target is: one class for each kind of thing that a card can be made on.

In: nothing. Out: the interface through which everything else speaks to a target, and the values
that it gives. A new kind is one class that implements ``Target``; nobody asks which kind it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from imager.base.json_fields import JsonObject
from imager.base.units import GiB
from imager.card.host.sysfs import HostTrees
from imager.card.medium.raw import RawCard
from imager.card.medium.reopen import FreshRead


class RefusalCode(StrEnum):
    """The kinds of refusal, as ``--json`` names them."""

    NOT_A_TARGET = "not-a-target"
    VIRTUAL = "virtual"
    MOUNTED = "mounted"
    SWAP = "swap"
    HELD = "held"
    LOOP_ON_TOP = "loop-on-top"
    LOOP_OVER_DISK = "loop-over-disk"
    SYSTEM = "system"
    OURS = "ours"
    READ_ONLY = "read-only"
    NO_MEDIUM = "no-medium"
    TOO_SMALL = "too-small"
    TOO_LARGE = "too-large"
    NO_SWAP_ROOM = "no-swap-room"
    FIXED = "fixed"
    NAME_NOT_TYPED = "name-not-typed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason; ``message`` says what is wrong, ``hint`` what to do about it."""

    code: RefusalCode
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the person allowed.

    ``max_size_bytes`` is 256 GiB by default, because cards sold as 256 GB hold up to one per cent
    more than 256 × 10⁹ bytes. ``allow_fixed_disk`` is None for what never takes a fixed disk, such
    as a batch; ``typed_name`` is what was typed to confirm one.
    ``ours`` are the cache and the rack's folder, as absolute real paths.
    """

    max_size_bytes: int = 256 * GiB
    allow_fixed_disk: bool | None = False
    typed_name: str | None = None
    ours: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """Which transfers suit a device, as it says itself; 0 where it says nothing.

    ``optimal_bytes`` is queue/optimal_io_size, ``erase_bytes`` device/preferred_erase_size (only
    native MMC hosts know a card's), ``commands`` device/queue_depth (SCSI, so USB too). The size
    at which the kernel splits transfers (max_sectors_kb) and how many pieces it queues
    (nr_requests) do not matter: it splits any transfer, and lets it wait.
    """

    optimal_bytes: int = 0
    erase_bytes: int = 0
    commands: int = 0


NO_WORD = Queue()
"""The answer of a device that says nothing."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """The card, its reader and its slot, as far as the computer can see them; sizes are bytes.
    Receipts and the ledger keep them."""

    path: str
    size_bytes: int
    bus: str
    slot: str = ""
    by_id: str = ""
    vendor: str = ""
    model: str = ""
    serial: str = ""
    cid: str = ""
    diskseq: int = 0
    logical_bytes: int = 0
    physical_bytes: int = 0

    @classmethod
    def from_json(
        cls, read: JsonObject, text: Callable[[JsonObject, str], str] = JsonObject.text
    ) -> TargetFacts:
        """The facts again, from the object of their fields; ``text`` reads a text. Raises
        JsonFault."""
        return cls(
            path=text(read, "path"),
            size_bytes=read.integer("size_bytes"),
            bus=text(read, "bus"),
            slot=text(read, "slot"),
            by_id=text(read, "by_id"),
            vendor=text(read, "vendor"),
            model=text(read, "model"),
            serial=text(read, "serial"),
            cid=text(read, "cid"),
            diskseq=read.integer("diskseq"),
            logical_bytes=read.integer("logical_bytes"),
            physical_bytes=read.integer("physical_bytes"),
        )


@dataclass(frozen=True, slots=True)
class HeldTarget:
    """A target that is open for this program alone.

    ``reopen`` gives a FreshRead of the same medium. ``keep`` makes what was written final.
    ``fallbacks`` says, in a sentence each, what the computer could not give (direct I/O, the lock).
    """

    raw: RawCard
    reopen: Callable[[], AbstractContextManager[FreshRead]]
    keep: Callable[[], None]
    fallbacks: tuple[str, ...] = ()


class Target(ABC):
    """Something a card can be made on, as it was when it was looked at.

    What every kind must say itself is abstract. The rest has an answer that is right for most
    kinds.
    """

    __slots__ = ()

    noun: ClassVar[str]
    """What to call one in a sentence: "a disk"."""
    made_anew: ClassVar[bool] = False
    """True for what is made new, with the size that is needed and full of zeros, each time it is
    written, and removed again unless it is kept. False for a medium that exists already."""

    @property
    @abstractmethod
    def node(self) -> str:
        """Its path, by which a person knows it."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Its present size."""

    @property
    @abstractmethod
    def facts(self) -> TargetFacts:
        """What receipts and the ledger keep of it."""

    @abstractmethod
    def against(self, need_bytes: int, limits: Limits) -> Iterator[Refusal]:
        """Every reason why it must not be given ``need_bytes`` bytes."""

    @abstractmethod
    def hold(
        self, size_bytes: int, limits: Limits, kernel: HostTrees
    ) -> AbstractContextManager[HeldTarget]:
        """Open it for this program alone, for an image of ``size_bytes``, for as long as the
        block lasts.

        Raises TargetRefused when it is in use after all, is another one now, or may not be
        opened; CardIOError when there is no room for it.
        """

    @property
    def station(self) -> str:
        """The computer whose card it is, by its Salt minion; empty for this one."""
        return ""

    @property
    def title(self) -> str:
        """One line by which a person can tell it from the others."""
        return self.node

    @property
    def capacity_bytes(self) -> int | None:
        """The size of a card on it; None where a person chooses the size."""
        return None

    @property
    def is_new(self) -> bool:
        """Whether nothing is there yet, so that nothing can be lost."""
        return False

    @property
    def holds(self) -> tuple[str, ...]:
        """A line for everything known to be on it now."""
        return ()

    @property
    def first_mib(self) -> str | None:
        """SHA-256 (hex) of its first MiB when it was shown; None where nobody looked, or could."""
        return None

    def shown_with(self, first_mib: bytes | None) -> Target:
        """The same target, which had ``first_mib`` when it was shown; None for not known."""
        del first_mib
        return self

    @property
    def losses(self) -> tuple[str, ...]:
        """What a person is told before saying yes, in lines."""
        return (f"{self.node} is replaced.",)

    @property
    def is_fixed(self) -> bool:
        """Whether a yes is not enough and a person must type ``typed_name``, because it looks
        like a disk that stays in the computer."""
        return False

    @property
    def typed_name(self) -> str:
        """What a person must type if ``is_fixed``."""
        return self.node.rpartition("/")[2]

    @property
    def by_path(self) -> tuple[str, ...]:
        """The links in /dev/disk/by-path that name its reader's slot."""
        return ()

    @property
    def queue(self) -> Queue:
        """Which transfers suit it."""
        return NO_WORD

    @property
    def takes_many(self) -> bool:
        """Whether it works on many transfers at the same time."""
        return False

    def root_port(self, kernel: HostTrees) -> str | None:
        """Its USB root port, such as ``usb2/2-1``; None if it is not on USB."""
        del kernel
        return None

    def eject(self) -> bool:
        """Ask its reader to let go of the card; False where it cannot, which does no harm."""
        return False

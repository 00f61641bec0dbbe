"""The types a card passes through: claimed, written, verified.

Each stage takes the one before it, so that no function can skip a proof: only ``claim`` makes a
ClaimedCard, only ``write_card`` and ``update_card`` a WrittenCard, only ``read_back`` a
VerifiedCard. A card that was written long ago and is to be restored is an UnprovenCard, as is
every WrittenCard. None of them outlives the ``with claim(...)`` block it came from.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from imager.card.diagnosis.trouble import Trouble
from imager.card.host.target import HeldTarget, Target
from imager.card.medium.meter import PhaseFigures
from imager.card.medium.raw import RawCard
from imager.card.medium.reopen import FreshRead
from imager.disk.extents import ExtentMap
from imager.node.image import NodeImage


@dataclass(slots=True)
class Log:
    """What happened to one card so far: the figures of every phase, also of one that failed, in
    order; whether any byte of it may have been changed (``touched``); and what was wrong with it,
    if anything was (``trouble``)."""

    phases: list[PhaseFigures] = field(default_factory=list)
    touched: bool = False
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class ClaimedCard:
    """The only handle through which a card can be written; ``log`` gathers what happened to it."""

    target: Target
    held: HeldTarget
    log: Log = field(default_factory=Log)

    @property
    def raw(self) -> RawCard:
        """Where to read and write."""
        return self.held.raw

    def reopen(self) -> AbstractContextManager[FreshRead]:
        """A FreshRead of the same medium."""
        return self.held.reopen()


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write: ``block_bytes`` a transfer, ``depth`` of them at a time; ``why`` these.

    Writing one card holds their product in memory at the most, reading it back 512 KiB more for
    each of ``depth``.
    """

    block_bytes: int
    depth: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class UnprovenCard:
    """A card that should hold ``image``, which nobody has proven yet.

    ``extents`` is what is to be read back, and to be rewritten where it is wrong.
    """

    card: ClaimedCard
    image: NodeImage
    extents: ExtentMap
    options: WriteOptions


@dataclass(frozen=True, slots=True)
class WrittenCard(UnprovenCard):
    """A card to which every byte of ``image`` was written and flushed, the first MiB last.

    ``extents`` is what was written now: the image's block map and the card's last MiB, or what of
    it differed before.
    """


@dataclass(frozen=True, slots=True)
class VerifiedCard:
    """A card that gave back every byte that it should hold."""

    proven: UnprovenCard
    cache_bypassed: bool

    def keep(self) -> None:
        """Make it final: an image file appears under its name. A card is final already."""
        self.proven.card.held.keep()

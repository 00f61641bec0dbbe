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
from imager.card.image import CardImage
from imager.card.medium.meter import PhaseFigures
from imager.card.medium.raw import RawCard
from imager.card.medium.reopen import FreshRead
from imager.disk.extents import ExtentMap


@dataclass(slots=True)
class Log:
    """What has happened to one card: ``phases`` are the figures of every phase in order, also of
    one that failed. ``touched`` says whether any byte may have been changed. ``trouble`` is what
    was wrong with the card, None if nothing was."""

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
    """How to write: ``block_bytes`` in each transfer, ``depth`` transfers at a time; ``why`` says
    why these were chosen.

    Writing one card needs at most ``block_bytes`` times ``depth`` of memory; reading it back needs
    512 KiB more for each of ``depth``.
    """

    block_bytes: int
    depth: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class UnprovenCard:
    """A card that should hold ``image``, but it is not proven yet that it does.

    ``extents`` is what is to be read back, and to be rewritten where it is wrong.
    """

    card: ClaimedCard
    image: CardImage
    extents: ExtentMap
    options: WriteOptions


@dataclass(frozen=True, slots=True)
class WrittenCard(UnprovenCard):
    """A card to which every byte of ``image`` was written and flushed, the first MiB last.

    ``extents`` is what was written: the image's block map and the card's last MiB, or only the part
    of them that differed.
    """


@dataclass(frozen=True, slots=True)
class VerifiedCard:
    """A card that gave back every byte that it should hold."""

    proven: UnprovenCard
    cache_bypassed: bool

    def keep(self) -> None:
        """Make it final: an image file appears under its name. A card is final already."""
        self.proven.card.held.keep()

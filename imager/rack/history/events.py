"""What happens to cards, as the ledger keeps it, and what is known of a node after it.

In: a card that begins, ends, is saved or put back. Out: a value for each, and the last that is
known of its node. Nothing is read or written; ``ledger.py`` has the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from imager.base.timestamps import timestamp
from imager.rack.history.outcome import Outcome


@dataclass(frozen=True, slots=True)
class BatchBegun:
    """A run over several nodes has begun; all its lines have the same ``batch``."""

    at: str
    batch: str
    nodes: tuple[str, ...]
    process: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """Work on a node's card begins now. ``card_size_bytes`` and the fields after it describe the
    card, as far as this computer can see. ``slot`` is the label of the card reader, or empty.
    Outside a batch ``batch`` is empty. ``station`` is the computer that makes the card where that
    is another one, else empty. ``image_id``, ``recipe`` (``imager.node.content``) and
    ``release_sha256`` are of what the card is to hold; the first is empty where the image is made
    after this line, all are in a line of an older version."""

    at: str
    batch: str
    node: str
    target: str
    slot: str
    card_size_bytes: int
    model: str
    serial: str
    cid: str
    diskseq: int
    station: str = ""
    image_id: str = ""
    recipe: str = ""
    release_sha256: str = ""

    @property
    def where(self) -> str:
        """See ``reader_said``."""
        return reader_said(self.target, self.slot, self.station)


def reader_said(target: str, slot: str, station: str) -> str:
    """Where to look for a card: ``desk2's slot A3``. ``slot`` and ``station`` may be empty, as for
    an Assigned."""
    place = f"slot {slot}" if slot else target.removeprefix(f"{station}:")
    return f"{station}'s {place}" if station else place


@dataclass(frozen=True, slots=True)
class CardFinished:
    """It is over. ``reason`` and ``hint`` are empty when it ended well. ``receipt`` is a file name
    in the folder of receipts; ``recipe`` and ``release_sha256`` are as of the ``Assigned``; each is
    empty where there is none."""

    at: str
    batch: str
    node: str
    target: str
    slot: str
    outcome: str
    reason: str
    hint: str
    receipt: str
    image_id: str
    recipe: str
    release_sha256: str

    @classmethod
    def of(
        cls,
        begun: Assigned,
        outcome: Outcome,
        *,
        reason: str = "",
        hint: str = "",
        receipt: str = "",
        image_id: str = "",
    ) -> CardFinished:
        """The end, now, of what has ``begun``."""
        return cls(
            at=now(),
            batch=begun.batch,
            node=begun.node,
            target=begun.target,
            slot=begun.slot,
            outcome=outcome.value,
            reason=reason,
            hint=hint,
            receipt=receipt,
            image_id=image_id,
            recipe=begun.recipe,
            release_sha256=begun.release_sha256,
        )

    @property
    def is_verified(self) -> bool:
        """Whether the card is good."""
        return self.outcome == Outcome.VERIFIED


@dataclass(frozen=True, slots=True)
class CardSaved:
    """A node's card was read into ``file``, an absolute path. ``reason`` is empty when all of it
    was. ``image_id`` is what the card's stamp says, ``map_sha256`` that of the block map beside
    the file; each is empty where there is none."""

    at: str
    node: str
    target: str
    slot: str
    file: str
    outcome: str
    reason: str
    image_id: str
    map_sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether all of the card is in the file."""
        return self.outcome == Outcome.SAVED


@dataclass(frozen=True, slots=True)
class CardRestored:
    """What was written and read back is the ``file`` of a card that was ``saved_at`` that time.
    It stands between the ``Assigned`` and the ``CardFinished`` of that card."""

    at: str
    batch: str
    node: str
    target: str
    file: str
    saved_at: str


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """The run ended with this exit code; it was not killed."""

    at: str
    batch: str
    exit_code: int


Event = BatchBegun | Assigned | CardFinished | CardSaved | CardRestored | BatchEnded


class Standing(StrEnum):
    """What is known of a node's card."""

    NEVER = "never"
    """No card was ever begun."""
    CURRENT = "current"
    """Verified, and a card made now would be the same."""
    STALE = "stale"
    """Verified, but a card made now would be different: the release, rack.toml, an overlay or a key
    has changed."""
    VERIFIED = "verified"
    """Verified; whether a card made now would be the same is not known."""
    FAILED = "failed"
    """The last card failed."""
    CUT_SHORT = "cut short"
    """Work on a card was begun and its end is not in the ledger: killed, or going on now."""
    UNKNOWN = "unknown"
    """The same, on a station: what became of the card is known there, and by looking at it."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """The last that is known of a node: ``begun`` is work whose end is not in the ledger, ``last``
    what ended last, ``verified`` the last good card. ``restored`` says where the last card is from
    if it was a saved one, ``saved`` where a card of the node was last saved whole."""

    begun: Assigned | None = None
    last: CardFinished | None = None
    verified: CardFinished | None = None
    restored: CardRestored | None = None
    saved: CardSaved | None = None

    def after(self, event: Assigned | CardFinished | CardSaved | CardRestored) -> NodeState:
        """What is known when ``event`` has happened too."""
        match event:
            case Assigned():
                return replace(self, begun=event, restored=None)
            case CardFinished():
                verified = event if event.is_verified else self.verified
                return replace(self, begun=None, last=event, verified=verified)
            case CardRestored():
                return replace(self, restored=event)
            case CardSaved():
                return replace(self, saved=event) if event.is_whole else self

    def standing(self, recipe: str | None = None) -> Standing:
        """The state in one word. ``recipe`` is that of a card made now, None where it is not
        known."""
        if self.begun is not None:
            return Standing.UNKNOWN if self.begun.station else Standing.CUT_SHORT
        if self.last is None:
            return Standing.NEVER
        if not self.last.is_verified:
            return Standing.FAILED
        if recipe is None:
            return Standing.VERIFIED
        return Standing.CURRENT if self.last.recipe == recipe else Standing.STALE


def now() -> str:
    """The time as the ledger writes it: UTC, ISO 8601."""
    return timestamp(precise=True)

"""What a station says of itself before anything is planned: its cards, its program, its room.

In: what a station found out about itself; or the JSON that came from one, which may be hostile.
Out: a Survey. Values are bounded when they are read, so that no station costs the head more than a
few MiB. Nothing in a survey is believed beyond the station's own cards: what a card is said to hold
is looked at again by the station before it writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from imager.base.json_fields import JsonFault, JsonObject
from imager.card.host.target import TargetFacts
from imager.config.slot_labels import label_fault
from imager.node.stamp.facts import StampError, StampFacts
from imager.rack.plan.candidates import Holds

MOST_CARDS = 256
"""What one order and one answer have room for. A station with more cards offers its first ones."""
MOST_TEXT = 1000
NO_KEY = "0" * 64
"""In place of the public key of a rack that has none: nobody's."""
_DEVICE = re.compile(r"/[!-.0-~][!-~]{0,99}\Z")
"""A work order is one argument of a program, which has room for ``MOST_CARDS`` of these."""
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MOST_SECONDS = 1e11


@dataclass(frozen=True, slots=True)
class SurveyedCard:
    """A card that may be written, as its station sees it; fields as in ``Candidate``.
    ``first_mib`` is the SHA-256 (hex) of its first MiB, None where that could not be read."""

    facts: TargetFacts
    title: str
    holds: Holds
    about: str
    slot: str | None
    stamp: StampFacts | None
    first_mib: str | None

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return {
            "facts": asdict(self.facts),
            "title": self.title,
            "holds": self.holds,
            "about": self.about,
            "slot": self.slot,
            "stamp": self.stamp.encode().decode() if self.stamp else None,
            "first_mib": self.first_mib,
        }


@dataclass(frozen=True, slots=True)
class UnfitCard:
    """A card that may not be written: where it is, and every reason."""

    path: str
    slot: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """``clock`` is the station's time in seconds since 1970, ``free_bytes`` the room in its cache.
    ``goldens`` are the golden images it has: key -> digest of the manifest (hex); ``makes`` are the
    keys of others that it can make of what its archive has. ``more`` counts the cards that are in
    neither ``cards`` nor ``unfit``, because these are full."""

    version: str
    clock: float
    free_bytes: int
    goldens: Mapping[str, str]
    cards: tuple[SurveyedCard, ...]
    unfit: tuple[UnfitCard, ...]
    makes: tuple[str, ...] = ()
    more: int = 0

    def to_json(self) -> dict[str, object]:
        """The object on the wire."""
        return {
            "version": self.version,
            "clock": self.clock,
            "free_bytes": self.free_bytes,
            "goldens": dict(self.goldens),
            "cards": [card.to_json() for card in self.cards],
            "unfit": [asdict(card) for card in self.unfit],
            "makes": list(self.makes),
            "more": self.more,
        }


def survey_from(read: JsonObject) -> Survey:
    """The survey in ``read``; raises JsonFault that names the field which is wrong."""
    goldens = read.child("goldens")
    bounded(goldens.values, MOST_CARDS, goldens)
    bounded(read.items("makes"), MOST_CARDS, read)
    return Survey(
        version=short(read, "version"),
        clock=read.number("clock", _MOST_SECONDS),
        free_bytes=read.integer("free_bytes"),
        goldens={key: digest(goldens, key) for key in goldens.values},
        cards=tuple(map(_card, _few(read, "cards"))),
        unfit=tuple(map(_unfit, _few(read, "unfit"))),
        makes=tuple(key[:MOST_TEXT] for key in read.texts("makes")),
        more=read.integer("more"),
    )


def _few(read: JsonObject, name: str) -> tuple[JsonObject, ...]:
    bounded(read.items(name), MOST_CARDS, read)
    return read.children(name)


def _card(read: JsonObject) -> SurveyedCard:
    stamp = read.optional("stamp", read.text)
    return SurveyedCard(
        facts=facts_from(read.child("facts")),
        title=short(read, "title"),
        holds=read.choice("holds", Holds),
        about=short(read, "about"),
        slot=read.optional("slot", lambda name: slot_label(read, name)),
        stamp=None if stamp is None else _stamp(read, stamp),
        first_mib=read.optional("first_mib", lambda name: digest(read, name)),
    )


def _stamp(read: JsonObject, text: str) -> StampFacts:
    try:
        return StampFacts.decode(text.encode())
    except (StampError, UnicodeEncodeError) as error:
        raise read.fault("stamp", str(error)) from None


def _unfit(read: JsonObject) -> UnfitCard:
    reasons = read.texts("reasons")
    bounded(reasons, MOST_CARDS, read)
    return UnfitCard(
        short(read, "path"),
        read.optional("slot", lambda name: slot_label(read, name)),
        tuple(reason[:MOST_TEXT] for reason in reasons),
    )


def facts_from(read: JsonObject) -> TargetFacts:
    """A card's facts, each of bounded length."""
    disk_path(read, "path")
    return TargetFacts.from_json(read, short)


def short(read: JsonObject, name: str) -> str:
    """A text of ``MOST_TEXT`` characters at most."""
    value = read.text(name)
    if len(value) > MOST_TEXT:
        raise read.fault(name, f"has {len(value)} characters, more than {MOST_TEXT}")
    return value


def disk_path(read: JsonObject, name: str) -> str:
    """The path of a disk."""
    value = read.text(name)
    if not _DEVICE.match(value) or ".." in value:
        raise read.fault(name, "is not the path of a disk")
    return value


def slot_label(read: JsonObject, name: str) -> str:
    """The label of a slot of a card reader."""
    value = short(read, name)
    if fault := label_fault(value):
        raise read.fault(name, fault)
    return value


def digest(read: JsonObject, name: str) -> str:
    """A SHA-256 in hex."""
    value = read.text(name)
    if fault := digest_fault(value):
        raise read.fault(name, fault)
    return value


def digest_fault(word: str) -> str | None:
    """Why ``word`` is no SHA-256 in hex."""
    return None if _DIGEST.match(word) else "is not a SHA-256"


def bounded(
    values: Mapping[str, object] | list[object] | tuple[object, ...], most: int, read: JsonObject
) -> None:
    """Raise JsonFault where ``values`` of the object ``read`` are more than ``most``."""
    if len(values) > most:
        raise JsonFault(f"{read.path or 'the document'}: {len(values)} values, more than {most}")

"""What went wrong with a card and what was done about it, in the form a receipt keeps.

In: diagnoses while a card is proven. Out: JSON, and back, checked field by field as the rest of a
receipt is.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.json_fields import JsonObject
from imager.card.diagnosis.damage import Damage, DamageKind
from imager.card.diagnosis.places import CardPlace
from imager.disk.extents import Extent


@dataclass(frozen=True, slots=True)
class Trouble:
    """Damage that was ``found`` at any time, what is ``left`` of it, and what it means in words.

    ``attempts`` is how often bad ranges were rewritten; ``lies`` were wrong at the first reading
    and right at the second.
    """

    found: tuple[Damage, ...]
    left: tuple[Damage, ...]
    lies: tuple[Extent, ...]
    attempts: int
    meaning: str

    def to_json(self) -> dict[str, object]:
        """The object a receipt holds under ``trouble``."""
        return {
            "found": [damage.to_json() for damage in self.found],
            "left": [damage.to_json() for damage in self.left],
            "lies": [[extent.offset, extent.length] for extent in self.lies],
            "attempts": self.attempts,
            "meaning": self.meaning,
        }

    @classmethod
    def from_json(cls, read: JsonObject) -> Trouble:
        """The trouble in ``read``; raises JsonFault that names what is wrong with it."""
        return cls(
            found=tuple(_damage(item) for item in read.children("found")),
            left=tuple(_damage(item) for item in read.children("left")),
            lies=tuple(Extent(*pair) for pair in read.pairs("lies")),
            attempts=read.integer("attempts"),
            meaning=read.text("meaning"),
        )


def _damage(read: JsonObject) -> Damage:
    return Damage(
        extent=Extent(read.integer("offset"), read.integer("length")),
        kind=read.choice("kind", DamageKind),
        first_byte=read.integer("first_byte"),
        bits=read.integer("bits"),
        distance=read.integer("distance", low=-(2**63)),
        shift=read.integer("shift", low=-(2**63)),
        places=tuple(CardPlace(place) for place in read.texts("places")),
    )

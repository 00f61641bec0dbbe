"""What went wrong with a card and what was done about it, as a receipt keeps it.

In: diagnoses while a card is proven. Out: JSON, and back, checked field by field as the rest of a
receipt is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

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
    def from_json(cls, value: object) -> Trouble:
        """The trouble in ``value``; raises ValueError that names what is wrong with it."""
        fields = _object(value)
        meaning = fields.get("meaning")
        if not isinstance(meaning, str):
            raise ValueError("meaning is not text")
        return cls(
            found=tuple(_damage(item) for item in _list(fields, "found")),
            left=tuple(_damage(item) for item in _list(fields, "left")),
            lies=tuple(_extent(item) for item in _list(fields, "lies")),
            attempts=_number(fields, "attempts"),
            meaning=meaning,
        )


def _damage(value: object) -> Damage:
    fields = _object(value)
    kind, places = fields.get("kind"), _list(fields, "places")
    if not isinstance(kind, str) or kind not in list(DamageKind):
        raise ValueError(f"kind {kind!r} is none of {', '.join(DamageKind)}")
    if not all(isinstance(place, str) for place in places):
        raise ValueError("places is not a list of text")
    return Damage(
        extent=Extent(_number(fields, "offset"), _number(fields, "length")),
        kind=DamageKind(kind),
        first_byte=_number(fields, "first_byte"),
        bits=_number(fields, "bits"),
        distance=_number(fields, "distance", negative=True),
        shift=_number(fields, "shift", negative=True),
        places=tuple(CardPlace(str(place)) for place in places),
    )


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("there is no object")
    return cast("Mapping[str, object]", value)


def _list(fields: Mapping[str, object], key: str) -> list[object]:
    value = fields.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is not a list")
    return value


def _extent(value: object) -> Extent:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("lies holds something that is not [offset, length]")
    return Extent(_whole(value[0], "offset"), _whole(value[1], "length"))


def _number(fields: Mapping[str, object], key: str, *, negative: bool = False) -> int:
    return _whole(fields.get(key), key, negative=negative)


def _whole(value: object, key: str, *, negative: bool = False) -> int:
    least = -(2**63) if negative else 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise ValueError(f"{key} is not a whole number that can be")
    return value

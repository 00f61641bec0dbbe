"""Takes checked values out of a JSON object that came from a file or from another computer.

In: bytes, or a value that ``json.loads`` gave. Out: values of the type that was asked for, or a
JsonFault such as ``image.boot: 7 is not a list``, named by the dotted path of the field as the
faults of rack.toml are. The first fault ends the reading, because a program wrote the file and
nobody will mend it field by field. (``config.fields`` reads TOML, which people write, and collects
every fault.) Fields that are not asked for are ignored, so that a later version may write more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from imager.base.text import printable

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_MOST = 2**63 - 1
_LONGEST = 60


class JsonFault(ValueError):
    """The bytes are not what they should be. The message names the field and says what is wrong
    with it, in one line that a terminal can print."""


@dataclass(frozen=True, slots=True)
class JsonObject:
    """One JSON object. Every method raises JsonFault for a field that is missing or is not what
    was asked for. ``path`` is the dotted path of the object in its file, empty for the whole."""

    values: Mapping[str, object]
    path: str = ""

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def fault(self, name: str, message: str) -> JsonFault:
        """The fault of the field ``name``, to be raised."""
        return _fault(self._at(name), message)

    def exactly(self, names: Iterable[str]) -> None:
        """Raise unless the fields of the object are exactly ``names``."""
        wrong = sorted(set(names) ^ set(self.values))
        if wrong:
            raise self.fault(wrong[0], "no such field" if wrong[0] in self else "is missing")

    def text(self, name: str) -> str:
        """Any text, also an empty one."""
        return self._take(name, str, "text")

    def integer(self, name: str, low: int = 0, high: int = _MOST) -> int:
        """A whole number from ``low`` to ``high``."""
        return _integer(self._value(name), self._at(name), low, high)

    def number(self, name: str, high: float) -> float:
        """A number from 0 to less than ``high``."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < high:
            raise self.fault(name, f"{_shown(value)} is not a number from 0 to {high:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        return self._take(name, bool, "true or false")

    def choice(self, name: str, kind: type[E]) -> E:
        """One of the texts of the enumeration ``kind``."""
        value = self.text(name)
        if value not in list(kind):
            raise self.fault(name, f"{_shown(value)} is none of {', '.join(kind)}")
        return kind(value)

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """The value that ``read``, a method of this object, gives for ``name``; None if the field
        is missing or null."""
        return None if self.values.get(name) is None else read(name)

    def items(self, name: str) -> list[object]:
        """A list of anything."""
        return self._take(name, list, "a list")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        where = self._at(name)
        return tuple(_of_type(item, where, str, "text") for item in self.items(name))

    def integers(self, name: str, high: int = _MOST) -> tuple[int, ...]:
        """A list of whole numbers from 0 to ``high``."""
        return _integers(self._value(name), self._at(name), high)

    def pair(self, name: str, high: int = _MOST) -> tuple[int, int]:
        """A list of two whole numbers from 0 to ``high``."""
        return _pair(self._value(name), self._at(name), high)

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        """A list of lists of two whole numbers."""
        where = self._at(name)
        return tuple(_pair(item, where, _MOST) for item in self.items(name))

    def child(self, name: str) -> JsonObject:
        """An object inside this one."""
        return JsonObject(self._take(name, dict, "an object"), self._at(name))

    def children(self, name: str) -> tuple[JsonObject, ...]:
        """A list of objects."""
        places = ((f"{self._at(name)}[{n}]", item) for n, item in enumerate(self.items(name)))
        return tuple(
            JsonObject(_of_type(item, place, dict, "an object"), place) for place, item in places
        )

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _value(self, name: str) -> object:
        if name not in self.values:
            raise self.fault(name, "is missing")
        return self.values[name]

    def _take(self, name: str, kind: type[T], allowed: str) -> T:
        return _of_type(self._value(name), self._at(name), kind, allowed)


def read_object(data: bytes | str) -> JsonObject:
    """The JSON object that ``data`` holds; raises JsonFault when it holds anything else."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise JsonFault("not JSON: nested too deeply") from None
    except ValueError as error:
        raise JsonFault(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise JsonFault("not a JSON object")
    return JsonObject(value)


def shown(value: object) -> str:
    """``value`` as it would stand in a JSON or TOML file, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # TOML may have a number that has more digits than Python writes
        text = "a number of too many digits"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _shown(value: object) -> str:
    """As ``shown``, but without the contents of a list or an object, which may be nested too deeply
    to be shown."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shown(value)


def _fault(where: str, message: str) -> JsonFault:
    return JsonFault(printable(f"{where}: {message}"))


def _of_type(value: object, where: str, kind: type[T], allowed: str) -> T:
    if not isinstance(value, kind):
        raise _fault(where, f"{_shown(value)} is not {allowed}")
    return value


def _integer(value: object, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _fault(where, f"{_shown(value)} is not a whole number from {low} to {high}")
    return value


def _integers(value: object, where: str, high: int) -> tuple[int, ...]:
    listed: list[object] = _of_type(value, where, list, "a list")
    return tuple(_integer(item, where, 0, high) for item in listed)


def _pair(value: object, where: str, high: int) -> tuple[int, int]:
    numbers = _integers(value, where, high)
    if len(numbers) != 2:
        raise _fault(where, f"{len(numbers)} numbers where two belong: offset and length")
    return numbers[0], numbers[1]

"""Reads a TOML document to its end and collects every fault of every key on the way.

In: the text of a TOML file. Out: checked values, and a list of lines such as
``rack.toml:7: nodes.pi7.address: "10.0.0.300" is not an IPv4 address``. The typed accessors give
the default where a value is wrong, so that the rest of the file is still read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from imager.base.errors import ConfigurationError
from imager.base.json_fields import shown
from imager.base.text import MOST_LINES, and_more, as_counted, cut, toml_tree

T = TypeVar("T")

# Files may be a stranger's, so nothing here goes back: each quantifier is possessive.
_HEADER = re.compile(r"\s*+\[\[?+(?P<name>[^\[\]#]++)\]\]?+\s*+(?:#.*+)?\Z")
_KEY = re.compile(r"\s*+(?P<name>(?:\"[^\"]*+\"|'[^']*+'|[A-Za-z0-9_.\-\s]++)++)=")
_PART = re.compile(r"\"([^\"]*+)\"|'([^']*+)'|([A-Za-z0-9_\-]++)")
_LONGEST_NAME = 64
_MOST_COMPARED = 4096
"""So many names are compared with wrong ones before no more is said of which may be meant: each
takes up to half a millisecond."""
_MOST_KNOWN = 20


@dataclass(frozen=True, slots=True)
class Unknown:
    """A ``name`` that is none of the ``known``: what a fault says of it ends with ``nearest``."""

    name: str
    known: Collection[str]


@dataclass(frozen=True, slots=True)
class _Fault:
    """``key`` is dotted, in its parts; empty where ``number``, the line, is known."""

    message: str
    key: tuple[str, ...] = ()
    number: int = 0
    unknown: Unknown | None = None


class Faults:
    """All faults found in one file so far."""

    def __init__(self, file_name: str, text: str = "") -> None:
        self._file_name = file_name
        self._text = text
        self._found: list[_Fault] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def lines(self) -> tuple[str, ...]:
        """A text for each fault, in the order of the file's lines; faults of missing keys, which
        have no line, come first. Of more than MOST_LINES the last one says how many."""
        numbers = _line_numbers(self._text, {found.key for found in self._found if found.key})
        numbered = [(found.number or numbers.get(found.key, 0), found) for found in self._found]
        numbered.sort(key=lambda item: item[0])
        lines, room = [], _MOST_COMPARED
        for number, found in numbered[:MOST_LINES]:
            where = f"{self._file_name}:{number}" if number else self._file_name
            key = f"{cut(_dotted(found.key))}: " if found.key else ""
            line = f"{where}: {key}{cut(found.message)}"
            if found.unknown is not None:
                room -= len(found.unknown.known)
                line += f"; {_nearest(found.unknown, is_compared=room >= 0)}"
            lines.append(line)
        return (*lines, *and_more(len(numbered)))

    def error(self, path: Path, hint: str) -> ConfigurationError:
        """What to raise for the file at ``path``, which has these faults."""
        count = len(self._found)
        return ConfigurationError(
            f"{path}: {count} fault{'s' if count > 1 else ''}", hint=hint, details=self.lines
        )

    def add(self, key: tuple[str, ...], message: str, unknown: Unknown | None = None) -> None:
        """Note that the ``key``, in its parts, is wrong: ``message`` says how, and what is allowed;
        of an ``unknown`` name which one may be meant."""
        self._found.append(_Fault(message, key, unknown=unknown))

    def add_at(self, number: int, message: str) -> None:
        """Note a fault of line ``number``; 0 for the file as a whole."""
        self._found.append(_Fault(message, number=number))


class Table:
    """One table of a TOML file. A key that was read is known; ``close`` reports all others."""

    def __init__(self, faults: Faults, path: tuple[str, ...], values: Mapping[str, object]) -> None:
        self.faults = faults
        self._path = path
        self._values = values
        self.known: set[str] = set()
        """The keys that were read, whether or not the file has them."""

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def names(self) -> tuple[str, ...]:
        """Every key in this table."""
        return tuple(self._values)

    def key(self, name: str) -> str:
        """The dotted path of ``name`` in this table."""
        return _dotted((*self._path, name))

    def fault(self, name: str, message: str, unknown: Unknown | None = None) -> None:
        """Note a fault of the key ``name`` of this table, as ``Faults.add``."""
        self.faults.add((*self._path, name), message, unknown)

    def string(self, name: str, *, example: str) -> str | None:
        """The text under ``name``; None when it is absent, empty or no text."""
        value = self._take(name, str, f"text; write it like {example}")
        if value == "":
            self.fault(name, f"is empty; write it like {example}, or leave the key out")
            return None
        return value

    def boolean(self, name: str) -> bool | None:
        """The value true or false under ``name``; None when it is absent or wrong."""
        return self._take(name, bool, "true or false")

    def number(self, name: str, low: int, high: int) -> int | None:
        """The whole number from ``low`` to ``high`` under ``name``; None when absent or wrong."""
        value = self._take(name, int, f"a whole number from {low} to {high}")
        if value is None:
            return None
        if isinstance(value, bool) or not low <= value <= high:
            self.fault(name, f"{shown(value)} is not a whole number from {low} to {high}")
            return None
        return value

    def strings(self, name: str, *, example: str) -> tuple[str, ...] | None:
        """The list of texts under ``name``; None when it is absent or wrong."""
        value = self._take(name, list, f"a list of texts; write it like {example}")
        if value is None:
            return None
        for item in value:
            if not isinstance(item, str):
                self.fault(name, f"{shown(item)} is not text; write the list like {example}")
        return tuple(item for item in value if isinstance(item, str))

    def table(self, name: str) -> Table:
        """The table under ``name``; an empty one when it is absent or no table."""
        value = self._take(name, dict, f"a table; begin it with [{self.key(name)}]")
        return self.empty(name) if value is None else Table(self.faults, (*self._path, name), value)

    def empty(self, name: str) -> Table:
        """The table that is called ``name`` here, without a key."""
        return Table(self.faults, (*self._path, name), {})

    def tables(self) -> Iterable[tuple[str, Table]]:
        """Every table inside this one, by name (for tables whose keys are names)."""
        return [(name, self.table(name)) for name in self._values]

    def close(self) -> None:
        """Report every key that nothing read, with the known key nearest to it."""
        for name in self._values:
            if name not in self.known:
                self.fault(name, "no such key", Unknown(name, self.known))

    def _take(self, name: str, kind: type[T], allowed: str) -> T | None:
        self.known.add(name)
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind):
            self.fault(name, f"{shown(value)} is not {allowed}")
            return None
        return value


def parse_document(file_name: str, text: str) -> tuple[Table, Faults]:
    """The top table of ``text``, and the list its faults are collected in.

    Broken TOML is one fault, with the line and column tomllib names, and an empty table.
    """
    faults = Faults(file_name, text)
    try:
        return Table(faults, (), toml_tree(text)), faults
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)", said)
        if place is None:
            faults.add_at(0, f"not TOML: {said}")
        else:
            number, column = int(place[1]), place[2]
            line = text.split("\n")[number - 1].strip()[:60]
            faults.add_at(number, f"not TOML: {said[: place.start()]}, column {column} of {line!r}")
        return Table(faults, (), {}), faults
    except ValueError:
        # A number of 5,000 digits, a date that cannot be, lists in lists without end.
        faults.add_at(0, "not TOML: a value in it is too large, or nested too deeply")
        return Table(faults, (), {}), faults


def nearest(name: str, known: Collection[str]) -> str:
    """A clause that names the entry of ``known`` nearest to ``name``, or all of them, in the order
    in which people count. If they are many, it only says how many."""
    return _nearest(Unknown(name, known), is_compared=True)


def _nearest(unknown: Unknown, *, is_compared: bool) -> str:
    name, known = unknown.name, unknown.known
    if is_compared and len(name) <= _LONGEST_NAME:
        near = get_close_matches(name, known, n=1)
        if near:
            return f"did you mean {near[0]}?"
    if len(known) > _MOST_KNOWN:
        return f"{len(known)} are known"
    return f"known: {', '.join(map(cut, sorted(known, key=as_counted))) or 'none'}"


def _line_numbers(text: str, wanted: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Each of the ``wanted`` keys -> the line on which it stands first. It is used in messages only
    and may be wrong: text inside a string of several lines can look like a key."""
    numbers: dict[tuple[str, ...], int] = {}
    for number, key in _keys_in(text) if wanted else ():
        if key in wanted:
            numbers.setdefault(key, number)
    return numbers


def _keys_in(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _parts(header["name"])
            yield number, table
        elif key:
            yield number, (*table, *_parts(key["name"]))


def _dotted(key: tuple[str, ...]) -> str:
    return ".".join(key)


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple("".join(match) for match in _PART.findall(dotted))

"""Reads a TOML document to its end and collects every fault of every key on the way.

In: the text of a TOML file. Out: checked values, and a list of lines such as
``rack.toml:7: nodes.pi7.address: "10.0.0.300" is not an IPv4 address``. The typed accessors give
the default where a value is wrong, so that the rest of the file is still read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from imager.base.json_fields import shown
from imager.base.text import as_counted, toml_tree

T = TypeVar("T")

_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]#]+?)\s*\]\]?\s*(?:#.*)?\Z")
_KEY = re.compile(r"\s*(?P<name>(?:\"[^\"]*\"|'[^']*'|[A-Za-z0-9_.\-\s])+?)\s*=")
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_\-]+)")


class Faults:
    """All faults found in one file so far."""

    def __init__(self, file_name: str, text: str = "") -> None:
        self._file_name = file_name
        self._numbers = _line_numbers(text)
        self._found: list[tuple[int, str]] = []

    @property
    def lines(self) -> tuple[str, ...]:
        """One text for each fault, in the order of the file's lines; faults of missing keys, which
        have no line, come first."""
        ordered = sorted(self._found, key=lambda found: found[0])
        return tuple(
            f"{self._file_name}:{number}: {message}" if number else f"{self._file_name}: {message}"
            for number, message in ordered
        )

    def add(self, key: str, message: str) -> None:
        """Note that the dotted ``key`` is wrong: ``message`` says how, and what is allowed."""
        self._found.append((self._numbers.get(key, 0), f"{key}: {message}"))

    def add_at(self, number: int, message: str) -> None:
        """Note a fault of line ``number``; 0 for the file as a whole."""
        self._found.append((number, message))


class Table:
    """One table of a TOML file. A key that was read is known; ``close`` reports all others."""

    def __init__(self, faults: Faults, path: str, values: Mapping[str, object]) -> None:
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
        return f"{self._path}.{name}" if self._path else name

    def fault(self, name: str, message: str) -> None:
        """Note a fault of the key ``name`` of this table."""
        self.faults.add(self.key(name), message)

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
        return Table(self.faults, self.key(name), value or {})

    def tables(self) -> Iterable[tuple[str, Table]]:
        """Every table inside this one, by name (for tables whose keys are names)."""
        return [(name, self.table(name)) for name in self._values]

    def close(self) -> None:
        """Report every key that nothing read, with the known key nearest to it."""
        for name in self._values:
            if name in self.known:
                continue
            near = get_close_matches(name, self.known, n=1)
            known = ", ".join(sorted(self.known))
            hint = f"did you mean {near[0]}?" if near else f"known here: {known or 'none'}"
            self.fault(name, f"no such key; {hint}")

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
        return Table(faults, "", toml_tree(text)), faults
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)", said)
        if place is None:
            faults.add_at(0, f"not TOML: {said}")
        else:
            number, column = int(place[1]), place[2]
            line = text.split("\n")[number - 1].strip()[:60]
            faults.add_at(number, f"not TOML: {said[: place.start()]}, column {column} of {line!r}")
        return Table(faults, "", {}), faults
    except ValueError:
        # A number of 5,000 digits, a date that cannot be, lists in lists without end.
        faults.add_at(0, "not TOML: a value in it is too large, or nested too deeply")
        return Table(faults, "", {}), faults


def nearest(name: str, known: Iterable[str], most: int | None = None) -> str:
    """A clause that names the entry of ``known`` nearest to ``name``, or all of them, in the order
    in which people count. If that were more than ``most``, it only says how many they are."""
    choices = sorted(known, key=as_counted)
    near = get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean {near[0]}?"
    if most is not None and len(choices) > most:
        return f"{len(choices)} are known"
    return f"known: {', '.join(choices) or 'none'}"


def _line_numbers(text: str) -> dict[str, int]:
    """Dotted key -> the line on which it stands first. It is used in messages only and may be
    wrong: text inside a string of several lines can look like a key."""
    numbers: dict[str, int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = _parts(header["name"])
            numbers.setdefault(".".join(table), number)
        elif key:
            numbers.setdefault(".".join((*table, *_parts(key["name"]))), number)
    return numbers


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple("".join(match) for match in _PART.findall(dotted))

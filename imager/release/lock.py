"""rack.lock: which bytes the cards of a rack are made from; a small TOML file to be kept in git.

In: the file beside rack.toml. Out: a pin (the SHA-256 of the bytes to use) for each release, each
Python package and each pacman package, what each group of nodes has of the latter, and the file
written anew with other pins. Only ``fetch --update`` and ``lock --update`` change a pin, so that a
node made next year is like one made today.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from imager.base.errors import ConfigurationError
from imager.base.text import cut, told, toml_text, toml_tree
from imager.base.trusted_folder import TrustedFolder

_HEAD = """\
# rack.lock: what this rack's cards are made from, by the hash of its bytes.
# Written by picloud-image; keep it in git beside rack.toml. Only "picloud-image fetch --update"
# moves a pin to what is published now.
"""
_HEAD_OF_SETS = """\
# What lies beyond the release: [set] says which packages a group of nodes has, [pacman] which bytes
# they are. Only "picloud-image lock --update" moves them.
"""
_HEAD_OF_CANDIDATE = """\
# canary.lock: packages that the canary nodes of this rack have before all others do. Written by
# picloud-image lock --update; "lock promote" puts them into rack.lock, "lock undo" drops them.
"""
_HEADS = {"canary.lock": _HEAD_OF_CANDIDATE}
_LIMIT_BYTES = 4 << 20
_MOST_NAMES = 10_000
"""Of one list. So many [pacman] tables are about as large as a rack.lock may be."""
# Of pacman's packages; each is to be matched whole.
PACKAGE_NAME = re.compile(r"[A-Za-z0-9@_+][A-Za-z0-9@._+-]{0,120}")
PACKAGE_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z:._+~]{0,120}-[0-9.]{1,9}")
PACKAGE_FILE = re.compile(r"[A-Za-z0-9@_+][A-Za-z0-9@._+:~-]{0,220}\.pkg\.tar(\.[a-z0-9]{1,5})?")
"""As makepkg(8) names it, and so never like a file that lies beside it in the archive."""
ARCHITECTURE = re.compile(r"[a-z0-9_]{1,20}")
_WANTED = re.compile(PACKAGE_NAME.pattern + r"((<|<=|=|>=|>)[A-Za-z0-9:._+~-]{1,120})?")
_PATTERNS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "sha256": (re.compile(r"[0-9a-f]{64}"), "64 lower-case hex digits"),
    "fingerprint": (re.compile(r"([0-9A-F]{40}|[0-9A-F]{64})"), "40 upper-case hex digits"),
    "url": (re.compile(r"https?://[!-~]+"), "an http or https URL"),
    "fetched_at": (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)"), "a time"),
    "version": (re.compile(r"\d[0-9A-Za-z.!+]{0,63}"), "a version"),
    "arch": (ARCHITECTURE, "an architecture"),
    "file": (PACKAGE_FILE, "the name of a package's file"),
    "signer": (re.compile(r"([0-9A-F]{40}|[0-9A-F]{64})"), "40 upper-case hex digits"),
    "release": (re.compile(r"[0-9a-f]{64}"), "64 lower-case hex digits"),
}


@dataclass(frozen=True, slots=True)
class Pin:
    """Which bytes a release's name means in this rack, and where and when they were fetched."""

    sha256: str
    size_bytes: int
    url: str
    fingerprint: str
    fetched_at: str


@dataclass(frozen=True, slots=True)
class PackagePin:
    """Which bytes the name and version of a Python package mean in this rack, and since when."""

    version: str
    sha256: str
    size_bytes: int
    fetched_at: str


@dataclass(frozen=True, slots=True)
class PacmanPin:
    """Which bytes the name of a pacman package means in this rack. ``version`` includes epoch and
    release number; ``signer`` is the fingerprint of the primary key that signed it."""

    version: str
    arch: str
    file: str
    sha256: str
    size_bytes: int
    signer: str
    url: str
    fetched_at: str


@dataclass(frozen=True, slots=True)
class SetPin:
    """What a group of nodes has beyond the release with the SHA-256 ``release``: ``packages``, in
    the order in which they are installed, because ``wanted`` was asked for; ``remove`` are names of
    the release's own that go."""

    release: str
    wanted: tuple[str, ...]
    packages: tuple[str, ...]
    remove: tuple[str, ...]


_Kind = TypeVar("_Kind", Pin, PackagePin, PacmanPin, SetPin)
AnyPin = Pin | PackagePin | PacmanPin | SetPin
_SECTIONS: Mapping[str, type[AnyPin]] = {
    "release": Pin,
    "package": PackagePin,
    "pacman": PacmanPin,
    "set": SetPin,
}


@dataclass(frozen=True, slots=True)
class RackLock:
    """A rack.lock as it was read; a file that does not exist yet has no pins. ``pins`` are those
    of releases, ``packages`` those of Python packages, ``pacman`` those of pacman packages, by
    name; ``sets`` are by the key of the wish they fulfil."""

    path: Path
    pins: Mapping[str, Pin]
    packages: Mapping[str, PackagePin]
    pacman: Mapping[str, PacmanPin]
    sets: Mapping[str, SetPin]

    @classmethod
    def load(cls, path: Path) -> RackLock:
        """Read ``path``. Raises ConfigurationError with every fault in ``details``."""
        try:
            data = TrustedFolder(path.parent).read(path.name, _LIMIT_BYTES)
        except FileNotFoundError:
            data = b""
        found, faults = parse_lock(data)
        if faults:
            raise ConfigurationError(
                f"{path}: {cut(faults[0])}",
                hint="take the file's last good state from git, or remove it and fetch again",
                details=told(faults),
            )
        return cls.of(path, found)

    @classmethod
    def of(cls, path: Path, pins: Mapping[tuple[str, str], AnyPin]) -> RackLock:
        """The lock with ``pins``, by section and name, as if ``path`` held them."""

        def of(kind: type[_Kind]) -> Mapping[str, _Kind]:
            return MappingProxyType(
                {name: pin for (_, name), pin in pins.items() if isinstance(pin, kind)}
            )

        return cls(path, of(Pin), of(PackagePin), of(PacmanPin), of(SetPin))

    def pin(self, name: str) -> Pin | None:
        """The pin of the release called ``name``."""
        return self.pins.get(name)

    def package(self, name: str) -> PackagePin | None:
        """The pin of the Python package called ``name``."""
        return self.packages.get(name)

    def with_pin(self, name: str, pin: AnyPin) -> RackLock:
        """Write the file with ``name`` pinned to ``pin``; other pins stay as they are in the file
        now. Returns the new lock."""
        section = next(key for key, kind in _SECTIONS.items() if isinstance(pin, kind))
        return self._changed(lambda now: now | {(section, name): pin})

    def with_packages(
        self, pacman: Mapping[str, PacmanPin], sets: Mapping[str, SetPin]
    ) -> RackLock:
        """Write the file with these sets of pacman packages in place of all that it has; other
        pins stay. Returns the new lock."""
        new: dict[tuple[str, str], AnyPin] = {("set", key): pin for key, pin in sets.items()}
        new |= {("pacman", name): pin for name, pin in pacman.items()}

        def change(now: dict[tuple[str, str], AnyPin]) -> dict[tuple[str, str], AnyPin]:
            return {key: pin for key, pin in now.items() if key[0] not in ("set", "pacman")} | new

        return self._changed(change)

    def filled(self, other: RackLock) -> RackLock:
        """Write the file with the pins of ``other`` if it has none now. Returns the new lock."""
        return self._changed(lambda now: now or other.all_pins())

    def _changed(
        self, change: Callable[[dict[tuple[str, str], AnyPin]], dict[tuple[str, str], AnyPin]]
    ) -> RackLock:
        beside = TrustedFolder(self.path.parent)
        with beside.held():
            now = RackLock.load(self.path).all_pins()
            pins = change(now)
            if pins != now:
                text = encode_lock(pins, _HEADS.get(self.path.name, _HEAD))
                beside.write(self.path.name, text.encode())
        return self.of(self.path, pins)

    def all_pins(self) -> dict[tuple[str, str], AnyPin]:
        """Every pin by section and name."""
        sections: Mapping[str, Mapping[str, AnyPin]] = {
            "release": self.pins,
            "package": self.packages,
            "pacman": self.pacman,
            "set": self.sets,
        }
        return {
            (section, name): pin for section, of in sections.items() for name, pin in of.items()
        }


def encode_lock(pins: Mapping[tuple[str, str], AnyPin], head: str = _HEAD) -> str:
    """The text of a rack.lock with ``pins``, each under its section and name."""
    blocks = [head]
    if head == _HEAD and any(isinstance(pin, SetPin) for pin in pins.values()):
        blocks.append(_HEAD_OF_SETS)
    for (section, name), pin in sorted(pins.items(), key=lambda item: item[0]):
        lines = [f"[{section}.{toml_text(name)}]"]
        for field in fields(pin):
            value = getattr(pin, field.name)
            text = toml_text(list(value) if isinstance(value, tuple) else value)
            lines.append(f"{field.name} = {value if type(value) is int else text}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def parse_lock(data: bytes) -> tuple[dict[tuple[str, str], AnyPin], list[str]]:
    """The pins in ``data`` by section and name, and a text for each fault. Use the pins only when
    there is no fault."""
    try:
        tree = toml_tree(data.decode())
    except ValueError as error:
        return {}, [f"not TOML: {error}"]
    faults = [f"{key}: not a key of rack.lock" for key in tree if key not in _SECTIONS]
    pins: dict[tuple[str, str], AnyPin] = {}
    for section, kind in _SECTIONS.items():
        tables = tree.get(section, {})
        if not isinstance(tables, dict):
            faults.append(f"{section}: must be a table")
            continue
        for name, table in tables.items():
            where = f"{section}.{cut(name)}"
            found = _pin_faults(where, table, kind)
            if kind is PacmanPin and not PACKAGE_NAME.fullmatch(name):
                found.append(f"{where}: is not the name of a package")
            if not found:
                lists = {key: tuple(value) for key, value in table.items() if type(value) is list}
                pins[section, name] = kind(**(table | lists))
            faults += found
    for (_, key), pin in pins.items():
        gone = [name for name in getattr(pin, "packages", ()) if ("pacman", name) not in pins]
        faults += [f"set.{cut(key)}.packages: there is no [pacman.{name}]" for name in gone]
    return pins, faults


def pin_faults(pin: AnyPin) -> list[str]:
    """What could not stand in a rack.lock of ``pin``, which came from elsewhere."""
    return _pin_faults(
        "pin", {each.name: getattr(pin, each.name) for each in fields(pin)}, type(pin)
    )


def _pin_faults(where: str, table: object, kind: type[AnyPin]) -> list[str]:
    if not isinstance(table, dict):
        return [f"{where}: must be a table"]
    known = {field.name for field in fields(kind)}
    faults = [f"{where}.{key}: not a key of a pin" for key in table if key not in known]
    size = table.get("size_bytes")
    if "size_bytes" in known and (type(size) is not int or size < 0):
        faults.append(f"{where}.size_bytes: {size!r} is not a number of bytes")
    own = {"version": (PACKAGE_VERSION, "a version")} if kind is PacmanPin else {}
    for key, (pattern, allowed) in {**_PATTERNS, **own}.items():
        value = table.get(key)
        if key in known and (not isinstance(value, str) or not pattern.fullmatch(value)):
            faults.append(f"{where}.{key}: {value!r} is not {allowed}")
    for key in known & {"wanted", "packages", "remove"}:
        value = table.get(key)
        allowed_words = _WANTED if key == "wanted" else PACKAGE_NAME
        if not isinstance(value, list) or not all(
            isinstance(word, str) and allowed_words.fullmatch(word) for word in value
        ):
            faults.append(f"{where}.{key}: is not a list of names of packages")
        elif len(value) > _MOST_NAMES:
            faults.append(
                f"{where}.{key}: has {len(value)} names; at most {_MOST_NAMES} can be given"
            )
        elif key != "wanted":  # there a person's own words stand
            faults += [
                f"{where}.{key}: has {name} more than once"
                for name in sorted(name for name, count in Counter(value).items() if count > 1)
            ]
    return faults

"""rack.lock: which bytes the cards of a rack are made from; a small TOML file to be kept in git.

In: the file beside rack.toml. Out: a pin (the SHA-256 of the bytes to use) for each release and
each Python package, and the file written anew with another pin. Only ``fetch --update`` changes a
pin, so that a node made next year is like one made today.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

from imager.base.errors import ConfigurationError
from imager.base.text import toml_text, toml_tree
from imager.base.trusted_folder import TrustedFolder

_HEAD = """\
# rack.lock: what this rack's cards are made from, by the hash of its bytes.
# Written by picloud-image; keep it in git beside rack.toml. Only "picloud-image fetch --update"
# moves a pin to what is published now.
"""
_LIMIT_BYTES = 4 << 20
_PATTERNS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "sha256": (re.compile(r"[0-9a-f]{64}\Z"), "64 lower-case hex digits"),
    "fingerprint": (re.compile(r"([0-9A-F]{40}|[0-9A-F]{64})\Z"), "40 upper-case hex digits"),
    "url": (re.compile(r"https?://[!-~]+\Z"), "an http or https URL"),
    "fetched_at": (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)\Z"), "a time"),
    "version": (re.compile(r"\d[0-9A-Za-z.!+]{0,63}\Z"), "a version"),
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


AnyPin = Pin | PackagePin
_SECTIONS: Mapping[str, type[AnyPin]] = {"release": Pin, "package": PackagePin}


@dataclass(frozen=True, slots=True)
class RackLock:
    """A rack.lock as it was read; a file that does not exist yet has no pins. ``pins`` are those
    of releases, ``packages`` those of Python packages, by name."""

    path: Path
    pins: Mapping[str, Pin]
    packages: Mapping[str, PackagePin]

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
                f"{path}: {faults[0]}",
                hint="take the file's last good state from git, or remove it and fetch again",
                details=faults,
            )
        return cls._of(path, found)

    @classmethod
    def _of(cls, path: Path, pins: Mapping[tuple[str, str], AnyPin]) -> RackLock:
        releases = {key[1]: pin for key, pin in pins.items() if isinstance(pin, Pin)}
        packages = {key[1]: pin for key, pin in pins.items() if isinstance(pin, PackagePin)}
        return cls(path, MappingProxyType(releases), MappingProxyType(packages))

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
        beside = TrustedFolder(self.path.parent)
        with beside.held():
            now = RackLock.load(self.path)._all()
            pins = now | {(section, name): pin}
            if pins != now:
                beside.write(self.path.name, encode_lock(pins).encode())
        return self._of(self.path, pins)

    def _all(self) -> dict[tuple[str, str], AnyPin]:
        return {("release", name): pin for name, pin in self.pins.items()} | {
            ("package", name): pin for name, pin in self.packages.items()
        }


def encode_lock(pins: Mapping[tuple[str, str], AnyPin]) -> str:
    """The text of a rack.lock with ``pins``, each under its section and name."""
    blocks = [_HEAD]
    for (section, name), pin in sorted(pins.items(), key=lambda item: item[0]):
        lines = [f"[{section}.{toml_text(name)}]"]
        for field in fields(pin):
            value = getattr(pin, field.name)
            lines.append(f"{field.name} = {value if type(value) is int else toml_text(value)}")
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
            found = _pin_faults(f"{section}.{name}", table, kind)
            if not found:
                pins[section, name] = kind(**table)
            faults += found
    return pins, faults


def _pin_faults(where: str, table: object, kind: type[AnyPin]) -> list[str]:
    if not isinstance(table, dict):
        return [f"{where}: must be a table"]
    known = {field.name for field in fields(kind)}
    faults = [f"{where}.{key}: not a key of a pin" for key in table if key not in known]
    size = table.get("size_bytes")
    if type(size) is not int or size < 0:
        faults.append(f"{where}.size_bytes: {size!r} is not a number of bytes")
    for key, (pattern, allowed) in _PATTERNS.items():
        value = table.get(key)
        if key in known and (not isinstance(value, str) or not pattern.match(value)):
            faults.append(f"{where}.{key}: {value!r} is not {allowed}")
    return faults

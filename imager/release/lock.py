"""rack.lock: which bytes every card of a rack is made from; a small TOML file meant for git.

In: the file beside rack.toml. Out: a pin per release, and the file written anew with a pin
moved. Only ``fetch --update`` moves one, so that the node made next year is like the one of today.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

from imager.base.durable import folder_locked, host_storage, write_atomically
from imager.base.errors import ConfigurationError
from imager.base.toml_text import toml_text

_HEAD = """\
# rack.lock: the releases this rack's cards are made from, by the hash of their bytes.
# Written by picloud-image; keep it in git beside rack.toml. Only "picloud-image fetch --update"
# moves a pin to what the distribution publishes now.
"""
_PATTERNS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "sha256": (re.compile(r"[0-9a-f]{64}\Z"), "64 lower-case hex digits"),
    "fingerprint": (re.compile(r"([0-9A-F]{40}|[0-9A-F]{64})\Z"), "40 upper-case hex digits"),
    "url": (re.compile(r"https?://[!-~]+\Z"), "an http or https URL"),
    "fetched_at": (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)\Z"), "a time"),
}


@dataclass(frozen=True, slots=True)
class Pin:
    """The bytes a release's name stands for in this rack, and where and when they were got."""

    sha256: str
    size_bytes: int
    url: str
    fingerprint: str
    fetched_at: str


@dataclass(frozen=True, slots=True)
class RackLock:
    """A rack.lock as it was read; a file that does not exist yet has no pins."""

    path: Path
    pins: Mapping[str, Pin]

    @classmethod
    def load(cls, path: Path) -> RackLock:
        """Read ``path``. Raises ConfigurationError with every fault in ``details``."""
        with host_storage(path):
            data = path.read_bytes() if path.exists() else b""
        pins, faults = parse_lock(data)
        if faults:
            raise ConfigurationError(
                f"{path}: {faults[0]}",
                hint="take the file's last good state from git, or remove it and fetch again",
                details=faults,
            )
        return cls(path, MappingProxyType(pins))

    def pin(self, name: str) -> Pin | None:
        """The pin of the release called ``name``."""
        return self.pins.get(name)

    def with_pin(self, name: str, pin: Pin) -> RackLock:
        """Write the file with ``name`` pinned to ``pin``, other pins as they are there now."""
        with folder_locked(self.path.parent):
            now = RackLock.load(self.path)
            pins = dict(sorted({**now.pins, name: pin}.items()))
            if pins != now.pins:
                write_atomically(self.path, encode_lock(pins).encode())
        return RackLock(self.path, MappingProxyType(pins))


def encode_lock(pins: Mapping[str, Pin]) -> str:
    """The text of a rack.lock with ``pins``."""
    blocks = [_HEAD]
    for name, pin in pins.items():
        lines = [f"[release.{toml_text(name)}]"]
        for field in fields(Pin):
            value = getattr(pin, field.name)
            lines.append(f"{field.name} = {value if type(value) is int else toml_text(value)}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def parse_lock(data: bytes) -> tuple[dict[str, Pin], list[str]]:
    """The pins in ``data`` and every fault of it; the pins are whole when there is no fault."""
    try:
        tree = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        return {}, [f"not TOML: {error}"]
    faults = [f"{key}: not a key of rack.lock" for key in tree if key != "release"]
    releases = tree.get("release", {})
    if not isinstance(releases, dict):
        return {}, [*faults, "release: must be a table"]
    pins: dict[str, Pin] = {}
    for name, table in releases.items():
        found = _pin_faults(name, table)
        if not found:
            pins[name] = Pin(**table)
        faults += found
    return pins, faults


def _pin_faults(name: str, table: object) -> list[str]:
    where = f"release.{name}"
    if not isinstance(table, dict):
        return [f"{where}: must be a table"]
    known = {field.name for field in fields(Pin)}
    faults = [f"{where}.{key}: not a key of a pin" for key in table if key not in known]
    size = table.get("size_bytes")
    if type(size) is not int or size < 0:
        faults.append(f"{where}.size_bytes: {size!r} is not a number of bytes")
    for key, (pattern, allowed) in _PATTERNS.items():
        value = table.get(key)
        if not isinstance(value, str) or not pattern.match(value):
            faults.append(f"{where}.{key}: {value!r} is not {allowed}")
    return faults

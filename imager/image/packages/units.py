"""Units of systemd in a release: what enabling one means, and those that a rack wants enabled.

In: names of units, and a staged release. Out: the symbolic links that ``systemctl enable --root``
would make, without running it. Source: systemd.unit(5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from imager.base.errors import ConfigurationError
from imager.image.unpack.members import EntryKind
from imager.image.unpack.stager import Stager

ADMIN_UNITS = "/etc/systemd/system"
UNIT_FOLDERS = (ADMIN_UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
"""The folders in which systemd looks for unit files, without those in /run; the first that has a
unit wins (systemd.unit(5))."""

_LONGEST_ALIAS = 8
_DEPENDENCIES = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


@dataclass(frozen=True, slots=True)
class Install:
    """The [Install] section: the links to make, as names below /etc/systemd/system, and the
    units to enable along with this one."""

    links: tuple[str, ...]
    also: tuple[str, ...]


@lru_cache(maxsize=64)  # a rack of many nodes asks for the same few units of each
def parse_install(unit: str, text: str) -> Install:
    """What enabling ``unit``, whose file holds ``text``, makes (systemd.unit(5), [INSTALL])."""
    links: list[str] = []
    also: list[str] = []
    section = ""
    for line in _logical_lines(text):
        if line.startswith("["):
            section = line
        if section != "[Install]" or "=" not in line:
            continue
        key, _, value = line.partition("=")
        key, words = key.strip(), value.split()
        if key in _DEPENDENCIES:
            links += [f"{target}.{_DEPENDENCIES[key]}/{unit}" for target in words]
        elif key == "Alias":
            links += words
        elif key == "Also":
            also += words
    # Templates and specifiers need an instance; nothing here enables one.
    plain = [link for link in links if "%" not in link and "@." not in link]
    return Install(tuple(plain), tuple(also))


def _logical_lines(text: str) -> list[str]:
    """Lines without comments, with ``\\`` at an end joined to the next."""
    lines: list[str] = []
    joined = ""
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.endswith("\\"):
            joined += stripped[:-1] + " "
            continue
        lines.append(joined + stripped)
        joined = ""
    return [*lines, joined] if joined else lines


def enable_units(stager: Stager, units: Sequence[str], release: str) -> None:
    """Enable ``units`` in the release called ``release`` that is in ``stager``, and those that they
    name in Also=. Raises ConfigurationError for one that is not there."""
    absent = [unit for unit in units if _unit_file(stager, unit) is None]
    if absent:
        raise ConfigurationError(
            f"there is no {', '.join(absent)} in {release} and its packages",
            hint="name units that there are as enable under [packages] in rack.toml; a unit of an"
            " overlay is enabled in its overlay.toml",
        )
    waiting, seen = list(reversed(units)), set[str]()
    while waiting:
        unit = waiting.pop()
        path = _unit_file(stager, unit)
        if unit in seen or path is None:
            continue
        seen.add(unit)
        install = parse_install(PurePosixPath(path).name, stager.text_of_root(path))
        waiting.extend(reversed(install.also))
        for link in install.links:
            place = f"{ADMIN_UNITS}/{link}".lstrip("/")
            # Not for a unit that is its own alias, nor where the release enabled it already.
            if stager.entry(place) is None:
                stager.link(place, f"/{path}", mtime_ns=stager.newest * 1_000_000_000)


def _unit_file(stager: Stager, unit: str) -> str | None:
    """The path of the file of ``unit``, an alias followed."""
    for folder in UNIT_FOLDERS:
        name = unit
        for _ in range(_LONGEST_ALIAS):
            path = f"{folder}/{name}".lstrip("/")
            entry = stager.entry(path)
            if entry is None or entry.kind is not EntryKind.SYMLINK:
                break
            name = PurePosixPath(entry.target).name
        if entry is not None and entry.kind is EntryKind.FILE:
            return path
    return None

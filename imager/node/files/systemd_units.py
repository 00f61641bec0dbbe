"""Enables systemd units in an image, as ``systemctl enable --root`` would, without running it.

In: names of units, and the files of the card. Out: the symbolic links that their [Install] sections
ask for. Releases differ in what they enable, so the overlays name the units that a node needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imager.disk.ext4.filesystem import Ext4
from imager.node.files.tree import CardLink, CardTree

ADMIN_UNITS = "/etc/systemd/system"
UNIT_FOLDERS = (ADMIN_UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
"""The folders in which systemd looks for unit files, without those in /run; the first that has a
unit wins (systemd.unit(5))."""

_DEPENDENCIES = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}


@dataclass(frozen=True, slots=True)
class Install:
    """The [Install] section: the links to make, as names below /etc/systemd/system, and the
    units to enable along with this one."""

    links: tuple[str, ...]
    also: tuple[str, ...]


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


def enabling_links(units: Sequence[str], image: Ext4, tree: CardTree) -> tuple[CardLink, ...]:
    """The links that enable ``units``, and the units that they name in Also=. Units that are
    neither in the release nor in ``tree`` are left out."""
    links: dict[str, CardLink] = {}
    waiting, seen = list(reversed(units)), set()
    while waiting:
        unit = waiting.pop()
        if unit in seen:
            continue
        seen.add(unit)
        found = _find(unit, image, tree)
        if found is None:
            continue
        path, text = found
        install = parse_install(path.rpartition("/")[2], text)
        waiting.extend(reversed(install.also))
        for link in install.links:
            place = f"{ADMIN_UNITS}/{link}"
            # Not for a unit that is its own alias, nor where the release enabled it already.
            if image.resolve(place) != path:
                links[place] = CardLink(place, path, f"enabling {unit}")
    return tuple(links.values())


def _find(unit: str, image: Ext4, tree: CardTree) -> tuple[str, str] | None:
    """Path and text of the file of ``unit``, aliases followed."""
    for folder in UNIT_FOLDERS:
        path = f"{folder}/{unit}"
        given = tree.root_file(path)
        if given is not None:
            return path, given.content.decode(errors="replace")
        real = image.resolve(path)
        inode = image.lookup(real)
        if inode is not None and inode.is_file:
            return real, image.content(inode).decode(errors="replace")
    return None

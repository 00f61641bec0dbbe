"""Enables systemd units in an image, as ``systemctl enable --root`` would, without running it.

In: names of units, and the files of the card. Out: the symbolic links that their [Install] sections
ask for. Releases differ in what they enable, so the overlays name the units that a node needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from imager.disk.ext4.filesystem import Ext4
from imager.image.packages.units import ADMIN_UNITS, UNIT_FOLDERS, parse_install
from imager.node.files.tree import CardLink, CardTree


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

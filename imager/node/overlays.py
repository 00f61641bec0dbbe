"""Which overlays a node has, and what they make of its card together.

In: the overlays that came with this program, and those of a rack. Out: for each node one CardTree.
First come ``base``, ``model/<model>`` and ``role/<role>`` of this program, then the same of the
rack, last the rack's ``node/<name>``. For each path the last wins.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from imager.base.below import Below
from imager.base.errors import ConfigurationError
from imager.base.text import told
from imager.config.fields import nearest
from imager.config.rack import Node
from imager.node.files.overlay import BOOT, ROOT, OverlayFolder
from imager.node.files.overlay_files import OverlayRoom, OverlaysTooLarge, is_folder, said
from imager.node.files.templates import TemplateOverLimit, Templates
from imager.node.files.tree import CardTree, merge


class Overlays:
    """The overlays in the folder ``built_in``, then those in ``own``.

    What nodes have in common is read once, for the first of them: make a new one to see what was
    changed meanwhile. Only one thread may use it.
    """

    def __init__(self, built_in: Path, own: Path) -> None:
        self._built_in, self._own = built_in, own
        self._kept: dict[Below, OverlayFolder] = {}
        # They may fill no more memory than one card does: a stranger's rack may have many roles.
        self._room = OverlayRoom()

    def tree(self, node: Node, templates: Templates) -> CardTree:
        """The merged overlays of ``node``, whose ``templates`` these are.

        Raises ConfigurationError with one line for each fault of every overlay.
        """
        common = ("base", f"model/{node.model}", *(f"role/{role}" for role in node.roles))
        # What came with this program is trusted as its code is, and may have second names: some
        # installers link files out of their cache.
        built_in = Below(self._built_in.parent, judged=False) / self._built_in.name
        own = Below(self._own.parent) / self._own.name
        room = OverlayRoom()
        faults: list[str] = []
        trees = []
        try:
            faults += self._strangers
            for at in (
                *(built_in / name for name in common),
                *(own / name for name in (*common, f"node/{node.name}")),
            ):
                trees.append(self._tree(at, room, templates, faults))
        except OSError as error:
            faults.append(said(error, self._own))
        except (TemplateOverLimit, OverlaysTooLarge) as error:
            faults.append(str(error))
        if faults:
            raise ConfigurationError(
                f"overlays: {len(faults)} fault{'s' if len(faults) > 1 else ''}",
                hint="mend the files named here; overlays/README.md says what an overlay may hold",
                # A name of any bytes must not stop the line that tells of it from being printed.
                details=told(
                    [fault.encode(errors="backslashreplace").decode() for fault in faults]
                ),
            )
        return merge(*trees)

    def _tree(
        self, at: Below, room: OverlayRoom, templates: Templates, faults: list[str]
    ) -> CardTree:
        kept = self._kept.get(at)
        if kept is not None and room.take(kept.took):
            return kept.tree(templates, faults)
        overlay = OverlayFolder(at, room)
        try:
            overlay.read()
        finally:
            # What was found before it failed is told, too.
            tree = overlay.tree(templates, faults)
        of_one_node = at.parts[1] == "node"
        if not of_one_node and self._room.take(overlay.took):
            self._kept[at] = overlay
        return tree

    @cached_property
    def _strangers(self) -> list[str]:
        """A fault for each folder that no node uses: its files would be missing on every card."""
        return list(_strangers(self._own))


def _strangers(own: Path) -> Iterator[str]:
    known = ("base", "model", "node", "role")
    overlays = Below(own.parent) / own.name
    for name in overlays.names() if is_folder(overlays) else ():
        status = (overlays / name).status()
        if name in (BOOT, ROOT):
            yield f"{own / name}: belongs below {own / 'base'}"
        elif status and stat.S_ISDIR(status.st_mode) and name not in known:
            yield f"{own / name}: no such overlay; {nearest(name, known)}"

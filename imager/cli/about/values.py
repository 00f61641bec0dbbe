"""The values that options and arguments may have on this computer, for this rack.

In: a parameter, and the line it stands in. Out: NextWords. They are looked up when they are asked
for, and looking writes nothing. Whatever is wrong with a rack is raised; completion says nothing of
it then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imager.cli.about.next_words import (
    FILE,
    FOLDER,
    NextWord,
    UnfinishedLine,
    names,
    understood,
)
from imager.cli.about.shells import SCRIPTS
from imager.cli.terminal.colour import ColourChoice

if TYPE_CHECKING:
    from imager.config.rack import Rack

Values = Callable[[UnfinishedLine, str], Iterable[NextWord]]
"""From a line and the beginning of its last word to what this word may be."""


def values_of(param: click.Parameter, line: UnfinishedLine, begun: str) -> Iterable[NextWord]:
    """What ``param`` may be, given that it begins with ``begun``."""
    found = VALUES.get(param.opts[0])
    if found is not None:
        return found(line, begun)
    if isinstance(param.type, click.Path):
        return [FILE if param.type.file_okay else FOLDER]
    return []


def _nodes(line: UnfinishedLine, _: str) -> Iterable[NextWord]:
    return [NextWord(node.name) for node in _rack(line).nodes]


def _documents(_line: UnfinishedLine, _: str) -> Iterable[NextWord]:
    from imager.config.shipped_trees import documents

    return [NextWord(name) for name in documents()]


def _labels(line: UnfinishedLine, _: str) -> Iterable[NextWord]:
    from imager.config.slot_labels import by_place
    from imager.rack.plan.slots import load_slots

    rack = _rack(line)
    nodes = {node.slot: node.name for node in rack.nodes if node.slot}
    known = {*nodes, *load_slots(rack.folder).names}
    return [NextWord(label, nodes.get(label, "")) for label in sorted(known, key=by_place)]


def _rack(line: UnfinishedLine) -> Rack:
    from imager.config.folder import default_rack_to_be, rack_at_hand
    from imager.config.load import load_rack

    named = line.given.get("rack") or os.environ.get("PICLOUD_RACK")
    folder = rack_at_hand(Path.cwd(), Path(named).expanduser() if named else None)
    return default_rack_to_be() if folder is None else load_rack(folder)


def _models(*_: object) -> Iterable[NextWord]:
    from imager.base.boards import BOARDS

    return [NextWord(board.name, board.title) for board in BOARDS]


def _releases(*_: object) -> Iterable[NextWord]:
    from imager.release.catalogue import RELEASES

    return [NextWord(name) for name in RELEASES]


def _blinks(*_: object) -> Iterable[NextWord]:
    from imager.bootcheck.lights import BLINKS

    return [NextWord(blinks, sign.seen) for blinks, sign in BLINKS.items()]


def _cards(line: UnfinishedLine, begun: str) -> Iterable[NextWord]:
    """Disks that may be cards, and files."""
    del line, begun
    from imager.card.host.disks import list_disks

    for disk in list_disks():
        if disk.has_medium and not disk.backs:
            yield NextWord(disk.node, disk.title)
    yield FILE


def _commands(line: UnfinishedLine, _: str) -> Iterable[NextWord]:
    """For ``help``: the commands below those that are named already."""
    root = line.context.find_root().command
    below = understood(root, line.arguments) if isinstance(root, click.Group) else None
    return names(below) if below is not None else []


def _listed(values: Values) -> Values:
    """Several of ``values`` with commas between them."""

    def several(line: UnfinishedLine, begun: str) -> Iterator[NextWord]:
        before, comma, _ = begun.rpartition(",")
        for each in values(line, begun):
            if each.value not in before.split(","):
                yield NextWord(before + comma + each.value, each.help)

    return several


def _words(*listed: str) -> Values:
    return lambda *_: map(NextWord, listed)


def _is(kind: NextWord) -> Values:
    return lambda *_: [kind]


VALUES: Mapping[str, Values] = {
    "--blinks": _blinks,
    "--color": _words(*ColourChoice),
    "--image": _is(FILE),
    "--model": _models,
    "--node": _nodes,
    "--nodes": _listed(_nodes),
    "--pki": _is(FOLDER),
    "--release": _releases,
    "--ssh-key": _is(FILE),
    "--target": _cards,
    "labels": _listed(_labels),
    "name": _documents,
    "names": _words("promote", "undo"),
    "node": _nodes,
    "nodes": _listed(_nodes),
    "racks": _is(FOLDER),
    "shell": _words(*SCRIPTS),
    "target": _cards,
    "words": _commands,
}
"""By the first name of an option, or the name of an argument. What is a path, and not here, may be
any file."""

"""The saved cards in a folder: whose each is, and whether it can be put back.

In: a folder, the rack, its ledger. Out: a SavedNode for each node of which a whole card was saved,
and a reason for each of which none was. Of an image only its beginning is unpacked. It counts as a
node's only when its stamp, signed by this rack's key, says so: the name of a file proves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import PicloudError, TargetRefused, UsageError
from imager.base.text import command_line
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import format_size
from imager.card.host.refusals import accept
from imager.card.host.target import Limits
from imager.card.inspect.stamp import signature_of
from imager.card.save.at_rest import require_different
from imager.card.save.saved_file import SUFFIXES, SavedFile
from imager.card.source.beside import beside
from imager.card.source.opened import WantedImage, opened_source
from imager.card.source.streamed import StreamedSource
from imager.config.rack import Node, Rack
from imager.disk.layout import FIRST_MIB
from imager.disk.mbr import MAX_DISK_BYTES
from imager.node.stamp.facts import StampError, StampFacts
from imager.node.stamp.stamp import STAMP_AREA, Stamp, parse_stamp
from imager.rack.history.events import CardSaved
from imager.rack.history.ledger import Ledger
from imager.rack.plan.candidates import Unfit
from imager.rack.plan.plan import RackPlan


@dataclass(frozen=True, slots=True)
class SavedNode:
    """A saved card of ``node``: ``facts`` is its stamp. A card needs ``size_bytes`` for it, of
    which ``mapped_bytes`` count. ``saved_at`` is UTC in ISO 8601. ``recipe`` says what the card
    was made from once, where the ledger knows it."""

    node: Node
    path: Path
    facts: StampFacts
    size_bytes: int
    mapped_bytes: int
    saved_at: str
    recipe: str


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """``cards`` says which card gets the card of which node, ``saved`` from where, by node.
    ``against`` are the nodes that get nothing back, and why; ``unfit`` cards that may not be
    written."""

    cards: RackPlan
    saved: Mapping[str, SavedNode]
    against: tuple[tuple[Node, PicloudError], ...]
    unfit: tuple[Unfit, ...]


def restore_plan(
    cards: RackPlan,
    unfit: Sequence[Unfit],
    found: Sequence[SavedNode],
    against: Sequence[tuple[Node, PicloudError]],
    limits: Limits,
) -> RestorePlan:
    """The plan ``cards`` for the saved cards ``found``, without the cards that are too small."""
    saved = {one.node.name: one for one in found}
    steps, refused = [], list(against)
    for step in cards.steps:
        try:
            require_different(saved[step.node.name].path, [step.candidate.target])
            accept(step.candidate.target, saved[step.node.name].size_bytes, limits)
            steps.append(step)
        except (TargetRefused, UsageError) as error:
            refused.append((step.node, error))
    return RestorePlan(replace(cards, steps=tuple(steps)), saved, tuple(refused), tuple(unfit))


def saved_nodes(
    folder: TrustedFolder, nodes: Sequence[Node], rack: Rack, ledger: Ledger, *, named: bool
) -> tuple[list[SavedNode], list[tuple[Node, PicloudError]]]:
    """The cards of ``nodes`` that can be put back, and an error for each that cannot. A node of
    which there is no file is an error only where it was ``named``."""
    found: list[SavedNode] = []
    errors: list[tuple[Node, PicloudError]] = []
    there = set(folder.names())
    for node in nodes:
        files = [name for suffix in SUFFIXES if (name := f"{node.name}{suffix}") in there]
        if not (files or named):
            continue
        try:
            found.append(_saved(node, _one_of(files, folder, node), rack, ledger))
        except PicloudError as error:
            errors.append((node, error))
    return found, errors


def _one_of(files: Sequence[str], folder: TrustedFolder, node: Node) -> Path:
    if not files:
        raise TargetRefused(
            f"{folder} has no saved card of {node.name}",
            hint=f"leave {node.name} out, or name the folder it was saved to",
        )
    if len(files) > 1:
        raise TargetRefused(
            f"{folder} has several saved cards of {node.name}: " + ", ".join(files),
            hint="move away all but the one that counts",
        )
    folder.require_file(files[0])
    return folder.path / files[0]


def _saved(node: Node, path: Path, rack: Rack, ledger: Ledger) -> SavedNode:
    with opened_source(WantedImage(str(path))) as opened:
        _require_whole(path, opened.known.lacks_bytes)
        source = opened.source
        stamp = _stamp_of(source)
        facts = _facts_for(node, path, stamp, rack)
        size = source.size_bytes or facts.layout.size_bytes
        mapped = source.bmap.mapped_bytes if source.bmap else size
        saved_at = _saved_at(source, path, ledger)
    made = ledger.made(node.name, facts.image_id)
    recipe = made.recipe if made else ""
    return SavedNode(node, path, facts, size, mapped, saved_at, recipe)


def _saved_at(source: StreamedSource, path: Path, ledger: Ledger) -> str:
    """When the card was saved: as the ledger says, whatever the file is called now; where it knows
    nothing of it, when the file was last written."""
    bmap = beside(source.origin, SavedFile(path).bmap.name)
    if bmap is not None:
        sha256 = hashlib.sha256(bmap).hexdigest()
        for event in reversed(ledger.events):
            if isinstance(event, CardSaved) and event.map_sha256 == sha256:
                return event.at
    with host_storage(path):
        return timestamp(path.stat().st_mtime)


def _require_whole(path: Path, lacks_bytes: int | None) -> None:
    """Raise TargetRefused for an image that lacks what its card did not give, or may."""
    if lacks_bytes == 0:
        return
    map_name, write = SavedFile(path).map.name, command_line("write", "TARGET", "--image", path)
    if lacks_bytes is None:
        raise TargetRefused(
            f"{path}: whether it is whole cannot be told, as {map_name} beside it cannot be read",
            hint=f"to write it all the same: {write}",
        )
    raise TargetRefused(
        f"{path} is not whole: {format_size(lacks_bytes)} of its card could not be read",
        hint=f"{map_name} says which; to write it all the same: {write}",
    )


def _stamp_of(source: StreamedSource) -> Stamp | None:
    """The stamp in the beginning of the image; None where there is none that can be read."""
    first = bytearray(FIRST_MIB.length)
    with source.read(MAX_DISK_BYTES) as reading:
        for offset, data in reading.pieces():
            if offset >= len(first):
                break
            part = data[: len(first) - offset]
            first[offset : offset + len(part)] = part
    try:
        return parse_stamp(bytes(first[STAMP_AREA.offset :]))
    except StampError:
        return None


def _facts_for(node: Node, path: Path, stamp: Stamp | None, rack: Rack) -> StampFacts:
    """What ``stamp`` says, if it is the node's and of this rack; TargetRefused if not."""
    write = command_line("write", "TARGET", "--image", path)
    if stamp is None:
        raise TargetRefused(
            f"{path} is no card of ours: it has no stamp",
            hint=f"to write it all the same: {write}",
        )
    facts = stamp.facts
    if not signature_of(stamp, rack.folder).known:
        raise TargetRefused(
            f"{path} was saved from a card of another rack: {facts.node} of rack {facts.rack}",
            hint="restore it from the folder of that rack",
        )
    if facts.node != node.name:
        raise TargetRefused(
            f"{path} is {facts.node}'s card, not {node.name}'s",
            hint=f"call it {facts.node}{''.join(path.suffixes)}; to write it all the same: {write}",
        )
    return facts

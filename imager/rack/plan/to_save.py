"""Whose cards are in the readers, so that each is saved under its node's name.

In: the disks of this computer, the rack. Out: for each card its node, or why it is left alone. A
card is the node's that its stamp names, if this rack signed it, wherever it is. One whose beginning
cannot be read any more is the node's in whose slot it is: that card is to be saved first of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import TargetRefused
from imager.base.text import command_line
from imager.card.host.disk_facts import Bus
from imager.card.host.disks import list_disks
from imager.card.host.sysfs import HostTrees
from imager.card.save.at_rest import at_rest
from imager.card.save.saved_file import SUFFIXES, SavedFile
from imager.config.rack import Node, Rack
from imager.rack.plan.candidates import Candidate, Holds, look_at
from imager.rack.plan.plan import Left
from imager.rack.plan.slots import Slots

_SUFFIX = ".img.zst"


@dataclass(frozen=True, slots=True)
class CardToSave:
    """One node's card and the file it becomes. ``against`` says why it cannot be saved."""

    node: Node
    candidate: Candidate
    files: SavedFile
    against: TargetRefused | None


@dataclass(frozen=True, slots=True)
class SavePlan:
    """``left`` are cards that are left alone; ``without`` the nodes asked for of which none is
    here."""

    cards: tuple[CardToSave, ...]
    left: tuple[Left, ...]
    without: tuple[Node, ...]


def readable_cards(
    rack: Rack, slots: Slots, targets: Sequence[Path], ours: tuple[Path, ...], kernel: HostTrees
) -> list[Candidate]:
    """The cards in this computer's readers, or those at ``targets`` if any are named. It does not
    matter whether they may be written to."""
    if targets:
        # Raises for one that is not there, or in use.
        found = [at_rest(path, kernel) for path in targets]
        return [look_at(target, slots, rack.folder) for target in found]
    disks = [
        disk
        for disk in list_disks(ours, kernel)
        if disk.has_medium
        and not disk.is_fixed
        and (disk.bus is not Bus.LOOP or slots.label_of(disk.by_path) is not None)
    ]
    return [look_at(disk, slots, rack.folder) for disk in disks]


def plan_saving(
    candidates: Iterable[Candidate],
    nodes: Sequence[Node],
    rack: Rack,
    folder: Path,
    kernel: HostTrees,
) -> SavePlan:
    """Which of ``candidates`` become which files in ``folder``, for the ``nodes`` asked for."""
    left: list[Left] = []
    cards: dict[Node, list[Candidate]] = {}
    for candidate in candidates:
        name = _whose(candidate, rack)
        node = next((node for node in nodes if node.name == name), None)
        if node is not None:
            cards.setdefault(node, []).append(candidate)
        else:
            left.append(Left(candidate, _why_not(candidate, name, rack)))
    here = sorted(cards, key=nodes.index)
    return SavePlan(
        tuple(
            CardToSave(node, candidate, files, reason)
            for node in here
            for candidate, files, reason in _filed(node, cards[node], folder, kernel)
        ),
        tuple(left),
        tuple(node for node in nodes if node not in cards),
    )


def _whose(candidate: Candidate, rack: Rack) -> str | None:
    if candidate.stamp is not None:
        return candidate.stamp.node
    slots = {node.slot: node.name for node in rack.nodes if node.slot}
    return slots.get(candidate.slot or "") if candidate.refuses else None


def _why_not(candidate: Candidate, name: str | None, rack: Rack) -> str:
    if name is not None and name in {node.name for node in rack.nodes}:
        return f"it is {name}'s, which was not asked for"
    if candidate.holds is Holds.BLANK:
        return "there is nothing to save"
    read = command_line("read", candidate.target.node, "FILE.img.zst")
    why = f"{name} is no node of this rack" if name else "it is no card of this rack"
    return f"{why}; to save it all the same: {read}"


def _filed(
    node: Node, candidates: Sequence[Candidate], folder: Path, kernel: HostTrees
) -> Iterator[tuple[Candidate, SavedFile, TargetRefused | None]]:
    for candidate in candidates:
        files = SavedFile(folder / f"{node.name}{_SUFFIX}")
        others = [one.target.node for one in candidates if one is not candidate]
        yield candidate, files, _against(node, candidate, files, others, kernel)


def _against(
    node: Node, candidate: Candidate, files: SavedFile, others: Sequence[str], kernel: HostTrees
) -> TargetRefused | None:
    """Why the card cannot be saved; None where it can."""
    card, folder = candidate.target.node, files.path.parent
    if others:
        return TargetRefused(
            f"{card} is {node.name}'s card, and so is {', '.join(others)}",
            hint="take out all of them but the one that counts",
        )
    for suffix in SUFFIXES:
        taken = folder / f"{node.name}{suffix}"
        if taken.exists() or taken.is_symlink():
            return TargetRefused(
                f"{taken} exists, and what was saved before is not overwritten",
                hint="name another folder, such as one called by today's date, or move that file "
                "away",
            )
    try:
        at_rest(Path(card), kernel)
    except TargetRefused as error:
        return error
    return None

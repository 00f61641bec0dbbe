"""Learns which card reader slot has which label: a person puts in one card after the other.

In: the labels to give, and the cards as they arrive. Out: a Lesson for each card. slots.toml is
written after each, so that nothing is lost when the person stops half-way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imager.card.host.disks import Disk
from imager.rack.plan.slots import Slots, load_slots, name_slot


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned from one card. ``label`` is now the slot's label, or was it before, if
    ``already``. It is None when the card's slot can have no label, and ``why`` says why."""

    disk: Disk
    label: str | None
    already: bool = False
    why: str = ""


def labels_to_learn(slots: Slots, labels: Sequence[str], *, replace: bool) -> tuple[str, ...]:
    """Those of ``labels`` that have no slot yet; all of them with ``replace``."""
    return tuple(label for label in labels if replace or label not in slots.names)


def learn_slots(
    folder: Path, labels: Sequence[str], cards: Iterable[Disk], *, replace: bool
) -> Iterator[Lesson]:
    """Give each of ``labels`` in turn to the slot of the next card of ``cards``.

    A slot that has a label keeps it; with ``replace`` it keeps only a label given in this run. Ends
    when all labels are given.
    """
    waiting = list(labels)
    ours: set[str] = set()
    for disk in cards if waiting else ():
        label = load_slots(folder).label_of(disk.by_path)
        if disk.is_fixed:
            yield Lesson(disk, None, why="is not removable, so it is no card")
        elif not disk.by_path:
            yield Lesson(disk, None, why="has no name in /dev/disk/by-path, so it has no slot")
        elif label is not None and (not replace or label in ours):
            yield Lesson(disk, label, already=True)
        else:
            label = waiting.pop(0)
            ours.add(label)
            name_slot(folder, label, disk.by_path[0])
            yield Lesson(disk, label)
        if not waiting:
            return

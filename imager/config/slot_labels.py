"""The labels of a rack's places. ``A3`` is the third place of tower A; the card reader slot in
which that node's card is written has the same label.

In: [rack] ``slots`` and the nodes' own ``slot``. Out: a label for each node that has one, and a
fault for every label that cannot be used. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from imager.base.json_fields import shown
from imager.config.fields import Table
from imager.config.nodeset import expand

EXAMPLE = "A[1-7],B[1-7]"
LABEL_LIMIT = 16
"""Longer labels would not fit on a card's paper label, nor in a terminal of 80 columns."""

_LABEL = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_PARTS = re.compile(r"(?P<tower>.*?)-?(?P<place>\d*)\Z")


def label_fault(label: str) -> str | None:
    """Why ``label`` cannot be a place's label; None when it can."""
    if len(label) > LABEL_LIMIT:
        return f"is {len(label)} characters long; a label has at most {LABEL_LIMIT}"
    if not _LABEL.match(label):
        return "is not a label; write a letter, then letters, digits and hyphens, like A1"
    return None


def tower_and_place(label: str) -> tuple[str, int | None]:
    """``A3`` is ("A", 3), ``left-12`` is ("left", 12), ``top`` is ("top", None)."""
    match = _PARTS.match(label)
    assert match is not None  # noqa: S101 - every part of the pattern may be empty
    return match["tower"], int(match["place"]) if match["place"] else None


def by_place(label: str) -> tuple[str, int, str]:
    """A sort key: by tower, then A2 before A10."""
    tower, place = tower_and_place(label)
    return tower, -1 if place is None else place, label


def expand_labels(text: str) -> tuple[str, ...]:
    """The labels ``text`` stands for. Raises ValueError with a message that can be shown."""
    labels = expand(text, example=EXAMPLE)
    for label in labels:
        fault = label_fault(label)
        if fault:
            raise ValueError(f"has {label!r}, which {fault}")
    return labels


def deal_slots(
    rack: Table, names: Sequence[str], nodes: Mapping[str, Table]
) -> dict[str, str | None]:
    """Node name -> label. A node's own ``slot`` comes first, then the label of [rack] ``slots`` at
    its place in ``names``, else None. Faults are noted in the table a label comes from."""
    dealt = _read_slots(rack, names)
    found: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for index, name in enumerate(names):
        own = _read_slot(nodes[name])
        label = own or (dealt[index] if index < len(dealt) else None)
        found[name] = label
        owner = taken.setdefault(label, name) if label else name
        if owner != name:
            table, key = (nodes[name], "slot") if own else (rack, "slots")
            table.fault(key, f"{shown(label)} is given to both {owner} and {name}")
    return found


def _read_slots(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    text = table.string("slots", example=shown(EXAMPLE))
    if text is None:
        return ()
    try:
        labels = expand_labels(text)
    except ValueError as error:
        table.fault("slots", f"{shown(text)} {error}")
        return ()
    if names and len(labels) != len(names):
        table.fault(
            "slots",
            f"{len(labels)} slots for {len(names)} nodes; give one for each, in their order",
        )
    return labels


def _read_slot(table: Table) -> str | None:
    label = table.string("slot", example='"A3"')
    fault = label_fault(label) if label else None
    if fault:
        table.fault("slot", f"{shown(label)} {fault}")
        return None
    return label

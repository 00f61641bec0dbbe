"""The rack as a drawing of letters: its towers side by side, a line for each place.

In: towers, and how wide the terminal is. Out: lines. It uses no colour, so that it is the same on
any terminal, on paper and for a screen reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from imager.config.rack import MASTER
from imager.config.slot_labels import tower_and_place
from imager.rack.history.events import Standing
from imager.rack.report.overview import NodeView, Tower

_CARD_MARKS = {
    Standing.NEVER: "·",
    Standing.CURRENT: "✓",
    Standing.VERIFIED: "✓",
    Standing.STALE: "~",
    Standing.FAILED: "✗",
    Standing.CUT_SHORT: "!",
    Standing.UNKNOWN: "?",
}
_LEGEND = {
    "✓": "verified",
    "~": "verified, out of date",
    "✗": "failed",
    "!": "cut short",
    "?": "begun on a station",
    "·": "no card yet",
    "●": "joined",
    "○": "not joined",
    "*": "Salt master",
}
_GAP = 2


def drawing(towers: Sequence[Tower], width: int) -> list[str]:
    """The towers in rows of as many as fit into ``width`` columns, and what the marks mean."""
    boxes = [_box(tower) for tower in towers]
    lines: list[str] = []
    row: list[list[str]] = []
    for box in boxes:
        if row and sum(len(one[0]) + _GAP for one in row) + len(box[0]) > width:
            lines += _side_by_side(row)
            row = []
        row.append(box)
    lines += _side_by_side(row)
    used = "".join(lines)
    legend = [f"{mark} {meaning}" for mark, meaning in _LEGEND.items() if mark in used]
    return [*lines, *_wrapped(legend, width)]


def _box(tower: Tower) -> list[str]:
    names = max(len(view.node.name) for view in tower.views)
    cells = [_cell(view, names) for view in tower.views]
    inner = max(len(cells[0]), len(tower.name) + 2)
    head = f"┌{f' {tower.name} '.center(inner, '─')}┐" if tower.name else f"┌{'─' * inner}┐"
    return [head, *(f"│{cell.ljust(inner)}│" for cell in cells), f"└{'─' * inner}┘"]


def _cell(view: NodeView, names: int) -> str:
    place = tower_and_place(view.node.slot)[1] if view.node.slot else None
    master = "*" if MASTER in view.node.roles else " "
    joined = "●" if view.is_joined else "○"
    number = f"{place:>2} " if place is not None else ""
    return (
        f" {number}{view.node.name.ljust(names)}{master} {_CARD_MARKS[view.card.standing]}{joined} "
    )


def _side_by_side(boxes: Sequence[list[str]]) -> list[str]:
    widths = [len(box[0]) for box in boxes]
    rows = zip_longest(*boxes, fillvalue="")
    gap = " " * _GAP
    return [
        gap.join(line.ljust(width) for line, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _wrapped(words: Sequence[str], width: int) -> Iterator[str]:
    """``words`` in lines of at most ``width`` columns; no word is cut."""
    line = ""
    for word in words:
        longer = f"{line}   {word}" if line else word
        if len(longer) > width and line:
            yield line
            longer = word
        line = longer
    if line:
        yield line

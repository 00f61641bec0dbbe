"""Lines and tables as wide as the terminal: they are folded between words, and no word is broken.

In: lines or cells, and columns; None where nobody looks at a terminal, and then nothing is folded.
Out: lines. A word that is longer than a line, mostly a path or a fingerprint, stands out whole, so
that it can be copied. Only what is drawn over again and again, as bars are, is shortened. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap

_HEAD = re.compile(r" *(?:→ |-> |\d+\. |[^\s:]{1,10}: +|\S{1,14} {2,})?")
"""What stands before the text of a line: its indent, an arrow, a number, a label. What is folded
goes on below the text."""
_PIECE = re.compile(r"(?<! ) *+(?:\d[\d.]*+ (?:[kMGT]?i?B|s)\b\S*+|\S++)")
"""A word; a number and its unit are one. Blanks at the end are none, and are looked at once."""
_DEEPER = 4
"""How far the rest of a line that has no label is set in."""
_GAP = 2
_NOTHING = ("", "-", "–")


def width_of(text: str) -> int:
    """The columns ``text`` takes: letters of East Asia take two, marks above a letter none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def folded(line: str, columns: int | None) -> list[str]:
    """``line`` as lines of at most ``columns``."""
    if columns is None or width_of(line) <= columns:
        return [line]
    found = _HEAD.match(line)
    head = found[0] if found else ""
    indent = width_of(head)
    if indent * 2 > columns or not head.strip():
        indent = len(line) - len(line.lstrip(" ")) + _DEEPER
    lines, now, is_begun = [], head, False
    for piece in _PIECE.findall(line[len(head) :]):
        if is_begun and width_of(now + piece) > columns:
            lines.append(now)
            now, piece = " " * indent, piece.lstrip(" ")
        now += piece
        is_begun = True
    return [*lines, now]


def shortened(line: str, columns: int) -> str:
    """``line`` for a place that has one line: its first words and ``…`` where it is wider than
    ``columns``. A word that takes half of the line is cut itself."""
    if width_of(line) <= columns:
        return line
    cut = line[: max(0, columns - 2)]
    while cut and width_of(cut) > columns - 2:
        cut = cut[:-1]
    words = cut if line[len(cut)] == " " else cut.rpartition(" ")[0]
    if len(words) * 2 > len(cut):
        return f"{words.rstrip()} …"
    return f"{cut}…"[:columns]


def wrapped(text: str, width: int | None, first: str, rest: str) -> list[str]:
    """``text`` as lines of at most ``width``, the first begun with ``first``, the others with
    ``rest``; as one line where ``width`` is None."""
    if width is None:
        return [first + text]
    return wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """A table, its columns as wide as their widest cell. Where it is too wide, cells are folded,
    the widest first. Where even that is not enough, the cells of a row stand below each other."""
    widths = [max(map(width_of, cells)) for cells in zip(head, *rows, strict=True)]
    if columns is None:
        return [_row(row, widths) for row in (head, *rows)]
    least = [max(map(_longest_word, cells)) for cells in zip(head, *rows, strict=True)]
    room = columns - _GAP * (len(widths) - 1)
    if sum(least) > room:
        return [line for row in rows for line in _stacked(head, row, columns)]
    while sum(widths) > room:
        spare = [(width, n) for n, width in enumerate(widths) if width > least[n]]
        widths[max(spare)[1]] -= 1
    return [line for row in (head, *rows) for line in _folded_row(row, widths)]


def _longest_word(cell: str) -> int:
    return max(map(width_of, cell.split()), default=0)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    filled = (
        cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    return (" " * _GAP).join(filled).rstrip()


def _folded_row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts = [_in_words(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [_row(line, widths) for line in zip_longest(*parts, fillvalue="")]


def _in_words(cell: str, width: int) -> list[str]:
    if width_of(cell) <= width:
        return [cell]
    lines = [""]
    for word in cell.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _stacked(head: Sequence[str], row: Sequence[str], columns: int) -> list[str]:
    first, *others = row
    lines = [first]
    for name, cell in zip(head[1:], others, strict=True):
        if cell not in _NOTHING:
            lines += folded(f"    {name}: {cell}", columns)
    return lines

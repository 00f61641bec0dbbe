"""What stands on a terminal in the end, of all that came to it.

In: letters, and the codes of which this program's bars are made. Out: lines, without colours. No
line is broken where the terminal ends.
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"\033\[\??(?P<count>[0-9;]*)(?P<code>[A-Za-z])|\033\][^\a]*\a|(?P<letter>.)", re.DOTALL
)


def screen(text: str) -> list[str]:
    """The lines of a terminal without end to which ``text`` came."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for piece in _PIECE.finditer(text):
        letter, code = piece["letter"], piece["code"]
        if letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            lines += [[]] * (row == len(lines))
        elif letter:
            line = lines[row]
            line += " " * (column - len(line))
            line[column : column + 1] = letter
            column += 1
        elif code == "A":
            row = max(0, row - int(piece["count"] or 1))
        elif code in ("J", "K"):
            del lines[row][column:]
            if code == "J":
                del lines[row + 1 :]
    return ["".join(line).rstrip() for line in lines]

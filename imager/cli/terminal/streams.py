"""Standard output and standard error: whether somebody looks at them, and which letters they carry.

In: the streams this program was started with. Out: streams that take every text. One of another
alphabet gets our own signs in ASCII (``->`` for an arrow), and of all else the escape. Nothing here
fails because of a locale, a closed descriptor or a full disk.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

NO_READER = 1
"""The exit code where whoever read our output is gone (``| head``), and nothing can be shown."""
_PLAIN = "picloud-plain"
_SIGNS = {
    "→": "->",
    "…": "...",
    "–": "-",
    "—": "-",
    "·": ".",
    "×": "x",
    "✓": "+",
    "✗": "x",
    "●": "@",
    "○": "o",
    "─": "-",
    "│": "|",
    "┌": "+",
    "┐": "+",
    "└": "+",
    "┘": "+",
    **dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#", strict=True)),
}
_USUAL_COLUMNS = 80
_ASCII_LOCALES = ("C", "POSIX")


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """For ``codecs``: what stands for the letters that an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    plain = "".join(_SIGNS.get(sign) or ascii(sign)[1:-1] for sign in lost)
    return plain, error.end


codecs.register_error(_PLAIN, _plainly)


def prepare_streams() -> None:
    """Make the standard streams such that no text and no answer raises UnicodeError.

    A stream that was closed becomes /dev/null: else the next file that is opened, perhaps a card,
    would be taken for it. ``LC_ALL=C`` asks for ASCII, though Python would write UTF-8 there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    bare = os.environ.get("LC_ALL") in _ASCII_LOCALES and "PYTHONIOENCODING" not in os.environ
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, _PLAIN), (sys.stderr, _PLAIN)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="ascii" if bare else None, errors=errors)


def spoken(text: str, stream: TextIO) -> str:
    """``text`` in the letters that ``stream`` has."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, _PLAIN).decode(encoding)


def carries_unicode(stream: TextIO) -> bool:
    """Whether every letter can be written to ``stream``."""
    return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf-")


def columns_of(stream: TextIO) -> int | None:
    """The width of the terminal that ``stream`` is; None where it is none."""
    if not stream.isatty():
        return None
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return columns or _USUAL_COLUMNS  # a serial console often does not know its size


def silence(stream: TextIO) -> None:
    """Let all that is still to be written to ``stream`` go nowhere: what it was cannot be written
    to any more, and what is in its buffer must not fail again at the end of the program."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)

"""Text for a terminal, JSON, TOML and a shell: the one place where text of strangers is escaped.

In: text or values that may come from a card, a mirror, a node or a master. Out: the same in one
line, in which nothing moves a cursor, rings a bell, turns letters around or begins a line of its
own. Letters of every language stay as they are. Pure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

_LONG_KEY = re.compile(
    r"""(?<![A-Za-z0-9_\\-])
    (?: (?: [A-Za-z0-9_-]++ | "(?:[^"\\\n]|\\.)*+" | '[^'\n]*+' ) [ \t]*+ \. [ \t]*+ ){32}""",
    re.VERBOSE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
MOST_LINES = 200
"""So many faults, reasons or findings are told; whoever has more begins with these."""
_LONGEST = 500
_LONGEST_LINE = 5000
"""Room for a path and what is said of it."""


def printable(text: str) -> str:
    """``text`` with every character that is no letter, sign or plain space written as its escape:
    ``\\n``, ``\\x1b``, ``\\u202e``. Lone surrogates, which no stream can carry, are among them."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def json_line(value: object) -> str:
    """``value`` as one line of JSON that any reader of UTF-8 takes and any terminal survives.

    What JSON can say with an escape keeps its meaning; a lone surrogate becomes the six characters
    of its escape, and a number that is none (NaN, infinity) becomes text.
    """
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        line = json.dumps(_finite(value), ensure_ascii=False, default=str)
    if line.isprintable():
        return line
    line = _SURROGATE.sub(lambda found: rf"\\u{ord(found[0]):04x}", line)
    return "".join(letter if letter.isprintable() else _json_escape(letter) for letter in line)


def cut(text: str, most: int = _LONGEST) -> str:
    """``text`` in ``most`` letters: a name may be as long as its file."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def and_more(count: int) -> Iterator[str]:
    """What comes behind the first MOST_LINES of ``count`` lines: a line that says how many more."""
    if count > MOST_LINES:
        yield f"and {count - MOST_LINES} more"


def told(lines: Sequence[str]) -> tuple[str, ...]:
    """As much of ``lines`` as a person is told of what is wrong with a file."""
    return (*(cut(line, _LONGEST_LINE) for line in lines[:MOST_LINES]), *and_more(len(lines)))


def as_counted(name: str) -> tuple[str | tuple[int, str], ...]:
    """A sort key: names that end in numbers, or have some in them, as people count: pi2 before
    pi10."""
    parts = enumerate(re.split("([0-9]+)", name))
    return tuple((len(bare := part.lstrip("0")), bare) if n % 2 else part for n, part in parts)


def command_line(*words: str | os.PathLike[str]) -> str:
    """picloud-image with ``words``, to be pasted into a shell: each word is quoted where it must
    be. What the person who reads it gave beside them is added when it is shown."""
    return f"picloud-image {shlex.join(os.fspath(word) for word in words)}"


def toml_text(value: str | list[str]) -> str:
    """A text, or a list of texts, as TOML, which tomllib can only read. It is the same as in JSON,
    except that TOML wants the character DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def toml_tree(text: str) -> dict[str, Any]:
    """What the TOML ``text`` says. Raises ValueError, mostly a TOMLDecodeError, for what is none,
    is nested too deeply, or has a key of more than 32 parts: tomllib's time and memory grow with
    the square of their number."""
    found = _LONG_KEY.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise tomllib.TOMLDecodeError(f"A key of too many parts (at line {line}, column 1)")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _json_escape(letter: str) -> str:
    """JSON knows four hex digits only: beyond them two stand for one character."""
    units = letter.encode("utf-16-be").hex()
    return "".join(rf"\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {_finite(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

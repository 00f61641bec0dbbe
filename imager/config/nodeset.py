"""Names in ranges, ``pi[0-13]``, as ClusterShell's nodeset(1) writes them.

In: text from rack.toml. Out: the names in the order written, or what is wrong with the text. They
are counted before they are made, so that ``pi[0-999999999]`` is refused without filling memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

LIMIT = 4096
"""No rack has more nodes than this: a longer range is a typing error."""

_EXAMPLE = "pi[0-13] or pi[0-3],head"
_LONGEST = 1 << 16
"""Room for LIMIT addresses, each written out."""
_UNCOUNTED = 10**9
_PIECE = re.compile(r"\[[^\]]*+\]?+|,|[^\[,]++")
"""What stands between brackets, a comma that parts two names, or anything between those."""
_ALLOWED = re.compile(r"[A-Za-z0-9_.\-\[\],/]++\Z")
_RANGES = re.compile(r"\[([^\[\]]*+)\]")
_RANGE = re.compile(r"\s*(\d{1,9})(?:-(\d{1,9})(?:/(\d{1,4}))?)?\s*\Z")


def expand(text: str, *, example: str = _EXAMPLE) -> tuple[str, ...]:
    """The names ``text`` stands for, in the order written, the numbers of a range ascending.

    Raises ValueError, with a message that can be shown, when the text is no list of names (the
    message then shows ``example``), when it has more than LIMIT names, or one name twice.
    """
    # ClusterShell's groups (@all) and operators (! & ^) are refused: what they mean depends on
    # files of the computer that reads them.
    if len(text) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} letters; write it in ranges, like {example}")
    parts = [part.strip() for part in _parts(text)]
    if not all(_ALLOWED.match(part) for part in parts):
        raise ValueError(f"is not a list of names; write it like {example}")
    expected = sum(_count(part) for part in parts)
    if expected > LIMIT:
        over = "more than " if expected >= _UNCOUNTED else ""
        raise ValueError(f"stands for {over}{expected} names; a rack has at most {LIMIT}")
    # Part by part, because a whole NodeSet would sort them: addresses are dealt out in the
    # order in which a person wrote the names.
    names = [name for part in parts for name in _expand_part(part, example)]
    if len(names) != expected:
        raise ValueError("has the same number in one range twice")
    repeated, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"has {repeated} in it twice")
    return tuple(names)


def _parts(text: str) -> list[str]:
    """``text`` at its commas, but for those between brackets."""
    parts = [""]
    for piece in _PIECE.findall(text):
        if piece == ",":
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _expand_part(part: str, example: str) -> list[str]:
    try:
        return [str(name) for name in NodeSet(part, resolver=RESOLVER_NOGROUP)]
    except (NodeSetException, ValueError) as error:
        raise ValueError(f"is not a list of names ({error}); write it like {example}") from error


def fold(names: Sequence[str]) -> str:
    """The short form of ``names``: pi[0-13]."""
    return str(NodeSet.fromlist(list(names), resolver=RESOLVER_NOGROUP))


def _count(part: str) -> int:
    count = 1
    for ranges in _RANGES.findall(part):
        count = min(_UNCOUNTED, count * sum(_range_size(one) for one in ranges.split(",")))
    return count


def _range_size(text: str) -> int:
    match = _RANGE.match(text)
    if match is None:
        raise ValueError(f"has the range {text!r}; write it like [0-13] or [0,2,4-7]")
    low, high, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if high < low or step == 0:
        raise ValueError(f"has the range {text!r}, which runs backwards")
    return (high - low) // step + 1

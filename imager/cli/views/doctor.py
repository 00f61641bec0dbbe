"""What the doctor found, as lines for a person.

In: Checkups. Out: lines, one for each, by area; what is to be done stands below. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from imager.cli.terminal.folding import wrapped
from imager.doctor.checkup import Checkup, Verdict

_STATE = max(len(verdict) for verdict in Verdict)
_INDENT = "  "
_LEAST = 40


def checkup_lines(checkups: Iterable[Checkup], columns: int | None) -> Iterator[str]:
    """The checkups under the names of their areas, no line wider than ``columns`` where that can
    be; whole lines where there is no terminal and ``columns`` is None."""
    columns = None if columns is None else max(columns, _LEAST)
    below = " " * (_STATE + 2 * len(_INDENT))
    for area, members in groupby(checkups, lambda one: one.area):
        its = list(members)
        width = max(len(one.name) for one in its)
        yield area
        for one in its:
            head = f"{_INDENT}{one.verdict:{_STATE}}  {one.name:{width}}  "
            yield from wrapped(one.found, columns, head, " " * len(head))
            for line in (*one.details, *([f"→ {one.to_do}"] if one.to_do else [])):
                yield from wrapped(line, columns, below, below)


def verdict_line(checkups: Iterable[Checkup]) -> str:
    """The whole in one line."""
    seen = [one.verdict for one in checkups]
    bad = sum(verdict in (Verdict.MISSING, Verdict.WRONG) for verdict in seen)
    count = seen.count(Verdict.WARNING)
    warnings = f"{count} warning{'' if count == 1 else 's'}"
    if bad:
        return f"{bad} to mend before cards can be made; {warnings}"
    return f"all that is needed is there; {warnings}"

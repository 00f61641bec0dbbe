"""What was measured, as one Markdown table.

In: rows with samples of both sides. Out: text. A ratio is the median over pairs measured one after
the other, so that a busy machine slows both sides of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """The same thing measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    def ratio_to(self, other: Sample) -> float:
        """The median of the ratios of pairs measured one after the other."""
        pairs = zip(self.values, other.values, strict=True)
        return median(ours / theirs for ours, theirs in pairs)

    def text(self, unit: str, digits: int = 1) -> str:
        """``9.8 s (9.5 to 10.4)``"""
        middle = f"{self.median:.{digits}f} {unit}"
        if len(self.values) == 1:
            return middle
        return f"{middle} ({min(self.values):.{digits}f} to {max(self.values):.{digits}f})"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``met`` is None where there is no limit or nothing was measured."""

    what: str
    limit: str
    ours: str
    peer: str = "–"
    ratio: float | None = None
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "met", False: "**MISSED**", None: "–"}[self.met]
        return (self.what, self.limit, self.ours, self.peer, ratio, verdict)


def skipped(what: str, limit: str, why: str) -> Row:
    """A row for what could not be measured here."""
    return Row(what, limit, f"not measured: {why}")


_HEAD = ("what", "limit", "picloud-image", "peer", "ratio", "verdict")


def tell(line: str) -> None:
    """One line for whoever waits, at once; the table comes at the end."""
    print(line, file=sys.stderr, flush=True)


def markdown(rows: Sequence[Row]) -> str:
    """The table, its columns padded so that it can be read as it is."""
    lines = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    rule = tuple("-" * width for width in widths)
    padded = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in (_HEAD, rule, *lines[1:])
    )
    return "\n".join(f"| {line} |" for line in padded)

"""What it may cost to look at a stranger's disk: one budget that every reader of it draws on.

In: what a reader is about to do. Out: nothing, or OverBudget, which says what there was too much
of; whoever called the reader tells the person that the rest was not looked at. A few kilobytes of a
disk can ask for hours or gigabytes, so what is counted is what looking costs here, not what lies on
the disk, and not seconds: the same disk gives the same answer everywhere. See docs/security.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace

from imager.base.units import MiB, format_chosen

MAX_TEXT_BYTES = 64 * 1024
"""A text file that a person or this program wrote."""
MAX_FINDINGS = 200
"""So many faults of a kind are put into words; the others are counted."""


class OverBudget(ValueError):
    """Reading on would cost too much; the message says what there is too much of."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much one disk may cost.

    ``steps`` are microseconds of one busy core, roughly. ``depth`` counts folders within each
    other; ``path_bytes`` is the longest path in UTF-8, what Linux can open. ``names`` and
    ``pieces`` (of files) are those that are kept, ``name_bytes`` the length of the kept names.
    ``unpacked_bytes`` is what comes out of compressed files and of holes in files,
    ``content_bytes`` what is read of files in place: a small disk on which every file has the
    same blocks is else as long to read as a large one.
    """

    steps: int = 6_000_000
    depth: int = 64
    path_bytes: int = 4096
    names: int = 100_000
    name_bytes: int = 8 * MiB
    pieces: int = 200_000
    unpacked_bytes: int = 512 * MiB
    content_bytes: int = sys.maxsize


DEFAULT_LIMITS = ReadLimits()


class Budget:
    """What is left for one disk. Steps and bytes are spent for good; a reader that keeps names
    and pieces has a ``share`` of its own, for what it keeps goes when it does. What is asked for
    beyond it raises OverBudget, and must not be done."""

    __slots__ = ("_name_bytes", "_names", "_pieces", "_spent", "limits")

    def __init__(self, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._spent = _Spent()
        self._names = self._name_bytes = self._pieces = 0

    @classmethod
    def of_disk(cls, size_bytes: int) -> Budget:
        """The budget of a disk of that size: its files together may be twice as large."""
        return cls(replace(DEFAULT_LIMITS, content_bytes=2 * size_bytes))

    @classmethod
    def of_our_image(cls) -> Budget:
        """For an image this program has made itself, which may cost what it needs."""
        return cls(ReadLimits(*[sys.maxsize >> 1] * len(fields(ReadLimits))))

    def share(self) -> Budget:
        """The same budget for a reader that keeps its own names and pieces."""
        other = Budget(self.limits)
        other._spent = self._spent
        return other

    @property
    def spent(self) -> tuple[int, int]:
        """Steps, and unpacked bytes, so far."""
        return self._spent.steps, self._spent.unpacked_bytes

    def step(self, count: int = 1) -> None:
        """Before work that takes about ``count`` microseconds."""
        self._spent.steps += count
        if self._spent.steps > self.limits.steps:
            raise OverBudget("looking at it takes too long")

    def unpack(self, size_bytes: int) -> None:
        """For ``size_bytes`` that came out of a compressed file or a hole."""
        self._spent.unpacked_bytes += size_bytes
        if self._spent.unpacked_bytes > self.limits.unpacked_bytes:
            limit = format_chosen(self.limits.unpacked_bytes)
            raise OverBudget(f"its files unpack to more than {limit}")

    def read_content(self, size_bytes: int) -> None:
        """Before ``size_bytes`` of a file are read."""
        self._spent.content_bytes += size_bytes
        if self._spent.content_bytes > self.limits.content_bytes:
            raise OverBudget("its files are larger together than the disk")

    def path_fault(self, path: str) -> str | None:
        """Why ``path`` is not followed whatever is left: it is too deep or too long. None when
        not."""
        if path.strip("/").count("/") >= self.limits.depth:
            return f"there are more than {self.limits.depth} folders within each other"
        if _size(path) > self.limits.path_bytes:
            return f"there are paths of more than {self.limits.path_bytes} bytes"
        return None

    def keep_name(self, path: str) -> None:
        """Before ``path`` is kept."""
        self._names += 1
        self._name_bytes += _size(path)
        if self._names > self.limits.names:
            raise OverBudget(f"there are more than {self.limits.names} names")
        if self._name_bytes > self.limits.name_bytes:
            limit = format_chosen(self.limits.name_bytes)
            raise OverBudget(f"its names take more than {limit}")

    def keep_pieces(self, count: int = 1) -> None:
        """Before ``count`` more ranges of bytes are kept."""
        self._pieces += count
        if self._pieces > self.limits.pieces:
            raise OverBudget(f"its files lie in more than {self.limits.pieces} pieces")


def _size(path: str) -> int:
    return len(path.encode("utf-8", "surrogatepass"))


class _Spent:
    """What all shares of a budget have spent together."""

    __slots__ = ("content_bytes", "steps", "unpacked_bytes")

    def __init__(self) -> None:
        self.steps = self.unpacked_bytes = self.content_bytes = 0

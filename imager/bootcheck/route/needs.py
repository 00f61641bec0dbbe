"""Which files of the boot partition one board uses, noted as they are looked at.

In: the files. Out: findings about those that are missing or damaged, and the set of all that were
asked for: damage in any other file stops no boot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from imager.bootcheck.contents import Contents, Fault, Judge, Judged
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.formats.device_tree import FdtError, root_compatible
from imager.bootcheck.meanings import finding
from imager.disk.budget import Budget


def tree_fault(data: bytes, budget: Budget | None = None) -> str | None:
    """What is wrong with a device tree."""
    try:
        root_compatible(data, budget)
    except FdtError as error:
        return str(error)
    return None


def cheap(judge: Callable[[bytes], Judged]) -> Judge[Judged]:
    """A judge whose work is next to nothing whatever the file holds."""
    return lambda data, _: judge(data)


def _lost(data: bytes) -> str | None:
    """What is wrong with a program of which no mark is known."""
    values = set(data[:65536])
    return f"it holds only bytes {data[0]:02x}" if len(values) == 1 else None


LOST = cheap(_lost)
"""Judges a file of which no more is known than that it is not of one value all over."""


class Needs:
    """The files of one partition as one board uses them; ``used`` has the path of each."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.used: set[str] = set()

    def use(self, path: str) -> None:
        """Note that the boot reads ``path``."""
        entry = self.contents.entry(path)
        self.used.add(path if entry is None else entry.path)

    def whole(self, code: Code, path: str, judge: Judge[Fault]) -> Iterator[Finding]:
        """The finding ``code`` when ``path`` is missing, empty or damaged."""
        self.use(path)
        fault = self.contents.fault(path, judge)
        if fault is not None:
            yield finding(code, fault, path=path)

"""The file allocation table as numbers, and the chains of clusters in it.

In: the bytes of a table. Out: which clusters a file has, which file holds a cluster, and what is
broken. Each cluster is given to one file and followed once, so reading a damaged table never takes
more steps than the table has entries.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from imager.disk.budget import MAX_FINDINGS, Budget, OverBudget


class FaultKind(StrEnum):
    """What can be wrong with a FAT filesystem that can still be read."""

    COPIES_DIFFER = "copies-differ"
    CROSS_LINKED = "cross-linked"
    LOOP = "loop"
    CHAIN_BROKEN = "chain-broken"
    CHAIN_SHORT = "chain-short"
    CHAIN_LONG = "chain-long"
    LOST_CLUSTERS = "lost-clusters"
    DIRECTORY_DAMAGED = "directory-damaged"
    BACKUP_DIFFERS = "backup-differs"
    CLUSTER_COUNT = "cluster-count"
    TOO_LARGE = "too-large"
    DIRTY = "dirty"
    NOT_LOOKED_AT = "not-looked-at"


@dataclass(frozen=True, slots=True)
class FatFault:
    """One fault: ``what`` is a sentence, ``paths`` the files it damages, ``offset`` the first wrong
    byte on the disk, or None where no single byte is wrong."""

    kind: FaultKind
    what: str
    paths: tuple[str, ...] = ()
    offset: int | None = None


Table: TypeAlias = "array[int]"
"""Entry n says which cluster follows cluster n. FAT12 and FAT16 are converted to the numbers that
FAT32 uses (28 bits)."""

FREE, BAD, END = 0, 0x0FFFFFF7, 0x0FFFFFF8
_ONLY_LOW_BITS = bytes(range(0x10))


def decode_table(data: bytes, kind: int, entries: int) -> Table:
    """The first ``entries`` entries of a FAT12, FAT16 or FAT32 table."""
    if kind == 12:
        return array("I", _widened(_entries12(data, entries), 0xFF7))
    table = array("I" if kind == 32 else "H")
    table.frombytes(data[: entries * kind // 8])
    if sys.byteorder == "big":
        table.byteswap()
    if kind == 16:
        return array("I", _widened(table, 0xFFF7))
    # The upper four bits have no meaning; looking for them so takes no time.
    if data[11 : entries * 4 : 4].translate(None, _ONLY_LOW_BITS):
        return array("I", (entry & 0x0FFFFFFF for entry in table))
    return table


def _entries12(data: bytes, entries: int) -> Iterator[int]:
    for index in range(entries):
        pair = int.from_bytes(data[index * 3 // 2 : index * 3 // 2 + 2], "little")
        yield pair >> 4 if index & 1 else pair & 0xFFF


def _widened(entries: Iterable[int], bad: int) -> Iterator[int]:
    lift = BAD - bad
    return (entry + lift if entry >= bad else entry for entry in entries)


_NAMED = 5

Runs = list[tuple[int, int]]
"""Clusters of a chain in file order, as (first cluster, how many)."""


class FaultList:
    """The faults of one filesystem: the first in words, all by the paths they hurt."""

    def __init__(self) -> None:
        self.listed: list[FatFault] = []
        self.more = 0
        self.hurt: set[str] = set()

    def add(self, kind: FaultKind, what: str, *paths: str, offset: int | None = None) -> None:
        """Note one more."""
        self.hurt.update(paths)
        if len(self.listed) < MAX_FINDINGS:
            self.listed.append(FatFault(kind, what, paths, offset))
        else:
            self.more += 1


class Chains:
    """Gives every cluster of a table to the file or directory that uses it. ``unfollowed`` are the
    paths whose chains go on where they were not followed, and why."""

    def __init__(self, table: Table, budget: Budget) -> None:
        self._table = table
        self._budget = budget
        self._owner = array("I", bytes(4 * len(table)))
        self._names: list[str] = [""]
        # The straight chains of a sound filesystem share no cluster: together no longer than this.
        self._comparable = len(table)
        self.faults = FaultList()
        self.unfollowed: dict[str, str] = {}

    def claim(self, path: str, first: int, wanted: int | None) -> Runs:
        """The clusters of ``path``, whose chain begins at ``first`` and whose size needs
        ``wanted`` of them (None for a directory, which has no size).

        What is wrong is added to ``faults``; the result ends where the chain breaks or runs into
        another file's.
        """
        self._names.append(path)
        if first == 0 and not wanted:
            return []
        straight = self._straight(first, wanted)
        runs, whole = ([(first, straight)], True) if straight else self._step(path, first)
        held = sum(count for _, count in runs)
        if not straight:
            self._budget.step(held >> 2)
        if wanted is not None and whole and held != wanted:
            kind = FaultKind.CHAIN_SHORT if held < wanted else FaultKind.CHAIN_LONG
            self._fault(kind, f"{path} has {held} clusters; its size needs {wanted}", path)
        return runs

    def _straight(self, first: int, wanted: int | None) -> int:
        """``wanted`` when the chain is that many clusters in a row that no file owns yet, and then
        ends. This is the usual case, and comparing arrays is much faster than following it."""
        if not wanted or first < 2 or first + wanted > len(self._table):
            return 0
        last = first + wanted - 1
        if self._table[last] < END or wanted > self._comparable:
            return 0
        self._comparable -= wanted
        if (
            self._table[first:last] != array("I", range(first + 1, last + 1))
            or self._owner[first : last + 1].count(0) != wanted
        ):
            return 0
        self._owner[first : last + 1] = array("I", [len(self._names) - 1]) * wanted
        return wanted

    def _step(self, path: str, first: int) -> tuple[Runs, bool]:
        """The chain from ``first`` as far as it can be followed, and whether to its end."""
        runs: Runs = []
        me, cluster = len(self._names) - 1, first
        while cluster < END:
            if not 2 <= cluster < len(self._table) or self._table[cluster] in (FREE, 1, BAD):
                self._broken(path, cluster, bool(runs))
                return runs, False
            owner = self._owner[cluster]
            if owner == me:
                self._fault(
                    FaultKind.LOOP,
                    f"the chain of {path} returns to its own cluster {cluster}",
                    path,
                )
                return runs, False
            if owner:
                other = self._names[owner]
                self._fault(
                    FaultKind.CROSS_LINKED,
                    f"{other} and {path} share cluster {cluster} and what follows it",
                    other,
                    path,
                )
                return runs, False
            self._owner[cluster] = me
            if runs and sum(runs[-1]) == cluster:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                if not self._room(path):
                    return runs, False
                runs.append((cluster, 1))
            cluster = self._table[cluster]
        return runs, True

    def _room(self, path: str) -> bool:
        """Whether one more piece of a file may be kept; noted once where not."""
        try:
            self._budget.keep_pieces()
            self._budget.step()
        except OverBudget as spent:
            self.unfollowed[path] = str(spent)
            self._fault(FaultKind.NOT_LOOKED_AT, f"{path}: {spent}: not followed further", path)
            return False
        return True

    def _broken(self, path: str, cluster: int, begun: bool) -> None:
        where = f"the chain of {path} {'goes on' if begun else 'begins'} in cluster {cluster}"
        if not 2 <= cluster < len(self._table):
            why = "which does not exist"
        else:
            why = "which is marked bad" if self._table[cluster] == BAD else "which is free"
        self._fault(FaultKind.CHAIN_BROKEN, f"{where}, {why}", path)

    def _fault(self, kind: FaultKind, what: str, *paths: str) -> None:
        self.faults.add(kind, what, *paths)

    def owner_of(self, cluster: int) -> str | None:
        """The path that holds ``cluster``, if any does."""
        return self._names[self._owner[cluster]] or None if cluster < len(self._owner) else None

    def lost(self) -> Runs:
        """The clusters that are marked as used but belong to no file. Raises OverBudget."""
        used = len(self._table) - 2 - self._table[2:].count(FREE)
        if used == len(self._owner) - self._owner.count(0):
            return []
        self._budget.step(len(self._table) >> 3)
        runs: Runs = []
        for cluster in range(2, len(self._table)):
            if self._owner[cluster] or self._table[cluster] in (FREE, BAD):
                continue
            if runs and sum(runs[-1]) == cluster:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                self._budget.keep_pieces()
                runs.append((cluster, 1))
        return runs


def naming(paths: tuple[str, ...]) -> str:
    """The first of ``paths``, for the end of a sentence about them."""
    if not paths:
        return ""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f": {', '.join(paths[:_NAMED])}{more}"

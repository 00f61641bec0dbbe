"""Which bytes of a failing disk were saved, which not yet, and which cannot be: a map on disk.

In: ranges and what became of them, or the text of such a map. Out: the ranges in each state, and
the text. The form is GNU ddrescue's mapfile (its manual, "Mapfile structure"), so that either
program goes on where the other one stopped.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from enum import StrEnum

from imager.base.units import MiB
from imager.disk.extents import Extent, ExtentMap

MAX_MAP_BYTES = 16 * MiB
"""A longer map is not read; each of its lines takes at most 50 bytes."""
_MOST_LINES = 500_000
"""More of them, shorter ones, would take more than 300 MiB of memory."""
_NUMBER = r"(0x[0-9a-fA-F]{1,15}|0|[1-9]\d{0,17})"
_STATUS = re.compile(rf"{_NUMBER}\s+[?*/\-FG+](\s+\d{{1,9}})?\s*")
_BLOCK = re.compile(rf"{_NUMBER}\s+{_NUMBER}\s+([?*/+-])\s*")


class RescueMapError(ValueError):
    """This is no map that can be used; the message says why."""


class BlockState(StrEnum):
    """What became of a range, as ddrescue writes it."""

    NOT_TRIED = "?"
    NOT_TRIMMED = "*"
    """A large read failed; most of it may well be readable."""
    NOT_SCRAPED = "/"
    """A smaller read failed."""
    BAD = "-"
    SAVED = "+"


LOST = (BlockState.NOT_TRIMMED, BlockState.NOT_SCRAPED, BlockState.BAD)
"""The states of what was tried and is not saved."""


class RescueMap:
    """The states of all bytes of a disk of ``size_bytes``; nothing is tried at first. ``notes`` are
    lines of comment."""

    def __init__(self, size_bytes: int, notes: Iterable[str] = ()) -> None:
        self.size_bytes = size_bytes
        self.notes = tuple(notes)
        # Byte starts[n] begins a stretch in states[n]; neighbours differ.
        self._starts = [0]
        self._states = [BlockState.NOT_TRIED]

    def put(self, extent: Extent, state: BlockState) -> None:
        """Say that ``extent`` is in ``state`` now."""
        if not extent.length:
            return
        first = bisect_left(self._starts, extent.offset)
        last = bisect_right(self._starts, extent.end)
        after = self._states[last - 1]
        starts, states = [extent.offset], [state]
        if first and self._states[first - 1] is state:
            starts, states = [], []
        if extent.end < self.size_bytes and after is not state:
            starts, states = [*starts, extent.end], [*states, after]
        elif last < len(self._states) and self._states[last] is state:
            last += 1
        self._starts[first:last] = starts
        self._states[first:last] = states

    def blocks(self) -> Iterator[tuple[Extent, BlockState]]:
        """Every range with its state, in order."""
        ends = [*self._starts[1:], self.size_bytes]
        for start, end, state in zip(self._starts, ends, self._states, strict=True):
            yield Extent(start, end - start), state

    def having(self, *states: BlockState) -> ExtentMap:
        """The bytes in one of ``states``."""
        return ExtentMap(extent for extent, state in self.blocks() if state in states)

    def encode(self) -> bytes:
        """The text of the map."""
        lines = ["# Mapfile. Created by picloud-image, in the form of GNU ddrescue"]
        lines += [f"# {note}" for note in self.notes]
        lines += ["# current_pos  current_status  current_pass", "0x00000000     ?               1"]
        lines += ["#      pos        size  status"]
        lines += [
            f"0x{extent.offset:08X}  0x{extent.length:08X}  {state.value}"
            for extent, state in self.blocks()
        ]
        return "\n".join([*lines, ""]).encode()

    @classmethod
    def parse(cls, text: bytes) -> RescueMap:
        """The map in ``text``, of this program or of ddrescue. Raises RescueMapError."""
        if len(text) > MAX_MAP_BYTES:
            raise RescueMapError(f"it is longer than {MAX_MAP_BYTES} bytes")
        if text.count(b"\n") + text.count(b"\r") > _MOST_LINES:
            raise RescueMapError(f"it has more than {_MOST_LINES} lines")
        notes, lines = [], []
        for line in text.splitlines():
            told, _, comment = line.decode("utf-8", "replace").partition("#")
            if told.strip():
                lines.append(told.strip())
            elif comment and not lines:
                notes.append(comment.strip())
        if not lines or not _STATUS.fullmatch(lines[0]):
            raise RescueMapError("it does not begin with a status line")
        blocks = [_block(line) for line in lines[1:]]
        position = 0
        for extent, _ in blocks:
            if extent.offset != position:
                raise RescueMapError(f"its ranges do not follow one another at byte {position}")
            position = extent.end
        found = cls(position, notes)
        for extent, state in blocks:
            found.put(extent, state)
        return found


def _block(line: str) -> tuple[Extent, BlockState]:
    match = _BLOCK.fullmatch(line)
    if match is None:
        raise RescueMapError(f"{line[:60]!r} is no range with a status")
    return Extent(int(match[1], 0), int(match[2], 0)), BlockState(match[3])

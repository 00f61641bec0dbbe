"""Sectors that say where they belong, so that a card cannot pass one place off as another.

In: a salt and an offset. Out: 512 bytes that carry their own offset and follow from both; and,
of what a card gives back, whether it is that, a few flipped bits, another of our sectors (the
card's addresses wrap around), or nothing of this run at all. The salt is new for every run, so
neither an earlier probe nor a cache filled by it can answer for the card. Pure.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from imager.base.units import SECTOR_BYTES
from imager.disk.extents import Extent

_ADDRESS_BYTES = 8
_FEW_BITS = SECTOR_BYTES
"""Foreign bytes differ from ours in half of their 4096 bits; damage in a handful."""


class BadStretchKind(StrEnum):
    """What a place that is not good holds."""

    CHANGED = "changed"
    OVERWRITTEN = "overwritten"
    """By what was written to another address."""
    LOST = "lost"
    """Older content, zeros, anything but what was written."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class BadStretch:
    """A stretch that did not come back; ``source`` is the address its bytes were written to when
    they were OVERWRITTEN, ``bits`` how many flipped when they were CHANGED."""

    extent: Extent
    kind: BadStretchKind
    source: int | None = None
    bits: int = 0

    def __str__(self) -> str:
        where = f"bytes {self.extent.offset} to {self.extent.end - 1}"
        match self.kind:
            case BadStretchKind.OVERWRITTEN:
                return f"{where}: hold what was written to byte {self.source}"
            case BadStretchKind.CHANGED:
                bits = "one bit" if self.bits == 1 else f"{self.bits} bits"
                return f"{where}: {bits} flipped"
            case BadStretchKind.LOST:
                return f"{where}: hold nothing of what was written"
            case BadStretchKind.UNREADABLE:
                return f"{where}: cannot be read"

    def to_json(self) -> dict[str, object]:
        """The finding as ``--json`` shows it."""
        return {
            "offset": self.extent.offset,
            "length": self.extent.length,
            "kind": self.kind.value,
            "source": self.source,
            "bits": self.bits,
        }

    def follows(self, other: BadStretch) -> bool:
        """Whether this is the same damage going on right behind ``other``."""
        if self.extent.offset != other.extent.end or self.kind is not other.kind:
            return False
        if self.source is None or other.source is None:
            return True
        return self.source - other.source == self.extent.offset - other.extent.offset


def joined(findings: Iterator[BadStretch]) -> Iterator[BadStretch]:
    """Findings in order, with what goes on from one to the next made one."""
    last: BadStretch | None = None
    for finding in findings:
        if last is not None and finding.follows(last):
            whole = Extent(last.extent.offset, last.extent.length + finding.extent.length)
            last = BadStretch(whole, last.kind, last.source, last.bits + finding.bits)
            continue
        if last is not None:
            yield last
        last = finding
    if last is not None:
        yield last


@dataclass(frozen=True, slots=True)
class Pattern:
    """The sectors of one run."""

    salt: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def sector(self, offset: int) -> bytes:
        """The 512 bytes that belong at byte ``offset``."""
        address = offset.to_bytes(_ADDRESS_BYTES, "little")
        digest = hashlib.blake2b(address, key=self.salt).digest()
        return address + (digest * (SECTOR_BYTES // len(digest)))[_ADDRESS_BYTES:]

    def data(self, extent: Extent) -> bytes:
        """What belongs in a range of whole sectors."""
        return b"".join(map(self.sector, range(extent.offset, extent.end, SECTOR_BYTES)))

    def findings(self, extent: Extent, actual: bytes, expected: bytes) -> Iterator[BadStretch]:
        """Every stretch of ``actual`` that is not ``expected``, in order."""
        if actual != expected:
            yield from joined(self._sectors(extent, actual, expected))

    def _sectors(self, extent: Extent, actual: bytes, expected: bytes) -> Iterator[BadStretch]:
        for start in range(0, extent.length, SECTOR_BYTES):
            got = actual[start : start + SECTOR_BYTES]
            wanted = expected[start : start + SECTOR_BYTES]
            if got != wanted:
                place = Extent(extent.offset + start, len(got))
                yield self._judged(place, got, wanted)

    def _judged(self, place: Extent, got: bytes, wanted: bytes) -> BadStretch:
        claimed = int.from_bytes(got[:_ADDRESS_BYTES], "little")
        if self.sector(claimed) == got:
            return BadStretch(place, BadStretchKind.OVERWRITTEN, source=claimed)
        bits = (int.from_bytes(got) ^ int.from_bytes(wanted)).bit_count()
        if bits <= _FEW_BITS:
            return BadStretch(place, BadStretchKind.CHANGED, bits=bits)
        return BadStretch(place, BadStretchKind.LOST)

"""Sectors that contain their own address, so that one read from the wrong place is noticed.

In: a salt (a random number for one run) and an offset. Out: the 512 bytes for that place. And of
bytes read from a card: whether they are right, have a few flipped bits, belong to another place
(the card's addresses wrap around), or are not of this run at all. The salt is new for every run, so
that bytes of an earlier probe cannot be taken for those of this one. Pure.
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
"""Other content differs from ours in about half of the 4096 bits of a sector; damage in a few."""


class BadStretchKind(StrEnum):
    """What is wrong with a stretch that is not good."""

    CHANGED = "changed"
    OVERWRITTEN = "overwritten"
    """It holds what was written to another address."""
    LOST = "lost"
    """It holds older content, zeros, or anything else but what was written."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class BadStretch:
    """A stretch that was not read as it was written. When OVERWRITTEN, ``source`` is the address to
    which its bytes were written; when CHANGED, ``bits`` is the number of flipped bits."""

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
        """Whether this continues ``other``: the same damage, directly behind it."""
        if self.extent.offset != other.extent.end or self.kind is not other.kind:
            return False
        if self.source is None or other.source is None:
            return True
        return self.source - other.source == self.extent.offset - other.extent.offset


def joined(findings: Iterator[BadStretch]) -> Iterator[BadStretch]:
    """``findings`` in order; those that continue the one before are joined with it."""
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

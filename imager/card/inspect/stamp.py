"""A card's stamp and whose key signed it.

In: a way to read a card, and the rack at hand if there is one. Out: a Stamp, and a Signature that
tells this rack's key from a stranger's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.disk.manifest import Reader
from imager.node.keys.signing import fingerprint, known_public_key
from imager.node.stamp.stamp import STAMP_AREA, NoStamp, Stamp, parse_stamp


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed a stamp. ``known`` is None where no rack is at hand to compare with."""

    fingerprint: str
    known: bool | None

    def __str__(self) -> str:
        if self.known:
            return f"signed by this rack's key {self.fingerprint}"
        where = "not known here" if self.known is None else "which is not this rack's"
        return f"signed by key {self.fingerprint}, {where}"


def read_stamp(read: Reader, size_bytes: int) -> Stamp:
    """The stamp of the card of ``size_bytes`` behind ``read``, its signature checked.

    Raises StampError (NoStamp when there is none) and what ``read`` raises.
    """
    length = min(STAMP_AREA.length, size_bytes - STAMP_AREA.offset)
    if length <= 0:
        raise NoStamp("the card carries no stamp")
    return parse_stamp(read(STAMP_AREA.offset, length))


def signature_of(stamp: Stamp, rack: Path | None) -> Signature:
    """Whose key signed ``stamp``, as far as the rack in the folder ``rack`` can tell."""
    known = known_public_key(rack) if rack is not None else None
    return Signature(
        fingerprint(stamp.public_key), None if known is None else known == stamp.public_key
    )

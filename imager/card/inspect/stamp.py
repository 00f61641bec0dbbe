"""A card's stamp and whose key signed it.

In: a way to read a card, and the rack at hand if there is one. Out: a Stamp, and a Signature that
tells this rack's key from a stranger's. Anybody can sign a stamp with a key of their own: it proves
what the card should hold only to whoever knows the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import StampMismatch
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
        where = (
            "not known here"
            if self.known is None
            else "which is not this rack's: somebody else wrote this card, or altered it"
        )
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


def require_trusted(target: str, stamp: Stamp | None, rack: Path | None, key: str | None) -> None:
    """Raise StampMismatch unless the stamp of the card ``target`` was signed by the key with the
    fingerprint ``key``; without one, by that of the rack in the folder ``rack``, if that has one.

    A card held against a receipt has no ``stamp``, so that no key vouches for it.
    """
    if stamp is None:
        if key is not None:
            raise StampMismatch(
                f"{target}: it was held against a receipt, which no key signed",
                hint="leave --key and --receipt out, or write the card again",
            )
        return
    signature = signature_of(stamp, rack)
    if signature.fingerprint == key or (key is None and signature.known is not False):
        return
    wanted = "which is not this rack's" if key is None else f"not by {key}"
    raise StampMismatch(
        f"{target}: its stamp is signed by key {signature.fingerprint}, {wanted}",
        hint="if it is another rack's card, name that rack with --rack DIR, or its key with --key "
        f"{signature.fingerprint}; if not, somebody altered it: write it again",
    )

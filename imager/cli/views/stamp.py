"""A card's stamp, as a person and as a program read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from imager.card.inspect.stamp import signature_of
from imager.node.stamp.stamp import Stamp


def stamp_lines(stamp: Stamp, rack: Path | None) -> list[str]:
    """What the stamp says, and whether the rack in the folder ``rack`` knows who signed it."""
    facts = stamp.facts
    return [
        f"    stamp: {facts.node} ({facts.model}) of rack {facts.rack}, {facts.release_name}, "
        f"{when(facts.imaged_at)}, by picloud-image {facts.tool_version}",
        f"    {signature_of(stamp, rack)}",
    ]


def stamp_fields(stamp: Stamp | str, rack: Path | None) -> dict[str, object]:
    """The stamp for ``--json``. A text instead of a stamp says why it cannot be used; it is empty
    if no stamp was read, because a receipt was used."""
    if isinstance(stamp, str):
        return {"state": "unusable" if stamp else "unused", "fault": stamp}
    signature = signature_of(stamp, rack)
    return {
        "state": "signed",
        **stamp.facts.to_json(),
        "imaged_at_utc": when(stamp.facts.imaged_at),
        "chunks": len(stamp.manifest.digests),
        "files": len(stamp.files.by_inode),
        "key": signature.fingerprint,
        "key_known": signature.known,
    }


def when(seconds: int) -> str:
    """A time of a card, in seconds since 1970, as a date."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")

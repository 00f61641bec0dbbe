"""A card's stamp, as a person and as a program read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from imager.card.inspect.stamp import signature_of
from imager.node.stamp.stamp import Stamp


def stamp_lines(stamp: Stamp, rack: Path | None) -> list[str]:
    """What the stamp says, and who signed it as far as the rack in the folder ``rack`` tells."""
    facts = stamp.facts
    return [
        f"    stamp: {facts.node} ({facts.model}) of rack {facts.rack}, {facts.release_name}, "
        f"{_when(stamp)}, by picloud-image {facts.tool_version}",
        f"    {signature_of(stamp, rack)}",
    ]


def stamp_fields(stamp: Stamp | str, rack: Path | None) -> dict[str, object]:
    """The stamp for ``--json``; text says why there is none to believe."""
    if isinstance(stamp, str):
        return {"state": "unusable" if stamp else "unused", "fault": stamp}
    signature = signature_of(stamp, rack)
    return {
        "state": "signed",
        **stamp.facts.to_json(),
        "imaged_at_utc": _when(stamp),
        "chunks": len(stamp.manifest.digests),
        "files": len(stamp.files.by_inode),
        "key": signature.fingerprint,
        "key_known": signature.known,
    }


def _when(stamp: Stamp) -> str:
    try:
        when = datetime.fromtimestamp(stamp.facts.imaged_at, UTC)
    except (ValueError, OverflowError, OSError):
        return f"second {stamp.facts.imaged_at}"
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")

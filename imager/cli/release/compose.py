"""``compose``: the golden image of a rack, in the cache."""

from __future__ import annotations

from imager.base.units import format_size
from imager.cli.choice import golden_of, open_rack
from imager.cli.session import CommandResult, Session, command


@command("compose")
def compose(session: Session) -> CommandResult:
    """Compose the golden image that every node of the rack shares."""
    rack = open_rack(session)
    golden = golden_of(session, rack, rack.nodes[0])
    written = golden.manifest.extents.total_bytes
    session.console.lines(
        f"golden image of {golden.release_name} for {', '.join(golden.models)}: "
        f"{format_size(golden.layout.size_bytes)}, {format_size(written)} of it to write",
        f"in {golden.path}",
    )
    return {
        "release": golden.release_name,
        "release_sha256": golden.release_sha256,
        "image": str(golden.path),
        "key": golden.key,
        "size_bytes": golden.layout.size_bytes,
        "mapped_bytes": written,
        "models": list(golden.models),
    }

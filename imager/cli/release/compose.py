"""``compose``: the golden image of a rack, in the cache."""

from __future__ import annotations

from imager.base.units import format_size
from imager.cli.choice import golden_images, open_rack
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.config.nodeset import fold
from imager.image.compose.golden import GoldenImage
from imager.rack.plan.survey import different


@command("compose")
@notify_option
def compose(session: Session) -> CommandResult:
    """Compose the golden image that every node of the rack shares.

    Nodes that have other packages than the rest share another one.

    Examples:
        picloud-image compose
            Do the long work before the cards are put in.
        picloud-image compose --offline
            The same, from what is archived already.
    """
    rack = open_rack(session)
    images = golden_images(session, rack, rack.nodes)
    shared = [
        (golden, [name for name, its in images.items() if its.key == golden.key])
        for golden in different(images)
    ]
    for golden, nodes in shared:
        whose = f" ({fold(nodes)})" if len(shared) > 1 else ""
        written = golden.manifest.extents.total_bytes
        session.console.lines(
            f"golden image of {golden.release_name} for {', '.join(golden.models)}{whose}: "
            f"{format_size(golden.layout.size_bytes)}, {format_size(written)} of it to write",
            f"in {golden.path}",
        )
    others = [{"nodes": nodes, **_fields(golden)} for golden, nodes in shared[1:]]
    return {**_fields(shared[0][0]), **({"others": others} if others else {})}


def _fields(golden: GoldenImage) -> dict[str, object]:
    return {
        "release": golden.release_name,
        "release_sha256": golden.release_sha256,
        "image": str(golden.path),
        "key": golden.key,
        "size_bytes": golden.layout.size_bytes,
        "mapped_bytes": golden.manifest.extents.total_bytes,
        "models": list(golden.models),
        **({"first_boot": list(golden.first_boot)} if golden.first_boot else {}),
    }

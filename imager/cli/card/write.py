"""``write``: a card, from what a person names to the receipt.

In: TARGET, and ``--node`` or ``--image``. Out: a card that was written, read back and
boot-checked.
"""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import UsageError
from imager.cli.card.wish import CardWish
from imager.cli.card.write_image import ImageWish, write_image
from imager.cli.card.write_node import write_node
from imager.cli.consent import SIZE, consent_options
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option


@command("write")
@click.argument("target", type=PATH)
@click.option("--node", "node_name", metavar="NAME", help="Which node it is.")
@click.option("--image", metavar="FILE|URL", help="An image of any system instead of a node.")
@click.option("--sha256", metavar="HEX", help="What the SHA-256 of --image must be.")
@click.option("--no-bmap", is_flag=True, help="Do not use the block map beside --image.")
@click.option("--grow", is_flag=True, help="Let --image's last partition fill the card.")
@click.option("--size", type=SIZE, help="Size of a new image file, e.g. 8GiB. [the least]")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@consent_options
@notify_option
@click.option("--full", is_flag=True, help="Write all, even if the card holds most of it.")
@click.option("--no-probe", is_flag=True, help="Trust the size of a card never seen before.")
@click.option(
    "--block-size",
    type=SIZE,
    help="Bytes a transfer, whole MiB. [as the device likes]",
)
@click.option("--depth", metavar="N", type=int, help="Transfers in flight. [as the device likes]")
def write(
    session: Session,
    target: Path,
    node_name: str | None,
    image: str | None,
    sha256: str | None,
    no_bmap: bool,
    grow: bool,
    size: int | None,
    dry_run: bool,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
    full: bool,
    no_probe: bool,
    block_size: int | None,
    depth: int | None,
) -> CommandResult:
    """Write one node's card, or any image, to a disk or an image file.

    TARGET is a disk such as /dev/sdb, or a file whose name ends in .img. Every byte is read
    back and the boot partition is checked before this says it is done.

    With --image no rack is needed: an image of any system, packed or not, from a file or a
    URL, is unpacked while it is written. What no filesystem uses is left out. Its sums and
    its block map (.sha256, SHA256SUMS, .bmap) are used where they lie beside it.

    Examples:
        picloud-image write /dev/sdb --node pi7 --dry-run
            Show what would be done, and touch nothing.
        sudo picloud-image write /dev/sdb --node pi7
            Make pi7's card, and prove it.
        picloud-image write pi7.img --node pi7 --size 8GiB
            Make an image file instead; no sudo is needed.
        sudo picloud-image write /dev/sdb --image raspios.img.xz
            Write an image that is none of ours, and prove it.
    """
    if (node_name is None) == (image is None):
        raise UsageError(
            "give either --node NAME or --image FILE",
            hint="--node pi7 makes the card of a node of a rack, --image FILE writes any image",
        )
    wish = CardWish(
        target,
        size,
        max_size,
        block_size,
        depth,
        allow_fixed_disk=allow_fixed_disk,
        probe=not no_probe,
        yes=yes,
        dry_run=dry_run,
    )
    if node_name is not None:
        if sha256 is not None or no_bmap or grow:
            raise UsageError(
                "--sha256, --no-bmap and --grow are for --image",
                hint="leave them out: what a node's card is made of is pinned in rack.lock",
            )
        return write_node(session, wish, node_name, update=not full)
    return write_image(session, wish, ImageWish(image or "", sha256, not no_bmap, grow))

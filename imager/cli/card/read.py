"""``read``: save a card to a file; what its filesystems use, and of a dying card what it gives."""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import Interrupted
from imager.base.units import SECTOR_BYTES, format_size, format_transfer
from imager.card.inspect.verify import open_target
from imager.card.save.at_rest import at_rest
from imager.card.save.card_map import CardMap, map_card
from imager.card.save.save import SavedCard, SaveOrder, require_room, save_card
from imager.card.save.saved_file import SavedFile
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.disk.budget import MAX_FINDINGS
from imager.disk.in_use import Area


@command("read", uses=())
@click.argument("target", type=PATH)
@click.argument("file", type=PATH)
@click.option("--verify", is_flag=True, help="Read all of it twice and compare.")
@click.option("--replay", is_flag=True, help="Replay journals in the copy, as a mount would.")
@click.option(
    "--shrink", is_flag=True, help="Make the last ext4 of the copy as small as it can be."
)
@click.option("--dry-run", is_flag=True, help="Say what would be read, and read only that.")
@notify_option
def read(
    session: Session,
    target: Path,
    file: Path,
    verify: bool,
    replay: bool,
    shrink: bool,
    dry_run: bool,
) -> CommandResult:
    """Save a card, or a disk of any system, to an image file.

    Only what its filesystems use is read: FAT and ext2, ext3 and ext4 say what that is,
    and of everything else all is. The card is opened for reading only. FILE ends in .img, or
    in .img.zst, .img.xz or .img.gz to be packed; FILE.bmap beside it says which parts of it
    count, with the SHA-256 of each.

    What a dying card does not give is passed by, and tried again in smaller pieces when all
    else is safe. If something is lost in the end, it is named by partition and file, FILE.map
    says where it was, in ddrescue's form, and the exit code is 22. A run that was cut short
    goes on when it is started again.

    Examples:
        sudo picloud-image read /dev/sdb pi7.img.zst
            Keep this card before an upgrade.
        sudo picloud-image read /dev/sdb pi7.img --shrink
            Make an image that fits a smaller card.
        sudo picloud-image read /dev/sdb pi7.img --dry-run
            What is on it, and how much would be read?
    """
    files = SavedFile.at(file)
    order = SaveOrder(verify=verify, replay=replay, shrink=shrink)
    source = at_rest(target)
    files.require_free()
    with open_target(target) as fresh:
        card = map_card(fresh.raw, sector_bytes=source.facts.logical_bytes or SECTOR_BYTES)
        require_room(card, files, order)
        _show_plan(session, source.node if source.made_anew else source.title, card, order)
        if dry_run:
            session.console.lines(f"would become {files.path}; nothing was written")
            return {"target": str(target), "file": str(files.path), **_card_fields(card)}
        try:
            saved = save_card(fresh, card, files, order, session.console)
        except KeyboardInterrupt as stopped:
            raise Interrupted(
                f"interrupted; {files.path} is not whole yet, and has no name",
                hint="run the same command again: it goes on where it stopped",
            ) from stopped
    return _show(session, target, saved)


def _show_plan(session: Session, title: str, card: CardMap, order: SaveOrder) -> None:
    console = session.console
    console.event("plan", **_card_fields(card))
    console.say(f"{title}: {format_size(card.in_use_bytes)} of {format_size(card.size_bytes)}")
    if card.note:
        console.say(f"    {card.note}")
    for area in card.areas:
        console.say(f"    {_told(area, order)}")
    if card.left_out_bytes:
        console.say(f"    left out: {format_size(card.left_out_bytes)} behind the last partition")


def _told(area: Area, order: SaveOrder) -> str:
    of = f"{format_size(area.used_bytes)} of {format_size(area.extent.length)}"
    said = [f"{area.name}: {area.kind}, {of}"]
    if area.note:
        said.append(f"all of it, for {area.note}")
    if area.dirty:
        said.append(
            "its journal is replayed in the copy"
            if order.replay or order.shrink
            else "its journal is not replayed and stays as it is"
        )
    return "; ".join(said)


def _card_fields(card: CardMap) -> dict[str, object]:
    return {
        "card_bytes": card.size_bytes,
        "in_use_bytes": card.in_use_bytes,
        "left_out_bytes": card.left_out_bytes,
        "partitions": [
            {
                "name": area.name,
                "offset": area.extent.offset,
                "length": area.extent.length,
                "kind": area.kind,
                "used_bytes": area.used_bytes,
                "note": area.note,
                "journal_to_replay": area.dirty,
            }
            for area in card.areas
        ],
    }


def _show(session: Session, target: Path, saved: SavedCard) -> CommandResult:
    console, files = session.console, saved.files
    fields = {"target": str(target), "file": str(files.path), **_card_fields(saved.card)}
    fields |= {
        "image_bytes": saved.size_bytes,
        "mapped_bytes": saved.mapped_bytes,
        "bmap": str(files.bmap),
        "bmap_sha256": saved.map_sha256,
        "sha256": saved.sha256 or None,
        "cache_bypassed": saved.cache_bypassed,
        "went_on": saved.went_on,
        "replayed": list(saved.replayed),
        "phases": [
            {"name": one.name, "bytes": one.size_bytes, "seconds": one.seconds}
            for one in saved.phases
        ],
        "lost_bytes": saved.lost.total_bytes,
        "lost_ranges": len(saved.lost),
        "lost_files": list(saved.lost_files),
        "map": str(files.map) if saved.lost else None,
    }
    for loss in saved.losses[:MAX_FINDINGS]:
        console.finding(loss)
    failure = saved.error()
    if failure is not None:
        console.error(failure)
        return {"exit_code": failure.exit_code, **fields}
    first = saved.phases[0] if saved.phases and not saved.went_on else None
    speed = f": {format_transfer(first.size_bytes, first.seconds)}" if first else ""
    console.verdict(f"{files.path} holds the card{speed}", good=True)
    if saved.replayed:
        console.lines(f"    journal replayed: {', '.join(saved.replayed)}")
    if saved.size_bytes < saved.card.size_bytes:
        console.lines(
            f"    made smaller: {format_size(saved.card.size_bytes)} became "
            f"{format_size(saved.size_bytes)}"
        )
    sha256, name = (saved.sha256, files.path) if saved.sha256 else (saved.map_sha256, files.bmap)
    console.lines(f"    sha256 {sha256}  {name.name}")
    return fields

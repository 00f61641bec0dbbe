"""``write``: one node's card, from the release's name to the receipt.

In: TARGET and ``--node``. Out: a card that was written, read back and boot-checked. Whatever can
be known is checked before the release is fetched, and the person is asked before it too, so that
nobody has to come back after a download to say yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from imager.base.errors import TargetRefused, UsageError
from imager.base.units import format_rate, format_size
from imager.card.host.disks import Disk
from imager.card.host.refusals import Limits, accept
from imager.card.host.swap_room import require_swap_room
from imager.card.host.targets import Target, target_at
from imager.card.make.boot_check import boot_check, require_bootable
from imager.card.make.make import MadeCard, make_card
from imager.card.stages import WriteOptions
from imager.card.write.options import options_for
from imager.cli.choice import (
    chosen_release,
    golden_images_at_hand,
    golden_of,
    open_rack,
    own_folders,
    require_archived,
)
from imager.cli.consent import (
    SIZE,
    consent_options,
    consented,
    limits_of,
    refuse_early,
    whole_sectors,
)
from imager.cli.session import CommandResult, Session, command
from imager.config.rack import Node, Rack
from imager.image.compose.golden import GoldenImage
from imager.node.content import recipe_of
from imager.node.edit.edit import opened
from imager.node.image import NodeImage
from imager.node.personalise import layout_on, personalise
from imager.rack.history.recorded import Work, recorded
from imager.release.archive import Archive, DamagedEntry
from imager.release.lock import RackLock
from imager.release.pacman_packages import package_names
from imager.release.salt.salt import archived_salt, pinned_salt


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What the person asked for, as far as it can be judged without the release."""

    rack: Rack
    node: Node
    target: Target
    limits: Limits
    size_bytes: int | None
    options: WriteOptions
    update: bool
    probe: bool


@command("write")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--node", "node_name", required=True, metavar="NAME", help="Which node it is.")
@click.option("--size", type=SIZE, help="Size of a new image file, e.g. 8GiB.")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@consent_options
@click.option("--full", is_flag=True, help="Write all, even if the card holds most of it.")
@click.option("--no-probe", is_flag=True, help="Trust the size of a card never seen before.")
@click.option(
    "--block-size",
    type=SIZE,
    help="Bytes a transfer, whole MiB. [as the device likes]",
)
@click.option("--depth", type=int, help="Transfers in flight. [as the device likes]")
def write(session: Session, dry_run: bool, yes: bool, **given: object) -> CommandResult:
    """Write one node's card to a disk or an image file.

    TARGET is a disk such as /dev/sdb, or a file whose name ends in .img. Every byte is read
    back and the boot partition is checked before this says it is done.
    """
    request = _request(session, given)
    plan = _plan_fields(session, request)
    if dry_run:
        plan |= _image_fields(session, request)
    _show_plan(session, request, plan)
    if dry_run:
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, **plan}
    allowed = consented(session, request.target, request.limits, yes=yes)
    request = replace(request, limits=allowed)
    image = _node_image(session, request)
    made = _make(session, request, image)
    return _told(session, request, made)


def _request(session: Session, given: Mapping[str, object]) -> WriteRequest:
    """Everything that can be checked before a byte is fetched."""
    rack = open_rack(session)
    node = rack.node(str(given["node_name"]))
    chosen_release(session, rack, node.model)
    ours = own_folders(session, rack)
    target = target_at(Path(str(given["target"])), ours)
    block, depth = given["block_size"], given["depth"]
    options = options_for(
        target,
        block_bytes=block if isinstance(block, int) else None,
        depth=depth if isinstance(depth, int) else None,
    )
    size = given["size"] if isinstance(given["size"], int) else None
    limits = limits_of(given, ours)
    request = WriteRequest(
        rack,
        node,
        target,
        limits,
        _size_for(target, size),
        options,
        update=not given["full"],
        probe=not given["no_probe"],
    )
    refuse_early(target, limits)
    require_archived(session, rack, [node])
    return request


def _size_for(target: Target, size: int | None) -> int | None:
    """How large the card is to be; None for an image file as small as the release allows."""
    if size is None:
        return target.size_bytes if isinstance(target, Disk) else None
    if isinstance(target, Disk):
        raise UsageError(
            "--size is for image files; a disk is used whole",
            hint="leave --size out, or name a file ending in .img",
        )
    return whole_sectors(size)


def _plan_fields(session: Session, request: WriteRequest) -> dict[str, object]:
    spec = chosen_release(session, request.rack, request.node.model)
    lock = RackLock.load(request.rack.lock_file)
    pin = lock.pin(spec.name)
    return {
        "node": request.node.name,
        "rack": request.rack.name,
        "target": request.target.node,
        "target_is": getattr(request.target, "title", request.target.node),
        "holds": list(request.target.holds) if isinstance(request.target, Disk) else [],
        "size_bytes": request.size_bytes,
        "release": spec.name,
        "release_sha256": pin.sha256 if pin else None,
        "release_archived": pin is not None and _is_archived(session, pin.sha256),
        **_salt_fields(session, request.rack, lock),
        "block_bytes": request.options.block_bytes,
        "depth": request.options.depth,
        "transfers_chosen": request.options.why,
    }


def _image_fields(session: Session, request: WriteRequest) -> dict[str, object]:
    """What the golden image would put on the card, if it is composed already; raises
    TargetRefused for a target that is too small for it or for the node's swap file."""
    found = golden_images_at_hand(session, request.rack, [request.node])
    golden = found.get(request.node.model)
    if golden is None:
        return {"image_composed": False, "image_bytes": None, "needs_bytes": None}
    needs = golden.layout.size_bytes
    layout = layout_on(golden, request.size_bytes or needs)
    refuse_early(request.target, request.limits, layout.size_bytes)
    require_swap_room(request.target, golden, request.rack)
    return {
        "image_composed": True,
        "image_bytes": golden.manifest.extents.total_bytes,
        "needs_bytes": needs,
    }


def _salt_fields(session: Session, rack: Rack, lock: RackLock) -> dict[str, object]:
    """Which Salt goes on the card, if any: its version, and the hash rack.lock pins."""
    version, folder = rack.salt_version, rack.salt_packages
    pin = pinned_salt(version, lock) if version else None
    return {
        "salt": version,
        "salt_sha256": pin.sha256 if pin else None,
        "salt_archived": bool(version and archived_salt(version, session.cache, lock)),
        "salt_packages": package_names(folder) if folder else (),
    }


def _is_archived(session: Session, sha256: str) -> bool:
    """Whether the archive has the release whole; a damaged entry is mended by the fetch."""
    try:
        return Archive(session.cache).find(sha256) is not None
    except DamagedEntry:
        return False


def _show_plan(session: Session, request: WriteRequest, fields: Mapping[str, object]) -> None:
    session.console.event("plan", **fields)
    where = "archived" if fields["release_archived"] else "to be fetched and proven"
    size = request.size_bytes
    roles = ", ".join(request.node.roles)
    lines = [
        f"node      {request.node.name} ({request.node.model}, {roles}), rack {request.rack.name}",
        f"target    {fields['target_is']}",
        f"release   {fields['release']}, {_pinned(fields['release_sha256'])}{where}",
        f"salt      {_salt_line(fields)}",
        f"size      {format_size(size) if size else 'as small as the release allows'}",
        f"transfers {format_size(request.options.block_bytes)} each, "
        f"{request.options.depth} in flight ({request.options.why}); every byte is read back",
    ]
    if "image_composed" in fields:
        lines.append(f"image     {_image_line(fields)}")
    for line in lines:
        session.console.say(line)


def _image_line(fields: Mapping[str, object]) -> str:
    size, needs = fields["image_bytes"], fields["needs_bytes"]
    if not isinstance(size, int) or not isinstance(needs, int):
        return "to be composed: how much is written is known only then"
    return f"composed: {format_size(size)} to write, on a card of {format_size(needs)} or more"


def _salt_line(fields: Mapping[str, object]) -> str:
    if fields["salt"] is None:
        return "the release's own, if it has one: rack.toml names no version"
    where = "archived" if fields["salt_archived"] else "to be fetched from PyPI"
    needs = ", what it needs in packages" if fields["salt_packages"] else ""
    return f"{fields['salt']}, {_pinned(fields['salt_sha256'])}{where}{needs}"


def _pinned(sha256: object) -> str:
    return f"pinned to {str(sha256)[:16]}…, " if sha256 else ""


def _node_image(session: Session, request: WriteRequest) -> NodeImage:
    """Release and Salt, golden image, node image, each proven before the card is touched."""
    golden = golden_of(session, request.rack, request.node.model)
    if request.size_bytes is not None and request.size_bytes < golden.layout.size_bytes:
        accept(request.target, golden.layout.size_bytes, request.limits)
        raise TargetRefused(
            f"--size {request.size_bytes} is too small: the image needs "
            f"{golden.layout.size_bytes} bytes ({format_size(golden.layout.size_bytes)})",
            hint=f"say --size {_round_size(golden)} or more",
        )
    require_swap_room(request.target, golden, request.rack)
    size = request.size_bytes or golden.layout.size_bytes
    image = personalise(golden, request.rack, request.node, size, session.console)
    require_bootable(request.node, image)
    return image


def _round_size(golden: GoldenImage) -> str:
    return f"{-(-golden.layout.size_bytes // (1 << 30))}GiB"


def _make(session: Session, request: WriteRequest, image: NodeImage) -> MadeCard:
    mapped = image.manifest.extents.total_bytes
    session.console.note(
        f"{format_size(mapped)} of {format_size(image.layout.size_bytes)} to write, "
        f"{format_size(image.delta.extents.total_bytes)} of it {request.node.name}'s own"
    )
    accepted = accept(request.target, image.layout.size_bytes, request.limits)
    with opened(image.golden) as golden:
        recipe = recipe_of(golden, request.rack, request.node)
    work = Work(image.node, accepted.target, image.golden.release_sha256, recipe)
    return recorded(
        request.rack,
        work,
        lambda: make_card(
            image,
            accepted,
            request.rack.receipts,
            session.console,
            options=request.options,
            update=request.update,
            probe=request.probe,
            check=boot_check(request.node, image),
        ),
    )


def _told(session: Session, request: WriteRequest, made: MadeCard) -> CommandResult:
    receipt = made.receipt
    session.console.event("receipt", path=str(made.receipt_path), **_receipt_fields(made))
    phases = {phase.name: phase for phase in receipt.phases}
    read, compared = phases.get("read back"), phases.get("compare")
    done = f"written, read back at {format_rate(read.bytes_per_second)}" if read else "written"
    if compared:
        done = (
            f"every byte read at {format_rate(compared.bytes_per_second)}, "
            f"{format_size(read.size_bytes) if read else 'nothing'} written anew and read back"
        )
    caution = "" if receipt.cache_bypassed else " (through this computer's cache: see the receipt)"
    session.console.lines(
        f"{request.target.node} is {request.node.name}: {done}{caution}, boot check passed",
        *([receipt.trouble.meaning] if receipt.trouble else []),
        f"receipt {made.receipt_path}",
    )
    return _receipt_fields(made)


def _receipt_fields(made: MadeCard) -> dict[str, object]:
    receipt = made.receipt
    return {
        "node": receipt.node,
        "target": receipt.target.path,
        "verified": receipt.result == "verified",
        "image_id": receipt.image.image_id,
        "release_sha256": receipt.image.release_sha256,
        "size_bytes": receipt.target.size_bytes,
        "mapped_bytes": receipt.manifest.extents.total_bytes,
        "cache_bypassed": receipt.cache_bypassed,
        "fallbacks": list(receipt.fallbacks),
        "phases": {
            phase.name: {"bytes": phase.size_bytes, "seconds": round(phase.seconds, 3)}
            for phase in receipt.phases
        },
        "trouble": receipt.trouble.to_json() if receipt.trouble else None,
        "receipt": str(made.receipt_path),
    }

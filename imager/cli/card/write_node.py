"""``write --node``: one node's card, from the release's name to the receipt.

In: a target and a node's name. Out: a card that was written, read back and boot-checked. Whatever
can be checked early is checked before the release is fetched, and the person is asked before that,
too, so that nobody has to come back after a download to say yes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imager.base.errors import TargetRefused
from imager.base.units import format_chosen, format_rate, format_size
from imager.card.host.refusals import accept
from imager.card.host.swap_room import require_swap_room
from imager.card.host.target import Limits, Target
from imager.card.host.targets import target_at
from imager.card.make.boot_check import BootCheck
from imager.card.make.finish import MadeCard
from imager.card.make.make import make_card
from imager.card.make.order import CardOrder
from imager.card.stages import WriteOptions
from imager.cli.card.wish import CardWish
from imager.cli.choice import (
    chosen_release,
    golden_images_at_hand,
    golden_of,
    open_rack,
    own_folders,
    require_archived,
    require_programs,
)
from imager.cli.consent import (
    consented,
    refuse_early,
)
from imager.cli.packages import lock_of_node, require_promoted, wish_of_node
from imager.cli.session import CommandResult, Session
from imager.cli.views.write_plan import (
    PlannedImage,
    PlannedPackages,
    PlannedSource,
    WritePlan,
)
from imager.config.rack import Node, Rack
from imager.image.compose.golden import GoldenImage
from imager.node.content import recipe_of
from imager.node.edit.edit import opened
from imager.node.image import NodeImage
from imager.node.keys.identity import count_missing_keys, make_keys
from imager.node.personalise import layout_on, personalise_one
from imager.packages.rack_folder import package_names
from imager.rack.history.recorded import Work, recorded
from imager.release.archive import Archive, DamagedEntry
from imager.release.lock import RackLock
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


def write_node(session: Session, wish: CardWish, node_name: str, *, update: bool) -> CommandResult:
    """Make the card of the node ``node_name``; with ``update`` a card that holds most of it is
    given only what differs."""
    rack = open_rack(session, looking=wish.dry_run)
    node = rack.node(node_name)
    chosen_release(session, rack, node)
    require_promoted(rack, [node])
    ours = own_folders(session, rack)
    found = target_at(wish.path, ours)
    request = WriteRequest(
        rack,
        node,
        found,
        wish.limits(ours),
        wish.size_for(found),
        wish.options(found),
        update=update,
        probe=wish.probe,
    )
    refuse_early(found, request.limits, request.size_bytes or 0)
    require_programs(rack)
    require_archived(session, rack, [node])
    plan = _plan(session, request)
    # Also what is archived may say that this card would never work: before anybody is asked.
    golden = golden_images_at_hand(session, rack, [node]).get(node.name)
    if wish.dry_run:
        plan = replace(plan, image=_planned_image(request, golden))
    session.console.event("plan", **plan.to_json())
    for line in plan.lines():
        session.console.say(line)
    if wish.dry_run:
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, **plan.to_json()}
    allowed = consented(session, found, request.limits, yes=wish.yes)
    request = replace(request, limits=allowed)
    image, check, recipe = _node_image(session, request)
    made = _make(session, request, image, check, recipe)
    return _show_result(session, request, made)


def _plan(session: Session, request: WriteRequest) -> WritePlan:
    rack = request.rack
    spec = chosen_release(session, rack, request.node)
    lock = RackLock.load(rack.lock_file)
    pin = lock.pin(spec.name)
    return WritePlan(
        rack.name,
        request.node,
        request.target,
        request.size_bytes,
        request.options,
        release=PlannedSource(
            spec.name,
            pin.sha256 if pin else None,
            pin is not None and _is_archived(session, pin.sha256),
        ),
        salt=_planned_salt(session, rack.salt_version, lock) if rack.salt_version else None,
        salt_packages=package_names(rack.salt_packages) if rack.salt_packages else (),
        packages=_planned_packages(request, pin.sha256 if pin else None),
    )


def _planned_packages(request: WriteRequest, release_sha256: str | None) -> PlannedPackages | None:
    """What is known without reading the release: whether it lacks what Salt needs is not."""
    wish = wish_of_node(request.rack, request.node)
    locked = lock_of_node(request.rack, request.node).sets.get(wish.key)
    if locked is not None and locked.release == release_sha256:
        first = [name for name in locked.packages if name in wish.names]
        names = tuple(dict.fromkeys((*first, *locked.packages)))
        return PlannedPackages(names, locked.remove, is_locked=True)
    own = request.node.packages
    return None if own.is_plain else PlannedPackages(own.install, own.remove, is_locked=False)


def _planned_salt(session: Session, version: str, lock: RackLock) -> PlannedSource:
    pin = pinned_salt(version, lock)
    here = archived_salt(version, session.cache, lock)
    return PlannedSource(version, pin.sha256 if pin else None, bool(here))


def _planned_image(request: WriteRequest, golden: GoldenImage | None) -> PlannedImage:
    """What the golden image would put on the card, if it is composed already; raises
    TargetRefused for a target that is too small for it or for the node's swap file."""
    if golden is None:
        return PlannedImage()
    needs = golden.layout.size_bytes
    layout = layout_on(golden, request.size_bytes or needs)
    refuse_early(request.target, request.limits, layout.size_bytes)
    require_swap_room(request.target, golden, request.rack)
    return PlannedImage(golden.manifest.extents.total_bytes, needs)


def _is_archived(session: Session, sha256: str) -> bool:
    """Whether the archive has the whole release. A damaged entry counts as none, because it is
    fetched again."""
    try:
        return Archive(session.cache).find(sha256) is not None
    except DamagedEntry:
        return False


def _node_image(session: Session, request: WriteRequest) -> tuple[NodeImage, BootCheck, str]:
    """Release and Salt, golden image, node image, each proven before the card is touched; and the
    recipe. What is changed meanwhile makes the card one of an old recipe: were it read after the
    image, a card of old keys or overlays would pass for a new one."""
    rack, node = request.rack, request.node
    golden = golden_of(session, rack, node)
    if request.size_bytes is not None and request.size_bytes < golden.layout.size_bytes:
        accept(request.target, golden.layout.size_bytes, request.limits)
        raise TargetRefused(
            f"--size {format_chosen(request.size_bytes)} is too small: the image needs "
            f"{golden.layout.size_bytes} bytes ({format_size(golden.layout.size_bytes)})",
            hint=f"say --size {_round_size(golden)} or more",
        )
    require_swap_room(request.target, golden, rack)
    size = request.size_bytes or golden.layout.size_bytes
    if lacking := count_missing_keys(rack, node):
        with session.console.steps("make keys", lacking) as phase:
            make_keys(rack, node, phase)
    with opened(golden) as view:
        recipe = recipe_of(view, rack, node)
        image = personalise_one(view, rack, node, size, session.console)
    check = BootCheck(node, image)
    check.of_image()
    return image, check, recipe


def _round_size(golden: GoldenImage) -> str:
    return f"{-(-golden.layout.size_bytes // (1 << 30))}GiB"


def _make(
    session: Session, request: WriteRequest, image: NodeImage, check: BootCheck, recipe: str
) -> MadeCard:
    mapped = image.manifest.extents.total_bytes
    session.console.note(
        f"{format_size(mapped)} of {format_size(image.layout.size_bytes)} to write, "
        f"{format_size(image.delta.extents.total_bytes)} of it {request.node.name}'s own"
    )
    accepted = accept(request.target, image.layout.size_bytes, request.limits)
    work = Work(image.node, accepted.target, image.golden.release_sha256, recipe)
    order = CardOrder(
        image,
        accepted,
        request.rack.receipts,
        options=request.options,
        check=check,
    )
    return recorded(
        request.rack,
        work,
        lambda: make_card(order, session.console, update=request.update, probe=request.probe),
    )


def _show_result(session: Session, request: WriteRequest, made: MadeCard) -> CommandResult:
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
    session.console.verdict(
        f"{request.target.node} is {request.node.name}: {done}{caution}, boot check passed",
        good=True,
    )
    session.console.lines(
        *([receipt.trouble.meaning] if receipt.trouble else []),
        f"receipt {made.receipt_path}",
    )
    return _receipt_fields(made)


def _receipt_fields(made: MadeCard) -> dict[str, object]:
    receipt = made.receipt
    return {
        "node": receipt.node,
        "release_sha256": receipt.image.release_sha256,
        **receipt.brief(),
        "receipt": str(made.receipt_path),
    }

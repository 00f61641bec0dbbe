"""``rack plan`` and ``rack flash``: many cards at once, each with its own node's settings.

In: the nodes asked for, and the cards at hand. Out: the plan, shown whole and confirmed once, and
then all cards side by side. A card that fails costs no other one; the table at the end says what
to do, and the same command again does only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imager.base.errors import TargetRefused, UsageError
from imager.cli.choice import (
    chosen_nodes,
    chosen_release,
    golden_images,
    golden_images_at_hand,
    open_rack,
    own_folders,
    require_archived,
)
from imager.cli.consent import SIZE, whole_sectors
from imager.cli.session import CommandResult, Session, command

if TYPE_CHECKING:
    from imager.card.host.target import Limits
    from imager.config.rack import Node, Rack
    from imager.rack.plan.candidates import Unfit
    from imager.rack.plan.plan import RackPlan
    from imager.rack.plan.survey import GoldenImages


@dataclass(frozen=True, slots=True)
class FlashRequest:
    """What was asked for."""

    rack: Rack
    nodes: tuple[Node, ...]
    targets: tuple[Path, ...]
    images: Path | None
    size_bytes: int | None
    again: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with what it was made from."""

    plan: RackPlan
    unfit: tuple[Unfit, ...]


def _card_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]"),
        click.option("--again", is_flag=True, help="Also the cards that are done."),
        click.option("--size", type=SIZE, help="Size of new image files, e.g. 8GiB."),
        click.option(
            "--images",
            metavar="DIR",
            type=click.Path(file_okay=False, path_type=Path),
            help="Make image files DIR/<node>.img instead of cards.",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="DISK",
            type=click.Path(path_type=Path),
            help="Take this disk, and no other but those named so; may be repeated.",
        ),
        click.argument("nodes", required=False, metavar="[NODES]"),
    ):
        function = option(function)
    return function


def add_flash_commands(rack_group: click.Group) -> None:
    """Add ``plan`` and ``flash`` to the group ``rack``."""

    @command(rack_group, "plan")
    @_card_options
    def plan(session: Session, **given: object) -> CommandResult:
        """Show which card would become which node, and touch nothing.

        NODES are names such as pi[1-13]; all of the rack when left out.
        """
        request = _request(session, given)
        images = golden_images_at_hand(session, request.rack, request.nodes)
        planned = _plan(session, request, images)
        return _shown(session, request.rack, planned)

    @command(rack_group, "flash")
    @click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask, except about a stranger's card.")
    @click.option("--jobs", type=click.IntRange(1), help="Cards at a time. [what the bus bears]")
    @click.option("--full", is_flag=True, help="Write all, even if a card holds most of it.")
    @click.option("--no-probe", is_flag=True, help="Trust the size of cards never seen before.")
    @_card_options
    def flash(session: Session, dry_run: bool, yes: bool, **given: object) -> CommandResult:
        """Write the cards of many nodes side by side.

        NODES are names such as pi[1-13]; all of the rack when left out. A card is for the node
        whose slot it is in, else for the node it was written for before, else for the next one.
        Run again, it does only what is missing.
        """
        from imager.rack.history.ledger import batch_lock

        request = _request(session, given)
        if dry_run:
            images = golden_images_at_hand(session, request.rack, request.nodes)
            planned = _plan(session, request, images)
            fields = _shown(session, request.rack, planned)
            session.console.lines("Nothing was touched (--dry-run).")
            return {"dry_run": True, **fields}
        with batch_lock(request.rack.folder):
            return _flash(session, request, given, yes=yes)


def _request(session: Session, given: Mapping[str, object]) -> FlashRequest:
    rack = open_rack(session)
    nodes = chosen_nodes(rack, given["nodes"])
    for node in nodes:
        chosen_release(session, rack, node.model)
    targets, images, size = given["targets"], given["images"], given["size"]
    assert isinstance(targets, tuple)  # noqa: S101 - click says so
    folder = images if isinstance(images, Path) else None
    if folder is not None and targets:
        raise UsageError(
            "--images and --target exclude each other", hint="give image files or disks, not both"
        )
    if folder is None and size is not None:
        raise UsageError(
            "--size is for image files; a disk is used whole", hint="leave it out, or give --images"
        )
    require_archived(session, rack, nodes)
    return FlashRequest(
        rack,
        nodes,
        tuple(Path(str(target)) for target in targets),
        folder,
        whole_sectors(size) if isinstance(size, int) else None,
        bool(given["again"]),
        limits_of_batch(session, rack, given),
    )


def limits_of_batch(session: Session, rack: Rack, given: Mapping[str, object]) -> Limits:
    """What a batch may overwrite; never a disk that belongs in the computer."""
    from imager.card.host.target import Limits

    limits = Limits(ours=own_folders(session, rack))
    most = given["max_size"]
    return replace(limits, max_size_bytes=most) if isinstance(most, int) else limits


def _flash(
    session: Session, request: FlashRequest, given: Mapping[str, object], *, yes: bool
) -> CommandResult:
    from imager.cli.rack.batch import consented_steps, orders_for, told, work
    from imager.rack.history.ledger import read_ledger, require_room

    rack = request.rack
    require_room(rack.folder, len(request.nodes))
    ledger = read_ledger(rack.folder)
    # Whether a card is still what the rack would give cannot be told without the image.
    first = any(ledger.state_of(node.name).verified for node in request.nodes)
    images = (golden_images if first else golden_images_at_hand)(session, rack, request.nodes)
    planned = _plan(session, request, images)
    fields = _shown(session, request.rack, planned)
    if not planned.plan.to_do:
        return _nothing_to_do(session, planned, fields)
    steps, refused = consented_steps(session, planned.plan, yes=yes)
    if not first:
        images = golden_images(session, rack, request.nodes)
    with orders_for(rack, images, request.limits, given) as orders:
        results = (*refused, *work(session, orders, steps, images, request.size_bytes))
    return told(session, results, [node.name for node in planned.plan.without])


def _plan(session: Session, request: FlashRequest, images: GoldenImages) -> Planned:
    from imager.card.host.sysfs import HostTrees
    from imager.rack.history.ledger import read_ledger
    from imager.rack.plan.plan import make_plan
    from imager.rack.plan.slots import load_slots
    from imager.rack.plan.survey import cards_here, cards_named, files_for, wants_of

    rack, limits, kernel = request.rack, request.limits, HostTrees()
    slots = load_slots(rack.folder)
    unfit: list[Unfit] = []
    if request.images is not None:
        candidates = files_for(request.nodes, request.images, rack, slots, limits)
    elif request.targets:
        candidates = cards_named(request.targets, rack, slots, images, limits, kernel)
    else:
        candidates, unfit = cards_here(rack, slots, images, limits, kernel)
    wants = wants_of(rack, request.nodes, read_ledger(rack.folder), images)
    plan = make_plan(wants, candidates, rack.nodes, again=request.again)
    return Planned(plan, tuple(unfit))


def _shown(session: Session, rack: Rack, planned: Planned) -> dict[str, object]:
    from imager.cli.rack.batch import columns
    from imager.cli.views.plan import made_from, plan_fields, plan_lines

    source = session.settings.release or rack.release.source
    fields = {
        "release": source,
        "salt": rack.salt_version,
        **plan_fields(planned.plan, planned.unfit),
    }
    session.console.event("plan", **fields)
    session.console.lines(made_from(source, rack.salt_version))
    session.console.lines(*plan_lines(planned.plan, planned.unfit, columns()))
    return fields


def _nothing_to_do(session: Session, planned: Planned, fields: dict[str, object]) -> CommandResult:
    """No card is to be written: fine when every node is done, else there is no card for one."""
    without = planned.plan.without
    if not without:
        session.console.lines("Nothing to do: every node asked for has its card.")
        return fields
    raise TargetRefused(
        f"there is no card here for {len(without)} nodes"
        if len(without) > 1
        else f"there is no card here for {without[0].name}",
        hint="put cards in; picloud-image devices lists every disk and says which may be written",
    )

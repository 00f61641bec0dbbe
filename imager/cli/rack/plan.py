"""``rack plan``: which card would become which node. ``rack flash`` begins with the same plan.

In: the nodes asked for, and the cards at hand. Out: the plan, shown whole; no card is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from imager.base.errors import UsageError
from imager.card.host.refusals import Limits
from imager.card.host.sysfs import HostTrees
from imager.cli.choice import (
    chosen_nodes,
    chosen_release,
    golden_images_at_hand,
    open_rack,
    own_folders,
    require_archived,
)
from imager.cli.consent import SIZE, whole_sectors
from imager.cli.rack.batch import columns
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.plan import made_from, plan_fields, plan_lines
from imager.config.rack import Node, Rack
from imager.rack.history.ledger import read_ledger
from imager.rack.plan.candidates import Unfit
from imager.rack.plan.plan import RackPlan, make_plan
from imager.rack.plan.slots import load_slots
from imager.rack.plan.survey import GoldenImages, cards_here, cards_named, files_for, wants_of


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


def card_options(function: Callable[..., Any]) -> Callable[..., Any]:
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


@command("plan")
@card_options
def plan(session: Session, **given: object) -> CommandResult:
    """Show which card would become which node, and touch nothing.

    NODES are names such as pi[1-13]; all of the rack when left out.
    """
    request = flash_request(session, given)
    images = golden_images_at_hand(session, request.rack, request.nodes)
    planned = plan_for(session, request, images)
    return shown(session, request.rack, planned)


def flash_request(session: Session, given: Mapping[str, object]) -> FlashRequest:
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
    limits = Limits(ours=own_folders(session, rack))
    most = given["max_size"]
    return replace(limits, max_size_bytes=most) if isinstance(most, int) else limits


def plan_for(session: Session, request: FlashRequest, images: GoldenImages) -> Planned:
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


def shown(session: Session, rack: Rack, planned: Planned) -> dict[str, object]:
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

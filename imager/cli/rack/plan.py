"""``rack plan``: which card would become which node. ``rack flash`` begins with the same plan.

In: the nodes asked for, and the cards at hand. Out: the plan, shown whole; no card is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from imager.base.errors import UsageError
from imager.base.trusted_folder import TrustedFolder
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits
from imager.cli.choice import (
    chosen_nodes,
    chosen_release,
    folder_of_images,
    golden_images_at_hand,
    open_rack,
    own_folders,
    require_archived,
)
from imager.cli.consent import SIZE, limits_of, whole_sectors
from imager.cli.packages import nodes_on_trial, trial_line
from imager.cli.paths import FOLDER, PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.stations.head import Asked, reached, stations_option
from imager.cli.views.plan import made_from, plan_fields, plan_lines
from imager.config.rack import Node, Rack
from imager.rack.history.ledger import read_ledger
from imager.rack.plan.candidates import Candidate, Unfit
from imager.rack.plan.plan import RackPlan, make_plan
from imager.rack.plan.slots import load_slots
from imager.rack.plan.survey import GoldenImages, cards_here, cards_named, files_for, wants_of
from imager.stations.head.roll_call import RollCall


@dataclass(frozen=True, slots=True)
class FlashRequest:
    """What was asked for."""

    rack: Rack
    nodes: tuple[Node, ...]
    targets: tuple[Path, ...]
    images: TrustedFolder | None
    size_bytes: int | None
    again: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the ``release`` and the Salt that its cards are made from, and the disks that may not
    be written. ``trial`` is a line about packages on trial, ``on_trial`` the nodes that get them.
    ``absent`` says of stations that were named why they cannot take part.
    """

    release: str
    salt: str | None
    plan: RackPlan
    unfit: tuple[Unfit, ...]
    trial: str | None
    on_trial: tuple[str, ...]
    absent: Mapping[str, str] | None = None

    def lines(self, columns: int | None) -> list[str]:
        """For a person whose terminal is ``columns`` wide; None for no terminal."""
        trial = [self.trial] if self.trial else []
        lines = plan_lines(self.plan, self.unfit, columns)
        absent = [f"left out: {name}: {why}" for name, why in (self.absent or {}).items()]
        return [made_from(self.release, self.salt), *trial, *lines, *absent]

    def to_json(self) -> dict[str, object]:
        """For a program."""
        return {
            "release": self.release,
            "salt": self.salt,
            "on_trial": list(self.on_trial),
            **plan_fields(self.plan, self.unfit),
            **({} if self.absent is None else {"left_out": dict(self.absent)}),
        }


target_option = click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="DISK",
    type=PATH,
    help="Take this disk, and no other but those named so; may be repeated.",
)


def card_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]"),
        click.option("--again", is_flag=True, help="Also the cards that are done."),
        click.option("--size", type=SIZE, help="Size of new image files, e.g. 8GiB. [the least]"),
        click.option(
            "--images",
            metavar="DIR",
            type=FOLDER,
            help="Make image files DIR/<node>.img instead of cards.",
        ),
        target_option,
        click.argument("nodes", required=False, metavar="[NODES]"),
    ):
        function = option(function)
    return function


@command("plan")
@stations_option
@card_options
def plan(
    session: Session,
    asked: Asked | None,
    nodes: str | None,
    targets: tuple[Path, ...],
    images: Path | None,
    size: int | None,
    again: bool,
    max_size: int | None,
) -> CommandResult:
    """Show which card would become which node, and touch nothing.

    NODES are names such as pi[1-13]; all of the rack when left out.

    Examples:
        picloud-image rack plan
            With the cards that are in now.
        picloud-image rack plan 'pi[1-13]' --images cards
            For image files instead.
        picloud-image rack plan --stations 'desk[1-4]'
            With the cards in the readers of other computers.
    """
    rack = open_rack(session, looking=True)
    request = flash_request(session, rack, nodes, targets, images, size, max_size, again=again)
    require_cards_there(request, asked)
    at_hand = golden_images_at_hand(session, rack, request.nodes)
    planned = seen_plan(session, request, at_hand, asked)
    show_plan(session, planned)
    return planned.to_json()


def flash_request(
    session: Session,
    rack: Rack,
    nodes: str | None,
    targets: tuple[Path, ...],
    images: Path | None,
    size: int | None,
    max_size: int | None,
    *,
    again: bool,
) -> FlashRequest:
    """What the options ask for, checked as far as that is possible before anything is fetched."""
    chosen = chosen_nodes(rack, nodes)
    for node in chosen:
        chosen_release(session, rack, node)
    if images is not None and targets:
        raise UsageError(
            "--images and --target exclude each other", hint="give image files or disks, not both"
        )
    if images is None and size is not None:
        raise UsageError(
            "--size is for image files; a disk is used whole", hint="leave it out, or give --images"
        )
    folder = None if images is None else folder_of_images(rack, images)
    if folder is not None:
        folder.exists()  # judged before anything is composed for it
    require_archived(session, rack, chosen)
    return FlashRequest(
        rack,
        chosen,
        targets,
        folder,
        None if size is None else whole_sectors(size),
        again,
        # Never a disk that belongs in the computer.
        limits_of(own_folders(session, rack), max_size),
    )


def require_cards_there(request: FlashRequest, asked: Asked | None) -> None:
    """Raise UsageError where stations are asked for, and cards here."""
    if asked is not None and (request.targets or request.images is not None):
        raise UsageError(
            "--stations is for the cards in readers of other computers",
            hint="name cards here or stations, not both",
        )


def seen_plan(
    session: Session, request: FlashRequest, images: GoldenImages, asked: Asked | None
) -> Planned:
    """The plan for the cards here, or on the stations that are ``asked``, for who only looks."""
    if asked is None:
        return planned_cards(session, request, images)
    with reached(session, request.rack, asked) as stations:
        roll = stations.roll(request.rack, images, request.limits)
    return planned_cards(session, request, images, roll)


def planned_cards(
    session: Session,
    request: FlashRequest,
    images: GoldenImages,
    roll: RollCall | None = None,
) -> Planned:
    """Which card that is in now, here or on the stations of ``roll``, becomes the card of which
    node. ``images`` are composed already."""
    rack, limits, kernel = request.rack, request.limits, HostTrees()
    slots = load_slots(rack.folder)
    unfit: list[Unfit] = []
    candidates: Sequence[Candidate]
    if roll is not None:
        candidates, unfit = roll.candidates, list(roll.unfit)
        for line in roll.crowded:
            session.console.note(line)
    elif request.images is not None:
        candidates = files_for(request.nodes, request.images, rack, slots, limits)
    elif request.targets:
        candidates = cards_named(request.targets, rack, slots, images, limits, kernel)
    else:
        candidates, unfit = cards_here(rack, slots, images, limits, kernel)
    wants = wants_of(rack, request.nodes, read_ledger(rack.folder), images)
    plan = make_plan(wants, candidates, rack.nodes, again=request.again)
    release = session.settings.release or rack.release.source
    on_trial = tuple(nodes_on_trial(rack))
    return Planned(
        release,
        rack.salt_version,
        plan,
        tuple(unfit),
        trial_line(rack),
        on_trial,
        roll.absent if roll is not None else None,
    )


def show_plan(session: Session, planned: Planned) -> None:
    """Show the whole plan, before anybody is asked or anything is done."""
    session.console.event("plan", **planned.to_json())
    session.console.lines(*planned.lines(session.console.columns))

"""``rack flash``: many cards at once, each with its own node's settings.

In: the nodes asked for, and the cards at hand. Out: the plan, shown whole and confirmed once, and
then all cards side by side. A card that fails costs no other one; the table at the end says what
to do, and the same command again does only what is missing.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from imager.base.errors import BatchFailed, TargetRefused
from imager.cli.choice import (
    golden_images,
    golden_images_at_hand,
    open_rack,
    require_programs,
)
from imager.cli.packages import require_promoted
from imager.cli.rack.batch import consented_steps, jobs_option, orders_for, show_results, work
from imager.cli.rack.plan import (
    Planned,
    card_options,
    flash_request,
    planned_cards,
    require_cards_there,
    seen_plan,
    show_plan,
)
from imager.cli.session import CommandResult, Session, command
from imager.cli.stations.head import Asked, reached, stations_option
from imager.cli.terminal.attention import notify_option
from imager.cli.views.plan import unknown_lines
from imager.config.nodeset import fold
from imager.rack.history.ledger import read_ledger, require_room
from imager.rack.history.lock import batch_lock


@command("flash")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, except about a stranger's card.")
@jobs_option
@click.option("--full", is_flag=True, help="Write all, even if a card holds most of it.")
@click.option("--no-probe", is_flag=True, help="Trust the size of cards never seen before.")
@notify_option
@stations_option
@card_options
def flash(
    session: Session,
    asked: Asked | None,
    nodes: str | None,
    targets: tuple[Path, ...],
    images: Path | None,
    size: int | None,
    again: bool,
    max_size: int | None,
    dry_run: bool,
    yes: bool,
    jobs: int | None,
    full: bool,
    no_probe: bool,
) -> CommandResult:
    """Write the cards of many nodes side by side.

    NODES are names such as pi[1-13]; all of the rack when left out. A card is for the node
    whose slot it is in, else for the node it was written for before, else for the next one.
    Run again, it does only what is missing.

    Examples:
        sudo picloud-image rack flash
            Write a card for every node that has none yet.
        sudo picloud-image rack flash 'pi[1-13]' --dry-run
            Which card would become which node?
        picloud-image rack flash 'pi[1-3]' --images cards
            Make image files in the folder cards.
        picloud-image rack flash --stations 'desk[1-4]'
            Where the rack's folder is: cards in the readers of four other computers.
    """
    rack = open_rack(session, looking=dry_run)
    require_programs(rack)
    request = flash_request(session, rack, nodes, targets, images, size, max_size, again=again)
    require_cards_there(request, asked)
    require_promoted(rack, request.nodes)
    if dry_run:
        at_hand = golden_images_at_hand(session, rack, request.nodes)
        planned = seen_plan(session, request, at_hand, asked)
        show_plan(session, planned)
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, **planned.to_json()}
    with ExitStack() as held:
        held.enter_context(batch_lock(rack.folder))
        require_room(rack.folder, len(request.nodes))
        stations = held.enter_context(reached(session, rack, asked)) if asked else None
        if stations is not None:
            stations.collect(session, rack)
        ledger = read_ledger(rack.folder)
        # Whether a card is still what the rack would give cannot be told without the image.
        first = stations is not None or any(
            ledger.state_of(node.name).verified for node in request.nodes
        )
        golden = (golden_images if first else golden_images_at_hand)(session, rack, request.nodes)
        roll = stations.roll(rack, golden, request.limits) if stations is not None else None
        planned = planned_cards(session, request, golden, roll)
        show_plan(session, planned)
        if not planned.plan.to_do:
            return _nothing_to_do(session, planned)
        steps, refused = consented_steps(session, planned.plan, yes=yes)
        if not first:
            golden = golden_images(session, rack, request.nodes)
        with orders_for(
            rack, golden, request.limits, jobs, update=not full, probe=not no_probe
        ) as orders:
            if stations is not None and roll is not None:
                done = stations.work(session, orders, steps, roll)
            else:
                done = work(session, orders, steps, golden, request.size_bytes)
            results = (*refused, *done)
        shown = show_results(session, results, [node.name for node in planned.plan.without])
        if shown["exit_code"] or not (planned.absent and planned.plan.without):
            return shown
        session.console.error(_left_out(planned))
        return {**shown, "exit_code": BatchFailed.exit_code}


def _nothing_to_do(session: Session, planned: Planned) -> CommandResult:
    """Show why no card is to be written: every node is done, or there is no card for one of
    them."""
    without = planned.plan.without
    if not without:
        session.console.lines("Nothing to do: every node asked for has its card.")
        return planned.to_json()
    if planned.absent:
        raise _left_out(planned)
    nodes = f"{len(without)} nodes" if len(without) > 1 else without[0].name
    if planned.absent is not None:
        raise TargetRefused(
            f"there is no card at these stations for {nodes}",
            hint="put cards in; picloud-image rack stations lists every card that is in a reader",
            details=unknown_lines(planned.plan),
        )
    raise TargetRefused(
        f"there is no card here for {nodes}",
        hint="put cards in; picloud-image devices lists every disk and says which may be written",
        details=unknown_lines(planned.plan),
    )


def _left_out(planned: Planned) -> BatchFailed:
    """Why nodes have no card, where stations that were named were left out."""
    absent = planned.absent or {}
    nodes = fold([node.name for node in planned.plan.without])
    return BatchFailed(
        f"no card for {nodes}, and left out: {', '.join(absent)}",
        hint="mend what is said of each station, and run the same command again",
        details=[*(f"{name}: {why}" for name, why in absent.items()), *unknown_lines(planned.plan)],
    )

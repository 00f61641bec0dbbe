"""``rack restore``: saved cards back onto cards.

In: the folder of ``rack save``, and which nodes. Out: the plan, shown whole and confirmed once, and
then all cards side by side, each written and read back. What is no whole card of its node in this
rack is refused by name, before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from imager.base.errors import BatchFailed, TargetRefused, UsageError
from imager.card.host.sysfs import HostTrees
from imager.card.host.target import Limits
from imager.cli.choice import chosen_nodes, folder_of_images, open_rack, own_folders
from imager.cli.consent import SIZE, limits_of
from imager.cli.paths import FOLDER
from imager.cli.rack.batch import consented_steps, jobs_option, show_results
from imager.cli.rack.plan import target_option
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.cli.views.batch_screen import shown_batch
from imager.cli.views.saves import restore_fields, restore_lines
from imager.config.nodeset import fold
from imager.config.rack import Rack
from imager.rack.batch.restorers import RestoreJob, RestoreOrders, restore
from imager.rack.history.ledger import Ledger, read_ledger
from imager.rack.history.lock import batch_lock
from imager.rack.plan.candidates import Unfit
from imager.rack.plan.plan import RackPlan, Want, make_plan
from imager.rack.plan.saved import RestorePlan, SavedNode, restore_plan, saved_nodes
from imager.rack.plan.slots import load_slots
from imager.rack.plan.survey import cards_here, cards_named

_AGAIN = "do what is said above, then run the same command for these"


@command("restore", uses=("rack", "cache"))
@click.argument("folder", type=FOLDER)
@click.option("--nodes", metavar="NODES", help="Only the cards of these nodes, e.g. pi[1-13].")
@target_option
@click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]")
@jobs_option
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, except about a stranger's card.")
@click.option("--no-probe", is_flag=True, help="Trust the size of cards never seen before.")
@notify_option
def restore_cards(
    session: Session,
    folder: Path,
    nodes: str | None,
    targets: tuple[Path, ...],
    max_size: int | None,
    jobs: int | None,
    dry_run: bool,
    yes: bool,
    no_probe: bool,
) -> CommandResult:
    """Put saved cards back, many side by side.

    FOLDER is one that rack save has filled. Each node whose card is in it gets that card back,
    with all that was on it: on the card in its slot, else on the one it has now, else on the
    next one. Every byte is read back. A file that is another node's, another rack's, or not
    whole is refused, and so is a card that is too small.

    Examples:
        sudo picloud-image rack restore before
            Go back to before the upgrade.
        sudo picloud-image rack restore before --nodes pi3
            Only pi3, on a new card in its slot.
        sudo picloud-image rack restore before --dry-run
            Which card would get which file?
    """
    rack = open_rack(session, looking=dry_run)
    chosen, place = chosen_nodes(rack, nodes), folder_of_images(rack, folder)
    if not place.exists():
        raise UsageError(
            f"there is no folder {place}", hint="name the one that cards were saved to"
        )
    limits = limits_of(own_folders(session, rack), max_size)
    ledger = read_ledger(rack.folder)
    found, against = saved_nodes(place, chosen, rack, ledger, named=nodes is not None)
    if not (found or against):
        raise TargetRefused(
            f"{place} has no saved card of this rack",
            hint="name the folder that rack save has filled",
        )
    cards, unfit = _plan(rack, ledger, found, targets, limits)
    plan = restore_plan(cards, unfit, found, against, limits)
    session.console.event("plan", **restore_fields(plan))
    session.console.lines(*restore_lines(plan, session.console.columns))
    if dry_run:
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, **restore_fields(plan)}
    if not plan.cards.to_do:
        raise _nothing_to_do(plan)
    with batch_lock(rack.folder):
        steps, unasked = consented_steps(session, plan.cards, yes=yes)
        work = [
            RestoreJob(plan.saved[step.node.name], step.candidate.target, step.candidate.slot or "")
            for step in steps
        ]
        orders = RestoreOrders(rack, limits, at_once=jobs, probe=not no_probe)
        with shown_batch(session.console, rack.folder, "rack restore", work) as watch:
            results = restore(orders, work, watch) if work else ()
    without = [node.name for node in plan.cards.without]
    shown = show_results(session, (*unasked, *results), without, again=_AGAIN)
    return {**shown, **_refusals(session, plan, shown)}


def _plan(
    rack: Rack,
    ledger: Ledger,
    found: Sequence[SavedNode],
    targets: Sequence[Path],
    limits: Limits,
) -> tuple[RackPlan, tuple[Unfit, ...]]:
    """Which card that is in now gets the card of which node, by the rules of ``rack flash``."""
    slots, kernel = load_slots(rack.folder), HostTrees()
    unfit: list[Unfit] = []
    if targets:
        cards = cards_named(targets, rack, slots, {}, limits, kernel)
    else:
        cards, unfit = cards_here(rack, slots, {}, limits, kernel)
    wants = [Want(saved.node, ledger.state_of(saved.node.name)) for saved in found]
    return make_plan(wants, cards, rack.nodes, again=True), tuple(unfit)


def _nothing_to_do(plan: RestorePlan) -> TargetRefused:
    if plan.against:
        return TargetRefused(
            f"{fold([node.name for node, _ in plan.against])} cannot be restored",
            hint="do what is said above, then run the command again",
        )
    return TargetRefused(
        f"there is no card here for {fold([node.name for node in plan.cards.without])}",
        hint="put cards in; picloud-image devices lists every disk and says which may be written",
    )


def _refusals(session: Session, plan: RestorePlan, shown: CommandResult) -> CommandResult:
    """What the result says of the nodes that were refused before anything was written."""
    refused = [node.name for node, _ in plan.against]
    if refused and not shown["exit_code"]:
        failure = BatchFailed(f"{fold(refused)} was refused, as said above", hint=_AGAIN)
        session.console.error(failure)
        return {"exit_code": failure.exit_code, "refused": refused}
    return {"refused": refused}

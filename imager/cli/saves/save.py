"""``rack save``: the cards that are in the readers, each into a file of its node's name.

In: a folder, and which nodes. Out: the plan, shown whole, then all cards side by side. Nobody is
asked, because nothing is written to a card and no file is overwritten.
"""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import TargetRefused
from imager.card.host.sysfs import HostTrees
from imager.cli.choice import chosen_nodes, folder_of_images, open_rack, own_folders
from imager.cli.paths import FOLDER, PATH
from imager.cli.rack.batch import jobs_option
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.cli.views.batch_screen import shown_batch
from imager.cli.views.saves import save_fields, save_lines, show_saved
from imager.rack.batch.savers import SaveJob, SaveOrders, save
from imager.rack.batch.workers import CardResult
from imager.rack.history.lock import batch_lock
from imager.rack.history.outcome import Outcome
from imager.rack.plan.slots import load_slots
from imager.rack.plan.to_save import CardToSave, plan_saving, readable_cards


@command("save", uses=("rack", "cache"))
@click.argument("folder", type=FOLDER)
@click.option("--nodes", metavar="NODES", help="Only the cards of these nodes, e.g. pi[1-13].")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="DISK",
    type=PATH,
    help="Take this card, and no other but those named so; may be repeated.",
)
@jobs_option
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@notify_option
def save_cards(
    session: Session,
    folder: Path,
    nodes: str | None,
    targets: tuple[Path, ...],
    jobs: int | None,
    dry_run: bool,
) -> CommandResult:
    """Save the cards of many nodes side by side, before an upgrade.

    Each card that is in a reader and is stamped as a node's of this rack becomes
    FOLDER/NODE.img.zst, as read makes it. What is there already is not overwritten: give each
    save a folder of its own. A card that is dying and cannot be read at its beginning is the
    node's in whose slot it is. The files hold the nodes' private keys, so nobody but their
    owner may read them.

    A card that fails or loses something costs no other one. rack restore puts saved cards back.

    Examples:
        sudo picloud-image rack save before
            Keep every card that is in now in the folder before.
        sudo picloud-image rack save before --nodes 'pi[1-3]'
            Only these.
        sudo picloud-image rack save before --dry-run
            Which card is whose, and what speaks against saving it?
    """
    rack = open_rack(session, looking=dry_run)
    chosen, kernel = chosen_nodes(rack, nodes), HostTrees()
    place = folder_of_images(rack, folder)
    place.exists()  # judged before anything is read for it
    cards = readable_cards(
        rack, load_slots(rack.folder), targets, own_folders(session, rack), kernel
    )
    plan = plan_saving(cards, chosen, rack, place.path, kernel)
    session.console.event("plan", **save_fields(plan))
    session.console.lines(*save_lines(plan, session.console.columns))
    if dry_run:
        session.console.lines("Nothing was touched (--dry-run).")
        return {"dry_run": True, **save_fields(plan)}
    if not plan.cards:
        raise TargetRefused(
            f"no card of {'these nodes' if nodes else 'this rack'} is here",
            hint="put cards in; picloud-image devices lists every disk and says what is on it",
        )
    with batch_lock(rack.folder):
        to_do = [card for card in plan.cards if card.against is None]
        if to_do:
            place.make()
        work = [_job(card) for card in to_do]
        shown = shown_batch(session.console, rack.folder, "rack save", work, whole="all")
        with shown as watch:
            results = save(SaveOrders(rack.folder, jobs, kernel), work, watch)
    refused = [
        CardResult(_job(card), Outcome.REFUSED, error=card.against)
        for card in plan.cards
        if card.against is not None
    ]
    return show_saved(session.console, place.path, (*results, *refused), plan)


def _job(card: CardToSave) -> SaveJob:
    candidate = card.candidate
    image_id = candidate.stamp.image_id if candidate.stamp else ""
    return SaveJob(
        card.node.name, candidate.target, card.files, candidate.slot or "", image_id=image_id
    )

"""``rack watch``: the flashing station. Put a card in, take it out when it is done, next one.

In: cards as they are put in. Out: one card for each node asked for; it ends by itself when all of
them have theirs.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import click

from imager.base.errors import UsageError
from imager.card.host.arrivals import arrivals
from imager.cli.choice import chosen_nodes, golden_images, open_rack, own_folders
from imager.cli.consent import SIZE, limits_of
from imager.cli.packages import require_promoted
from imager.cli.rack.batch import jobs_option, orders_for
from imager.cli.rack.station import Begin, Readers, ReadersHere, at_the_station
from imager.cli.session import CommandResult, Session, command
from imager.cli.stations.head import Asked, reached, stations_option
from imager.cli.stations.watch import StationReaders, shift_on_stations
from imager.rack.batch.batch import begun
from imager.rack.batch.station import Plans
from imager.rack.history.lock import batch_lock
from imager.rack.plan.slots import load_slots


@command("watch")
@click.option(
    "--countdown",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=5.0,
    help="Seconds from the moment a card is in until it is begun. [5]",
)
@click.option("--again", is_flag=True, help="Also the nodes that are done.")
@click.option("--eject", is_flag=True, help="Ask the reader to let go of a finished card.")
@jobs_option
@stations_option
@click.option("--max-size", type=SIZE, help="Largest disk taken for a card. [256GiB]")
@click.argument("nodes", required=False, metavar="[NODES]")
def watch(
    session: Session,
    asked: Asked | None,
    nodes: str | None,
    countdown: float,
    again: bool,
    eject: bool,
    jobs: int | None,
    max_size: int | None,
) -> CommandResult:
    """Write each card that is put in, until every node has one.

    NODES are names such as pi[1-13]; all of the rack when left out. A card in a slot of the
    rack, a blank one and one of this rack begin by themselves after the countdown; any other
    one only when Enter is pressed. The key s leaves alone the cards that wait.

    Examples:
        sudo picloud-image rack watch
            Put cards in, one after the other, until all are made.
        sudo picloud-image rack watch 'pi[1-13]' --eject
            Only these, and let each card go when it is done.
        picloud-image rack watch --stations 'desk[1-4]'
            Where the rack's folder is: cards that are put in at four desks.
    """
    rack = open_rack(session)
    chosen = chosen_nodes(rack, nodes)
    require_promoted(rack, chosen)
    if asked is not None and eject:
        raise UsageError(
            "--eject is for the readers of this computer",
            hint="leave it out: a card that is verified can be taken out at any desk",
        )
    with ExitStack() as held:
        held.enter_context(batch_lock(rack.folder))
        # Before anything takes long: no card that comes meanwhile is missed.
        here = held.enter_context(arrivals()) if asked is None else None
        stations = held.enter_context(reached(session, rack, asked)) if asked else None
        if stations is not None:
            stations.collect(session, rack)
        images = golden_images(session, rack, chosen)
        plans = Plans(chosen, images, load_slots(rack.folder), countdown, again=again)
        limits = limits_of(own_folders(session, rack), max_size)
        orders = held.enter_context(orders_for(rack, images, limits, jobs))
        begin: Begin
        readers: Readers
        if stations is not None:
            desks = StationReaders(stations, orders, images)
            begin = partial(shift_on_stations, session.cache, orders, stations, desks)
            readers = desks
        else:
            assert here is not None  # noqa: S101 - one of the two is there
            begin, readers = partial(begun, orders), ReadersHere(here)
        return at_the_station(session, orders, plans, begin, readers, eject=eject)

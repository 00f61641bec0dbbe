"""The ``rack`` group: everything that has to do with many nodes."""

from __future__ import annotations

from typing import Any

import click

from imager.cli.lazy import LazyCommand, LazyGroup
from imager.cli.settings import common_options, take

_COMMANDS = {
    "flash": LazyCommand("rack.flash:flash", "Write the cards of many nodes side by side."),
    "init": LazyCommand(
        "rack.init:init",
        "Write a commented rack.toml into the folder --rack names, or into this one.",
    ),
    "keys": LazyCommand(
        "rack.keys:keys",
        "Look at the keys of the nodes, replace them, give them to a Salt master.",
    ),
    "known-hosts": LazyCommand(
        "rack.known_hosts:known_hosts",
        "Print the nodes' host keys for ssh: … >> ~/.ssh/known_hosts.",
    ),
    "plan": LazyCommand(
        "rack.plan:plan", "Show which card would become which node, and touch nothing."
    ),
    "report": LazyCommand(
        "rack.report:report",
        "Write the rack as one HTML page: towers, every card, its speed, labels to cut out.",
    ),
    "restore": LazyCommand(
        "saves.restore:restore_cards", "Put saved cards back, many side by side."
    ),
    "save": LazyCommand(
        "saves.save:save_cards", "Save the cards of many nodes side by side, before an upgrade."
    ),
    "serve": LazyCommand(
        "rack.serve:serve",
        "Show the rack as a page, with what a run at work does to each card.",
    ),
    "show": LazyCommand(
        "rack.show:show",
        "Draw the rack: places, nodes, addresses, roles, the last card of each, who joined.",
    ),
    "slots": LazyCommand(
        "rack.slots:slots",
        "Name the slots of the card readers, so that each card goes to its node.",
    ),
    "stations": LazyCommand(
        "stations.stations:stations",
        "See which computers with card readers take part, and make them do so.",
    ),
    "status": LazyCommand(
        "rack.status:status",
        "Ask the Salt master who has joined, and each node about its card and first boot.",
    ),
    "watch": LazyCommand(
        "rack.watch:watch", "Write each card that is put in, until every node has one."
    ),
}


@click.group("rack", cls=LazyGroup, lazy=_COMMANDS)
@common_options
@click.pass_context
def rack(context: click.Context, /, **options: Any) -> None:
    """Describe a rack, write and save its cards, look at it.

    Examples:
        picloud-image rack init --rack ~/rack
            Begin here.
        sudo picloud-image rack flash
            Then put cards in.
        picloud-image rack status --wait
            Put them into the Pis, switch on, and wait here.
    """
    context.obj = take(context, options)

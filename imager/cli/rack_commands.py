"""``rack init`` and ``rack show``: the folder that says what a rack is."""

from __future__ import annotations

import click

from imager.cli.init_command import add_init_command
from imager.cli.rack_choice import addresses_of, open_rack
from imager.cli.rack_flash_command import add_flash_commands
from imager.cli.session import Outcome, Session, command
from imager.cli.settings import common_options, take
from imager.cli.slots_commands import add_slots_commands


def add_rack_commands(group: click.Group) -> None:
    """Add the ``rack`` group."""

    @group.group("rack")
    @common_options
    @click.pass_context
    def rack_group(context: click.Context, /, **options: object) -> None:
        """Describe a rack and look at it."""
        context.obj = take(context, options)

    add_init_command(rack_group)
    add_slots_commands(rack_group)
    add_flash_commands(rack_group)

    @command(rack_group, "show")
    def show(session: Session) -> Outcome:
        """Show the rack: its nodes, addresses and roles, and the last card of each."""
        from imager.card.receipts import all_receipts
        from imager.node.rack_key import fingerprint, known_public_key

        rack = open_rack(session)
        public = known_public_key(rack.folder)
        signs = fingerprint(public) if public else None
        cards: dict[str, str] = {}
        for _, receipt in all_receipts(rack.receipts):
            cards.setdefault(receipt.node, f"{receipt.result} {receipt.finished_at}")
        session.console.lines(
            f"rack {rack.name} in {rack.folder}",
            f"release {rack.release.source} · Salt master {rack.master.name}",
            f"cards signed by key {signs or '(made with the first card)'}",
            "",
        )
        session.console.table(
            ["node", "model", "address", "roles", "last card"],
            [
                [
                    node.name,
                    node.model,
                    addresses_of(node),
                    ", ".join(node.roles),
                    cards.get(node.name, "none yet"),
                ]
                for node in rack.nodes
            ],
        )
        return {
            "rack": rack.name,
            "folder": str(rack.folder),
            "release": rack.release.source,
            "master": rack.master.name,
            "key": signs,
            "nodes": [
                {
                    "node": node.name,
                    "model": node.model,
                    "address": str(node.address) if node.address else None,
                    "roles": list(node.roles),
                    "last_card": cards.get(node.name),
                }
                for node in rack.nodes
            ],
        }

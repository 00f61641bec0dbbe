"""``rack init`` and ``rack show``: the folder that says what a rack is."""

from __future__ import annotations

from pathlib import Path

import click

from imager.cli.rack_choice import addresses_of, open_rack
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

    add_slots_commands(rack_group)

    @command(rack_group, "init")
    @click.option("--nodes", metavar="NODES", help="Their names, e.g. pi[0-13].")
    @click.option("--master", metavar="NAME", help="The Salt master: a node, or a host elsewhere.")
    def init(session: Session, nodes: str | None, master: str | None) -> Outcome:
        """Write a commented rack.toml into the folder --rack names, or into this one."""
        from imager.node.rackfile import load_rack
        from imager.node.rackfolder import init_rack

        folder = session.settings.rack or Path.cwd()
        given = {"nodes": nodes, "master": master}
        made = init_rack(folder, **{key: text for key, text in given.items() if text is not None})
        rack = load_rack(folder)
        session.console.lines(
            *(f"made {path}" for path in made),
            f"{len(rack.nodes)} nodes, Salt master {rack.master.name}",
            "Next: put your SSH key under [login] in rack.toml, then write a card:",
            f"    picloud-image write /dev/sdX --node {rack.nodes[0].name}",
        )
        return {"made": [str(path) for path in made], "nodes": [n.name for n in rack.nodes]}

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

"""``rack known-hosts``: the nodes' host keys, as ssh wants them."""

from __future__ import annotations

import click

from imager.cli.choice import chosen_nodes, open_rack
from imager.cli.session import CommandResult, Session, command
from imager.node.keys.identity import identities_of

_NODES = click.argument("nodes", required=False, metavar="[NODES]")


@command("known-hosts")
@_NODES
def known_hosts(session: Session, nodes: str | None) -> CommandResult:
    """Print the nodes' host keys for ssh: … >> ~/.ssh/known_hosts."""
    rack = open_rack(session)
    chosen = chosen_nodes(rack, nodes)
    names = {n.name: f"{n.name},{n.address.ip}" if n.address else n.name for n in chosen}
    lines = [
        f"{names[name]} {key.line}"
        for name, identity in identities_of(rack, chosen, session.console)
        for key in identity.ssh
    ]
    session.console.lines(*lines)
    return {"known_hosts": lines}

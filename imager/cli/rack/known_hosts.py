"""``rack known-hosts``: the nodes' host keys, as ssh wants them.

In: the nodes asked for. Out: lines for ~/.ssh/known_hosts, and nothing else on standard output. A
node whose keys are not made yet is named on standard error instead.
"""

from __future__ import annotations

import click

from imager.cli.choice import chosen_nodes, open_rack
from imager.cli.session import CommandResult, Session, command
from imager.config.nodeset import fold
from imager.node.keys.identity import known_hosts_at_hand


@command("known-hosts", uses=("rack",))
@click.argument("nodes", required=False, metavar="[NODES]")
def known_hosts(session: Session, nodes: str | None) -> CommandResult:
    """Print the nodes' host keys for ssh: … >> ~/.ssh/known_hosts.

    NODES are names such as pi[1-13]; all of the rack when left out.

    Examples:
        picloud-image rack known-hosts >> ~/.ssh/known_hosts
            Never be asked whether a node is the right one.
    """
    rack = open_rack(session, looking=True)
    chosen = chosen_nodes(rack, nodes)
    names = {n.name: f"{n.name},{n.address.ip}" if n.address else n.name for n in chosen}
    found = known_hosts_at_hand(rack, chosen)
    lines = [f"{names[name]} {key}" for name, keys in found.items() for key in keys]
    without = [name for name, keys in found.items() if not keys]
    if not session.settings.as_json:
        for line in lines:
            session.console.data(line)
    if without:
        session.console.warn(
            f"no host keys yet for {fold(without)}: they are made when its card is first written; "
            "run this again then"
        )
    return {"known_hosts": lines, "without_keys": without}

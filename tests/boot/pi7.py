"""pi7 of a rack of 14 whose Salt master is this computer: its card, and both on one network.

The master knows the rack's keys by ``rack keys export``, the card knows its key by rack.toml.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.bootrack import BootRack, boot_rack
from tests.support.headnode import HOST, PATIENCE, PUBLIC_KEY, HeadNode, head_node
from tests.support.qemu import LOGIN, Machine, booting, unless_the_emulator_fails
from tests.support.salt import SaltPrograms
from tests.support.standin import StandIn

LOGIN_SECONDS = 900
"""On two slow cores it was 84, and 134 with other tests beside."""
JOIN_SECONDS = 1200
"""On two slow cores it was 204 after the login, and 250 with other tests beside."""
SSH_PORT = 2207
_RACK = f"""\
[rack]
name = "boot"
nodes = "pi[0-13]"
master = "head"
model = "pi2"
[salt]
version = "3008.3"
master_address = "{HOST}"
master_public_key = "master.pub"
"""


@dataclass(frozen=True)
class Pi7:
    """The rack, its master, which runs, and the card, which no node has booted from yet."""

    rack: BootRack
    head: HeadNode
    card: Path

    @contextmanager
    def switched_on(self, card: Path, *words: str) -> Iterator[Machine]:
        """pi7 with ``card`` in its slot; ``words`` are options of scripts/boot-in-qemu."""
        with booting(card, "--ssh", str(SSH_PORT), *words, on=self.head.wire) as machine:
            yield machine

    @contextmanager
    def joined(self, card: Path, node: str = "pi7") -> Iterator[tuple[Machine, str]]:
        """pi7, or the ``node`` that ``card`` makes of it, with that in its slot, when it has
        joined; and when it did what."""

        def boot() -> tuple[ExitStack, Machine, str]:
            with ExitStack() as power:
                machine = power.enter_context(self.switched_on(card))
                times = self.wait_until_joined(machine, node)
                return power.pop_all(), machine, times

        power, machine, times = unless_the_emulator_fails([card], boot)
        with power:
            yield machine, times

    def wait_until_joined(self, machine: Machine, node: str = "pi7") -> str:
        """Until first boot is complete and ``test.ping`` answered; says when what was reached."""
        machine.wait_for(LOGIN, seconds=LOGIN_SECONDS)
        to_login = machine.seconds_on
        machine.wait_for(f"{node}: complete", seconds=JOIN_SECONDS)
        to_complete = machine.seconds_on
        self.head.box.wait_until_answering({node}, seconds=JOIN_SECONDS, patience=PATIENCE)
        return (
            f"login after {to_login:.0f} s, first boot complete after {to_complete:.0f} s,"
            f" test.ping answered after {machine.seconds_on:.0f} s"
        )

    def ask(self, *words: str) -> Any:
        """What pi7 returns for a function of Salt and its arguments."""
        return self.head.ask("pi7", *words)

    def identity(self) -> dict[str, Any]:
        """pi7's ids in the rack's own store."""
        stored = self.rack.folder / ".picloud/keys/pi7/card/identity.json"
        identity: dict[str, Any] = json.loads(stored.read_text())
        return identity


@contextmanager
def pi7_beside_its_master(
    folder: Path, cache: Path, stand_in: StandIn, programs: SaltPrograms
) -> Iterator[Pi7]:
    """Made in ``folder``; the master runs until the block ends."""
    with head_node(folder / "head", programs) as head:
        (folder / "rack").mkdir()
        shutil.copy(head.pki / PUBLIC_KEY, folder / "rack" / "master.pub")
        rack = boot_rack(folder, cache, stand_in, _RACK)
        card = rack.card("pi7")
        rack.command("rack", "keys", "export", "--pki", head.pki)
        yield Pi7(rack, head, card)

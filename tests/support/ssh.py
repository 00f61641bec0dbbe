"""ssh to a machine of ``tests.support.qemu``, as a person with the rack's known_hosts does it.

In: a private key whose public half is on the card, and ``picloud-image rack known-hosts``. Out:
what root's commands print there. A host whose key is not the one of the rack is refused.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.salt import Wire

ANSWER_SECONDS = 120
"""The first key exchange of an emulated Pi takes 20."""


def new_login_key(path: Path) -> str:
    """Make a key pair in ``path`` and ``path``.pub; gives the public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


@dataclass(frozen=True)
class Ssh:
    """The way to the node ``name``, which has ``address`` on the network ``on``."""

    name: str
    address: str
    key: Path
    known_hosts: Path
    on: Wire

    def run(self, command: str, *, seconds: float = 300) -> str:
        """What ``command`` prints when root runs it there; what it complained of, if it failed."""
        words: list[str | Path] = ["ssh", "-F", "none", "-i", self.key]
        for option in (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            f"HostKeyAlias={self.name}",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=none",
            f"ConnectTimeout={ANSWER_SECONDS}",
        ):
            words += ["-o", option]
        done = subprocess.run(
            [*self.on.entering, *words, f"root@{self.address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + ANSWER_SECONDS,
            check=False,
        )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

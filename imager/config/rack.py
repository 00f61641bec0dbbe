"""A rack as a value: its nodes, its master, and what all of them share.

In: nothing; ``load`` makes these values from rack.toml after all checks. Out: what the other
modules must know of a rack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import PRIVATE, TrustedFolder
from imager.config.fields import nearest
from imager.config.hostname import name_fault
from imager.packages.wish import PackageWish

RACK_FILE = "rack.toml"
STATE = PRIVATE
MINION = "salt-minion"
MASTER = "salt-master"


def state_folder(rack: Path) -> TrustedFolder:
    """The private folder of keys, ledger and receipts of the rack in the folder ``rack``."""
    return TrustedFolder(rack) / STATE


def receipts_folder(rack: Path) -> TrustedFolder:
    """The folder of receipts of the rack in the folder ``rack``, even if its rack.toml is wrong."""
    return state_folder(rack) / "receipts"


@dataclass(frozen=True, slots=True)
class Node:
    """One Raspberry Pi. ``address`` is None where DHCP gives it one; ``slot`` is the label of its
    place in the rack, None where it has none; ``packages`` is what it has beyond its release."""

    name: str
    model: str
    roles: tuple[str, ...]
    address: IPv4Interface | None
    authorized_keys: tuple[str, ...]
    slot: str | None = None
    packages: PackageWish = field(default_factory=PackageWish)


@dataclass(frozen=True, slots=True)
class ReleaseChoice:
    """Which release the cards are made from: ``source`` is a built-in name or a URL, and a URL
    comes with the fingerprint of the OpenPGP key that must have signed it."""

    source: str
    signing_key: str | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """What all nodes share. ``interface`` is the pattern of interface names for [Match] Name= of
    systemd.network(5). Gateway and name servers are for nodes with a fixed address."""

    interface: str
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Master:
    """The Salt master the nodes join: a node of this rack, or a computer elsewhere.

    ``address``, where it is known, goes into every node's /etc/hosts: a minion that cannot look up
    the name waits for ever and says nothing. ``public_key`` is the PEM text of the key of a master
    outside the rack.
    """

    name: str
    is_node: bool
    address: IPv4Address | None = None
    public_key: str | None = None


@dataclass(frozen=True, slots=True)
class Rack:
    """A checked rack.toml. ``folder`` holds the file, the overlays and ``.picloud/``;
    ``held_packages`` are names of packages that no update moves. Those that did move are tried on
    the nodes ``canary`` first, where ``canary_check``, a command, must succeed."""

    folder: Path
    name: str
    nodes: tuple[Node, ...]
    master: Master
    release: ReleaseChoice
    network: Network
    swap_bytes: int
    timezone: str | None
    salt_version: str | None
    salt_packages: Path | None
    highstate_once: bool
    held_packages: frozenset[str] = frozenset()
    canary: tuple[str, ...] = ()
    canary_check: str | None = None

    @property
    def state(self) -> TrustedFolder:
        """The private folder of keys, ledger and receipts."""
        return state_folder(self.folder)

    @property
    def keys(self) -> TrustedFolder:
        """The folder of every identity made for this rack."""
        return self.state / "keys"

    @property
    def receipts(self) -> TrustedFolder:
        """The folder of the receipts of written cards."""
        return receipts_folder(self.folder)

    @property
    def overlays(self) -> Path:
        """The rack's own overlays, laid over the built-in ones."""
        return self.folder / "overlays"

    @property
    def lock_file(self) -> Path:
        """Where the release's SHA-256 is pinned."""
        return self.folder / "rack.lock"

    @property
    def candidate_file(self) -> Path:
        """Where packages are pinned that only the canary nodes have so far."""
        return self.folder / "canary.lock"

    def node(self, name: str) -> Node:
        """The node called ``name``; ConfigurationError that names the nodes there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = [node.name for node in self.nodes]
        hint = f'add it to nodes under [rack], e.g. nodes = "{_fold(names)},{name}"'
        if name_fault(name):
            hint = f"give the name of one node, such as {names[0]}"
        raise ConfigurationError(
            f"{self.folder / RACK_FILE}: no node is called {name!r} ({nearest(name, names)})",
            hint=hint,
        )


def _fold(names: list[str]) -> str:
    # Importing ClusterShell costs start-up time that only this message and load_rack pay.
    from imager.config.nodeset import fold

    return fold(names)

"""The identity of a node: numbers and keys that are made once and are the same on all its cards.

In: a rack and a node. Out: its Identity, from ``.picloud/keys/<node>/``. A pi7 that gets another
card is still the same pi7: the DHCP server knows its lease, ssh its host key, and the Salt master
its minion key. A new minion key would be refused as denied.

::

    keys/<node>/card/identity.json   machine-id, disk id, volume id, filesystem UUID
    keys/<node>/ssh/ssh_host_*       host keys of sshd
    keys/<node>/salt/minion.{pem,pub}
    keys/<master>/master/master.{pem,pub}

``<folder>.old`` beside any of these is what the last rotation replaced (``rotate``).
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial

from imager.base.json_fields import read_object
from imager.base.progress import Phase, Progress
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import TrustedFolder
from imager.config.folder import ensure_state
from imager.config.rack import Node, Rack
from imager.node.keys.making import make_missing, missing
from imager.node.keys.salt import SaltPair, new_salt_pair, salt_pair
from imager.node.keys.ssh import HostKey, host_keys, known_host_lines, new_host_keys
from imager.node.keys.store import (
    LARGEST_KEY,
    KeyFile,
    KeyFolder,
    KeyMaker,
    NodeFolders,
    filled_folders,
    folders_of,
    is_half_done,
    nodes_in,
    store_at_hand,
    store_locked,
)

_FILE = "identity.json"
_MINION, _MASTER = "minion", "master"
_MACHINE_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class CardNumbers:
    """The numbers by which this node's card is told from every other one; none is secret.

    ``machine_id`` is 32 hex digits (machine-id(5)). ``disk_id`` is the MBR's disk signature.
    It is never zero and differs between all cards of the rack: PARTUUIDs are made of it, and two
    cards in one computer must not be confused. ``created`` is in UTC, ISO 8601.
    """

    machine_id: str
    disk_id: int
    volume_id: int
    root_uuid: str
    created: str


@dataclass(frozen=True, slots=True)
class MasterTrust:
    """How a node recognises its Salt master, and what the master's own card needs in addition.

    ``public`` is the master's public key, None if it is not known. ``pair`` and ``accepted``
    (minion id -> public key) are for the master's own card only.
    """

    public: bytes | None = None
    pair: SaltPair | None = None
    accepted: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything of a node that no other node has."""

    numbers: CardNumbers
    ssh: tuple[HostKey, ...]
    minion: SaltPair
    master: MasterTrust


@dataclass(frozen=True, slots=True)
class SaltKeys:
    """The keys by which the Salt master of a rack and its nodes recognise each other.

    ``minions`` are the nodes' public keys by their names, ``master`` is the pair of a master that
    is a node. None means that a key is not made yet, or that the master is not a node, so that
    this rack does not make its key.
    """

    minions: Mapping[str, bytes | None]
    master: SaltPair | None


def identity_of(rack: Rack, node: Node) -> Identity:
    """The identity of ``node``, made on first use; two runs at once get the same one. Changes
    nothing where all of it is made.

    On the master's card every node's minion key is needed, so those are made here too. Raises
    ConfigurationError that names the file when the store is damaged.
    """
    with store_at_hand(rack.keys):
        if has_identity(rack, node) and not is_half_done(rack.keys, node.name):
            return _identity(rack, node)
    make_keys(rack, node)
    with store_locked(rack.keys, [node.name]):
        return _identity(rack, node)


def count_missing_keys(rack: Rack, node: Node) -> int:
    """How many keys ``make_keys`` would make: some tenths of a second of one core each."""
    return len(missing(_makers(rack, node)))


def make_keys(rack: Rack, node: Node, phase: Phase | None = None) -> None:
    """Make those keys that ``identity_of`` would make, each a step of ``phase``."""
    ensure_state(rack.folder)
    make_missing(rack.keys, _makers(rack, node), phase)


def identity_at_hand(rack: Rack, node: Node) -> Identity | None:
    """As ``identity_of``, but makes and mends nothing: None where something is not made yet."""
    with store_at_hand(rack.keys):
        return _identity(rack, node) if has_identity(rack, node) else None


def salt_keys(rack: Rack, progress: Progress) -> SaltKeys:
    """Salt's keys of all of ``rack``, made on first use, as a phase.

    Raises ConfigurationError that names the file when one is damaged.
    """
    ensure_state(rack.folder)
    with store_locked(rack.keys):
        pass  # what a killed run left half done is mended
    makers = _salt_makers(rack, rack.nodes)
    with progress.steps("make keys", len(missing(makers))) as phase:
        make_missing(rack.keys, makers, phase)
    return salt_keys_at_hand(rack)


def salt_keys_at_hand(rack: Rack, nodes: Sequence[Node] | None = None) -> SaltKeys:
    """As ``salt_keys``, but makes none: a key that does not exist yet is None. Only those of
    ``nodes``, if given."""
    chosen = rack.nodes if nodes is None else nodes
    with store_at_hand(rack.keys):
        folders = {node.name: folders_of(rack.keys, node.name) for node in chosen}
        minions = {
            name: _minion_pair(own).public if own.salt.is_there else None
            for name, own in folders.items()
        }
        master = folders_of(rack.keys, rack.master.name) if rack.master.is_node else None
        pair = _master_pair(master) if master and master.master.is_there else None
        return SaltKeys(minions, pair)


def known_hosts_at_hand(rack: Rack, nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """Kind and key of the host keys of ``nodes`` by their names, as in a known_hosts file; empty
    for a node that has none yet. Makes none and reads no private key.

    Raises ConfigurationError that names the file when a public one is damaged.
    """
    with store_at_hand(rack.keys):
        return {node.name: known_host_lines(folders_of(rack.keys, node.name).ssh) for node in nodes}


def ssh_keys_at_hand(rack: Rack, nodes: Sequence[Node]) -> dict[str, tuple[HostKey, ...]]:
    """The host keys of ``nodes`` by their names; empty for a node that has none yet. Makes none.

    Raises ConfigurationError that names the file when one is damaged.
    """
    with store_at_hand(rack.keys):
        folders = {node.name: folders_of(rack.keys, node.name).ssh for node in nodes}
        return {
            name: host_keys(folder, name) if folder.is_there else ()
            for name, folder in folders.items()
        }


def has_identity(rack: Rack, node: Node) -> bool:
    """Whether everything that ``identity_of`` returns is made already."""
    needs = {node.name: {"card", "ssh", "salt"}}
    if node.name == rack.master.name:
        needs |= {other.name: {"salt"} for other in rack.nodes if other != node}
    if rack.master.is_node:
        needs.setdefault(rack.master.name, set()).add("master")
    return all(kinds <= filled_folders(rack.keys, name) for name, kinds in needs.items())


def _makers(rack: Rack, node: Node) -> dict[KeyFolder, KeyMaker]:
    """What makes the keys that ``identity_of`` returns."""
    ssh = folders_of(rack.keys, node.name).ssh
    known = rack.nodes if node.name == rack.master.name else (node,)
    return {ssh: partial(new_host_keys, node.name), **_salt_makers(rack, known)}


def _salt_makers(rack: Rack, nodes: Sequence[Node]) -> dict[KeyFolder, KeyMaker]:
    """What makes the Salt keys of ``nodes``, and the master's, if it is a node."""
    makers: dict[KeyFolder, KeyMaker] = {
        folders_of(rack.keys, node.name).salt: partial(new_salt_pair, _MINION) for node in nodes
    }
    if rack.master.is_node:
        makers[folders_of(rack.keys, rack.master.name).master] = partial(new_salt_pair, _MASTER)
    return makers


def _identity(rack: Rack, node: Node) -> Identity:
    """As ``identity_of``, with the store held."""
    own = folders_of(rack.keys, node.name)
    return Identity(
        _numbers(rack.keys, own.card),
        host_keys(own.ssh, node.name),
        _minion_pair(own),
        _master_trust(rack, node.name),
    )


def _minion_pair(own: NodeFolders) -> SaltPair:
    return salt_pair(own.salt, _MINION)


def _master_pair(own: NodeFolders) -> SaltPair:
    return salt_pair(own.master, _MASTER)


def _master_trust(rack: Rack, node: str) -> MasterTrust:
    master = rack.master
    if not master.is_node:
        return MasterTrust(master.public_key.encode() if master.public_key else None)
    pair = _master_pair(folders_of(rack.keys, master.name))
    if node != master.name:
        return MasterTrust(pair.public)
    accepted = tuple(
        (other.name, _minion_pair(folders_of(rack.keys, other.name)).public) for other in rack.nodes
    )
    return MasterTrust(pair.public, pair, accepted)


def _numbers(keys: TrustedFolder, folder: KeyFolder) -> CardNumbers:
    files = folder.kept((_FILE,), lambda: {_FILE: _new_numbers(keys)})
    try:
        return _parse(files[_FILE])
    except ValueError as error:
        raise folder.damaged(_FILE, str(error)) from None


def _new_numbers(keys: TrustedFolder) -> KeyFile:
    taken = set()
    for node in nodes_in(keys):
        with suppress(FileNotFoundError):
            taken.add(_disk_id(folders_of(keys, node).card))
    numbers = CardNumbers(
        # machine-id(5) asks for a version 4 UUID where an id is made by other means.
        machine_id=uuid.uuid4().hex,
        disk_id=_fresh(taken),
        volume_id=_fresh(set()),
        root_uuid=str(uuid.uuid4()),
        created=timestamp(),
    )
    return KeyFile(json.dumps(asdict(numbers), indent=2).encode() + b"\n", private=False)


@lru_cache(maxsize=1 << 14)
def _disk_id(card: KeyFolder) -> int:
    """The disk id in ``card``, read once by each run: whoever makes cards for a thousand nodes
    would read a million files. Numbers never change, and one that is gone is no loss."""
    try:
        return _parse(card.folder.read(_FILE, LARGEST_KEY)).disk_id
    except ValueError as error:
        raise card.damaged(_FILE, str(error)) from None


def _fresh(taken: set[int]) -> int:
    while True:
        number = secrets.randbits(32)
        if number not in taken | {0, 0xFFFFFFFF}:
            return number


def _parse(data: bytes) -> CardNumbers:
    """Raises ValueError that says what is wrong with an identity.json."""
    read = read_object(data)
    read.exactly(field.name for field in fields(CardNumbers))
    numbers = CardNumbers(
        machine_id=read.text("machine_id"),
        disk_id=read.integer("disk_id", 1, 0xFFFFFFFF),
        volume_id=read.integer("volume_id", 1, 0xFFFFFFFF),
        root_uuid=read.text("root_uuid"),
        created=read.text("created"),
    )
    if not _MACHINE_ID.match(numbers.machine_id) or numbers.machine_id == "0" * 32:
        raise read.fault("machine_id", "is not 32 hex digits (machine-id(5))")
    try:
        uuid.UUID(numbers.root_uuid)
    except ValueError:
        raise read.fault("root_uuid", "is not a UUID") from None
    return numbers

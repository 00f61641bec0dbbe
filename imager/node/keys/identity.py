"""Who a node is: the numbers and keys made once for it and the same on every card after that.

In: a rack and a node. Out: its Identity, from ``.picloud/keys/<node>/``. A re-imaged pi7 is the
same pi7: DHCP knows its lease, ssh its host key, and the Salt master its minion key, which it
would otherwise refuse as denied.

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
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from imager.base.json_fields import read_object
from imager.base.progress import Progress
from imager.base.timestamps import timestamp
from imager.config.folder import ensure_state
from imager.config.rack import Node, Rack
from imager.node.keys.salt import SaltPair, salt_pair
from imager.node.keys.ssh import HostKey, host_keys
from imager.node.keys.store import (
    KeyFile,
    KeyFolder,
    NodeFolders,
    damaged,
    folders_of,
    store_at_hand,
    store_locked,
)

_FILE = "identity.json"
_MACHINE_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class CardNumbers:
    """What tells this node's card from every other one; nothing here is secret.

    ``machine_id`` is 32 hex digits (machine-id(5)). ``disk_id`` is the MBR's disk signature,
    never zero and different on every card of the rack, because PARTUUIDs are made of it and two
    cards in one reader must not be taken for each other. ``created`` is in UTC, ISO 8601.
    """

    machine_id: str
    disk_id: int
    volume_id: int
    root_uuid: str
    created: str


@dataclass(frozen=True, slots=True)
class MasterTrust:
    """How a node knows its Salt master, and what the master's own card carries besides.

    ``public`` is the master's public key where it is known. ``pair`` and ``accepted`` (minion id
    -> public key) are there for the master's own card only.
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
    """The keys by which the Salt master of a rack and its nodes know each other.

    ``minions`` are the nodes' public keys by their names, ``master`` is the pair of a master that
    is a node. None stands for a key that is not made yet, and for the pair of a master that is no
    node: that key is not this rack's to make.
    """

    minions: Mapping[str, bytes | None]
    master: SaltPair | None


def identity_of(rack: Rack, node: Node) -> Identity:
    """The identity of ``node``, made on first use; two runs at once get the same one.

    On the master's card every node's minion key is needed, so those are made here too. Raises
    ConfigurationError that names the file when the store is damaged.
    """
    ensure_state(rack.folder)
    with store_locked(rack.keys):
        own = folders_of(rack.keys, node.name)
        return Identity(
            _numbers(rack.keys, own.card),
            host_keys(own.ssh, node.name),
            _minion_pair(own),
            _master_trust(rack, node.name),
        )


def salt_keys(rack: Rack, progress: Progress) -> SaltKeys:
    """Salt's keys of all of ``rack``, made on first use, as a phase.

    Raises ConfigurationError that names the file when one is damaged.
    """
    ensure_state(rack.folder)
    with progress.phase("make keys"), store_locked(rack.keys):
        for node in rack.nodes:
            _minion_pair(folders_of(rack.keys, node.name))
        if rack.master.is_node:
            _master_pair(folders_of(rack.keys, rack.master.name))
    return salt_keys_at_hand(rack)


def salt_keys_at_hand(rack: Rack, nodes: Sequence[Node] | None = None) -> SaltKeys:
    """As ``salt_keys``, but without making any: a key that is not there yet is None. Of ``nodes``
    alone, if given."""
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


def ssh_keys_at_hand(rack: Rack, nodes: Sequence[Node]) -> dict[str, tuple[HostKey, ...]]:
    """The host keys of ``nodes`` by their names, empty for a node that has none yet: none is made.

    Raises ConfigurationError that names the file when one is damaged.
    """
    with store_at_hand(rack.keys):
        folders = {node.name: folders_of(rack.keys, node.name).ssh for node in nodes}
        return {
            name: host_keys(folder, name) if folder.is_there else ()
            for name, folder in folders.items()
        }


def has_identity(rack: Rack, node: Node) -> bool:
    """Whether ``identity_of`` would find all of it and make nothing."""
    own, master = folders_of(rack.keys, node.name), rack.master
    needs = [own.card, own.ssh, own.salt]
    if master.is_node:
        needs.append(folders_of(rack.keys, master.name).master)
    if node.name == master.name:
        needs += [folders_of(rack.keys, other.name).salt for other in rack.nodes]
    return all(folder.is_there for folder in needs)


def _minion_pair(own: NodeFolders) -> SaltPair:
    return salt_pair(own.salt, "minion")


def _master_pair(own: NodeFolders) -> SaltPair:
    return salt_pair(own.master, "master")


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


def _numbers(keys: Path, folder: KeyFolder) -> CardNumbers:
    files = folder.kept((_FILE,), lambda: {_FILE: _new_numbers(keys)})
    try:
        return _parse(files[_FILE])
    except ValueError as error:
        raise folder.damaged(_FILE, str(error)) from None


def _new_numbers(keys: Path) -> KeyFile:
    taken = set()
    for path in keys.glob(f"*/card/{_FILE}"):
        try:
            taken.add(_parse(path.read_bytes()).disk_id)
        except ValueError as error:
            raise damaged(path, str(error)) from None
    numbers = CardNumbers(
        # machine-id(5) asks for a version 4 UUID where an id is made by other means.
        machine_id=uuid.uuid4().hex,
        disk_id=_fresh(taken),
        volume_id=_fresh(set()),
        root_uuid=str(uuid.uuid4()),
        created=timestamp(),
    )
    return KeyFile(json.dumps(asdict(numbers), indent=2).encode() + b"\n", private=False)


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

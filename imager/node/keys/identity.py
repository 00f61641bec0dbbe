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
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from imager.base.progress import Progress
from imager.config.folder import ensure_state
from imager.config.rack import Node, Rack
from imager.node.keys.salt import SaltPair, salt_pair
from imager.node.keys.ssh import HostKey, host_keys
from imager.node.keys.store import KeyFile, damaged, kept, store_at_hand, store_locked

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
    """By what the Salt master of a rack and its nodes know each other.

    ``minions`` are the nodes' public keys by their names, ``master`` is the pair of a master that
    is a node. None is a key that nobody has made yet, and for ``master`` also one that is not this
    rack's to make.
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
        home = rack.keys / node.name
        return Identity(
            _numbers(rack.keys, node.name),
            host_keys(home / "ssh", node.name),
            _minion(rack, node.name),
            _master_trust(rack, node.name),
        )


def salt_keys(rack: Rack, progress: Progress) -> SaltKeys:
    """Salt's keys of all of ``rack``, made on first use, as a phase.

    Raises ConfigurationError that names the file when one is damaged.
    """
    ensure_state(rack.folder)
    with progress.phase("make keys"), store_locked(rack.keys):
        for node in rack.nodes:
            _minion(rack, node.name)
        if rack.master.is_node:
            _master_pair(rack)
    return salt_keys_at_hand(rack)


def salt_keys_at_hand(rack: Rack, nodes: Sequence[Node] | None = None) -> SaltKeys:
    """As ``salt_keys``, for whoever only looks: none is made. Of ``nodes`` alone, if given."""
    with store_at_hand(rack.keys):
        minions = {
            node.name: _minion(rack, node.name).public
            if _minion_folder(rack, node.name).is_dir()
            else None
            for node in (rack.nodes if nodes is None else nodes)
        }
        there = rack.master.is_node and _master_folder(rack).is_dir()
        return SaltKeys(minions, _master_pair(rack) if there else None)


def ssh_keys_at_hand(rack: Rack, nodes: Sequence[Node]) -> dict[str, tuple[HostKey, ...]]:
    """The host keys of ``nodes`` by their names, empty for a node that has none yet: none is made.

    Raises ConfigurationError that names the file when one is damaged.
    """
    with store_at_hand(rack.keys):
        folders = {node.name: rack.keys / node.name / "ssh" for node in nodes}
        return {
            name: host_keys(folder, name) if folder.is_dir() else ()
            for name, folder in folders.items()
        }


def has_identity(rack: Rack, node: Node) -> bool:
    """Whether ``identity_of`` would find all of it and make nothing."""
    home, master = rack.keys / node.name, rack.master
    needs = [home / "card", home / "ssh", _minion_folder(rack, node.name)]
    if master.is_node:
        needs.append(_master_folder(rack))
    if node.name == master.name:
        needs += [_minion_folder(rack, other.name) for other in rack.nodes]
    return all(folder.is_dir() for folder in needs)


def _minion(rack: Rack, node: str) -> SaltPair:
    return salt_pair(_minion_folder(rack, node), "minion")


def _minion_folder(rack: Rack, node: str) -> Path:
    return rack.keys / node / "salt"


def _master_pair(rack: Rack) -> SaltPair:
    return salt_pair(_master_folder(rack), "master")


def _master_folder(rack: Rack) -> Path:
    return rack.keys / rack.master.name / "master"


def _master_trust(rack: Rack, node: str) -> MasterTrust:
    master = rack.master
    if not master.is_node:
        return MasterTrust(master.public_key.encode() if master.public_key else None)
    pair = _master_pair(rack)
    if node != master.name:
        return MasterTrust(pair.public)
    accepted = tuple((other.name, _minion(rack, other.name).public) for other in rack.nodes)
    return MasterTrust(pair.public, pair, accepted)


def _numbers(keys: Path, node: str) -> CardNumbers:
    folder = keys / node / "card"
    files = kept(folder, (_FILE,), lambda: {_FILE: _new_numbers(keys)})
    try:
        return _parse(files[_FILE])
    except ValueError as error:
        raise damaged(folder / _FILE, str(error)) from None


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
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    return KeyFile(json.dumps(asdict(numbers), indent=2).encode() + b"\n", private=False)


def _fresh(taken: set[int]) -> int:
    while True:
        number = secrets.randbits(32)
        if number not in taken | {0, 0xFFFFFFFF}:
            return number


def _parse(data: bytes) -> CardNumbers:
    """Raises ValueError that says what is wrong with an identity.json."""
    try:
        values = json.loads(data)
    except ValueError:
        raise ValueError("is not JSON") from None
    names = [field.name for field in fields(CardNumbers)]
    if not isinstance(values, dict) or sorted(values) != sorted(names):
        raise ValueError(f"does not hold exactly {', '.join(names)}")
    numbers = CardNumbers(**values)
    texts = (numbers.machine_id, numbers.root_uuid, numbers.created)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("has a number where text belongs")
    if not _MACHINE_ID.match(numbers.machine_id) or numbers.machine_id == "0" * 32:
        raise ValueError("machine_id is not 32 hex digits (machine-id(5))")
    for name, number in (("disk_id", numbers.disk_id), ("volume_id", numbers.volume_id)):
        if type(number) is not int or not 0 < number < 1 << 32:
            raise ValueError(f"{name} is not a number from 1 to 4294967295")
    try:
        uuid.UUID(numbers.root_uuid)
    except ValueError:
        raise ValueError("root_uuid is not a UUID") from None
    return numbers

"""New keys for a node that has some, and what people must do before the node joins again.

In: a rack, a node and a kind of key. Out: the fingerprints before and after, and the commands that
put the new key wherever the old one is known. The old keys are kept until the next rotation, so
that a rotation can be undone.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from imager.base.errors import ConfigurationError
from imager.base.text import command_line
from imager.config.folder import ensure_state
from imager.config.rack import Node, Rack
from imager.node.keys.salt import fingerprint, new_salt_pair, salt_pair
from imager.node.keys.ssh import host_keys, new_host_keys
from imager.node.keys.store import KeyFolder, folders_of, store_at_hand, store_locked

MASTER_PKI = "/etc/salt/pki/master"


class KeyKind(StrEnum):
    """The kinds of keys; the value is the name on the command line."""

    SALT = "salt"
    SSH = "ssh"
    MASTER = "master"

    @property
    def noun(self) -> str:
        """Its name in a sentence."""
        return {"salt": "Salt key", "ssh": "ssh host key", "master": "Salt master's key"}[self]


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done. ``before`` is None if there was no key yet. ``steps`` are lines for the
    person; commands among them are indented by four spaces."""

    node: str
    kind: KeyKind
    before: str | None
    after: str
    steps: tuple[str, ...]


def rotate(rack: Rack, node: Node, kind: KeyKind) -> Rotation:
    """Give ``node`` a new key. A node without a key gets its first one; there are no steps then,
    because no other computer knows an older key.

    Raises ConfigurationError when such a key does not belong to this rack, or the old key is
    damaged; then nothing was changed.
    """
    with _store(rack, node, kind) as folder:
        before = _fingerprint(folder, node, kind) if folder.is_there else None
        if before is not None and kind is KeyKind.SSH:
            folder.replace(lambda: new_host_keys(node.name))
        elif before is not None:
            folder.replace(lambda: new_salt_pair(_pair_name(kind)))
        after = _fingerprint(folder, node, kind)
    steps = steps_after(rack, node, kind) if before else ()
    return Rotation(node.name, kind, before, after, steps)


def undo(rack: Rack, node: Node, kind: KeyKind) -> Rotation:
    """Use the key again that the last rotation replaced, and remove the newer one.

    Raises ConfigurationError when no old key was kept or one of the two is damaged; then nothing
    was changed.
    """
    with _store(rack, node, kind) as folder:
        before = _fingerprint(folder, node, kind) if folder.is_there else None
        after = _fingerprint(folder.former(), node, kind)
        folder.restore()
    return Rotation(node.name, kind, before, after, steps_after(rack, node, kind))


def key_in_use(rack: Rack, node: Node, kind: KeyKind, *, undo: bool) -> str | None:
    """The fingerprint of the key that ``rotate`` or ``undo`` would replace; None if there is none
    yet. Makes and changes nothing; raises as those two do."""
    require_owner(rack, node, kind)
    folder = _folder(rack, node, kind)
    with store_at_hand(rack.keys):
        before = _fingerprint(folder, node, kind) if folder.is_there else None
        if undo:
            _fingerprint(folder.former(), node, kind)
    return before


def require_owner(rack: Rack, node: Node, kind: KeyKind) -> None:
    """Raise ConfigurationError for a master's key that is not ``node``'s or not this rack's."""
    master = rack.master
    if kind is not KeyKind.MASTER or (master.is_node and node.name == master.name):
        return
    raise ConfigurationError(
        f"{node.name} has no master's key: the Salt master is {master.name}",
        hint=f"name {master.name}"
        if master.is_node
        else f"replace it on {master.name} itself, then its master.pub beside rack.toml",
    )


def steps_after(rack: Rack, node: Node, kind: KeyKind) -> tuple[str, ...]:
    """What a person must do so that ``node`` joins with its new key; raises as ``rotate``."""
    require_owner(rack, node, kind)

    def line(*words: str) -> str:
        return f"    {command_line(*words, '--rack', rack.folder)}"

    def write(name: str) -> str:
        return line("write", "/dev/sdX", "--node", name)

    master = rack.master.name
    if kind is KeyKind.MASTER:
        return (
            f"Every card pins the master's key: a node refuses {master} until its card is new.",
            f"1. Write all of them, {master}'s included:",
            line("rack", "flash"),
            "2. Put them all back and switch the rack on.",
        )
    if kind is KeyKind.SSH:
        return (
            f"1. Write {node.name}'s card anew and switch it on again:",
            write(node.name),
            "2. On each computer that knows the old key:",
            f"    ssh-keygen -R {node.name}",
            line("rack", "known-hosts", node.name) + " >> ~/.ssh/known_hosts",
        )
    if node.name == master:
        return (
            f"1. Write {master}'s card anew, which has both halves on it, and switch it on again:",
            write(master),
        )
    # The key is deleted while the old card is out: a node that still ran would at once ask to join
    # with its old key, and a master looks at waiting keys before accepted ones.
    public = shlex.quote(os.fspath(_folder(rack, node, kind).path / "minion.pub"))
    root = f"root@{rack.master.address or master}"
    return (
        f"1. Switch {node.name} off and write its card anew:",
        write(node.name),
        f"2. Let the master {master} forget the old key and accept the new one:",
        f"    ssh {root} salt-key --yes --delete {node.name}",
        f"    scp {public} {root}:{MASTER_PKI}/minions/{node.name}",
        *(
            (f"   or write {master}'s card anew as well:", write(master))
            if rack.master.is_node
            else (
                "   or, where the master's own folder can be reached:",
                line("rack", "keys", "export", "--pki", MASTER_PKI, "--replace"),
            )
        ),
        f"3. Switch {node.name} on.",
    )


@contextmanager
def _store(rack: Rack, node: Node, kind: KeyKind) -> Iterator[KeyFolder]:
    """The folder of these keys, with the store locked."""
    require_owner(rack, node, kind)
    ensure_state(rack.folder)
    with store_locked(rack.keys, [node.name]):
        yield _folder(rack, node, kind)


def _folder(rack: Rack, node: Node, kind: KeyKind) -> KeyFolder:
    folders = folders_of(rack.keys, node.name)
    return {
        KeyKind.SALT: folders.salt,
        KeyKind.SSH: folders.ssh,
        KeyKind.MASTER: folders.master,
    }[kind]


def _fingerprint(folder: KeyFolder, node: Node, kind: KeyKind) -> str:
    """The fingerprint of the key in ``folder``; the key is made if there is none."""
    if kind is KeyKind.SSH:
        return host_keys(folder, node.name)[0].fingerprint
    return fingerprint(salt_pair(folder, _pair_name(kind)).public)


def _pair_name(kind: KeyKind) -> str:
    return "master" if kind is KeyKind.MASTER else "minion"

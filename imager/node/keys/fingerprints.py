"""The fingerprints of a node's keys, for people who compare them.

In: the rack's key store. Out: fingerprints as ssh-keygen(1) and salt-key(1) print them. Only public
keys are read and none is made, so no secret can be shown by mistake.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from imager.base.trusted_folder import TrustedFolder
from imager.config.rack import Rack
from imager.node.keys import salt as salt_keys
from imager.node.keys.ssh import blob_fingerprint
from imager.node.keys.store import LARGEST_KEY, folders_of


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of one node; empty where there is no such key yet. ``ssh`` is for its
    Ed25519 host key, ``minion`` for its Salt key."""

    ssh: str = ""
    minion: str = ""


def fingerprints_of(rack: Rack, node: str) -> Fingerprints:
    """The fingerprints of the keys that the key store has for ``node``."""
    own = folders_of(rack.keys, node)
    line = _read(own.ssh.folder, "ssh_host_ed25519_key.pub")
    pem = _read(own.salt.folder, "minion.pub")
    return Fingerprints(_of_line(line), salt_keys.fingerprint(pem) if pem else "")


def _of_line(line: bytes) -> str:
    """``SHA256:…`` of the key in an OpenSSH public line."""
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True) if len(words) > 1 else b""
    except binascii.Error:
        return ""
    return blob_fingerprint(blob) if blob else ""


def _read(folder: TrustedFolder, name: str) -> bytes:
    try:
        return folder.read(name, LARGEST_KEY)
    except FileNotFoundError:
        return b""

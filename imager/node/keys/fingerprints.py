"""The fingerprints of a node's keys, for people who compare them.

In: the rack's key store. Out: fingerprints as ssh-keygen(1) and salt-key(1) print them. Only public
keys are read and none is made, so no secret can be shown by mistake.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from imager.config.rack import Rack
from imager.node.keys import salt as salt_keys
from imager.node.keys.ssh import blob_fingerprint
from imager.node.keys.store import folders_of


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of one node; empty where there is no such key yet. ``ssh`` is that of its
    Ed25519 host key, ``minion`` that of its Salt key."""

    ssh: str = ""
    minion: str = ""


def fingerprints_of(rack: Rack, node: str) -> Fingerprints:
    """What the key store has of ``node``."""
    own = folders_of(rack.keys, node)
    line = _read(own.ssh.path / "ssh_host_ed25519_key.pub")
    pem = _read(own.salt.path / "minion.pub")
    return Fingerprints(_of_line(line), salt_keys.fingerprint(pem) if pem else "")


def _of_line(line: bytes) -> str:
    """``SHA256:…`` of the key in an OpenSSH public line."""
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True) if len(words) > 1 else b""
    except binascii.Error:
        return ""
    return blob_fingerprint(blob) if blob else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

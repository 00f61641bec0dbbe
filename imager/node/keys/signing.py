"""The rack's own Ed25519 key, with which it signs the stamp of every card.

In: a rack. Out: its key, from ``.picloud/keys/_rack/stamp/``, made on first use and kept like the
keys of the nodes. No node can be called ``_rack``: a host name has no underscore. The files are in
OpenSSH's format, so that ``ssh-keygen -lf stamp.pub`` prints the fingerprint we print.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from imager.config.folder import ensure_state
from imager.config.rack import Rack, state_folder
from imager.node.keys.ssh import blob_fingerprint
from imager.node.keys.store import LARGEST_KEY, KeyFile, KeyFolder, store_locked

_RACK, _STAMP = "_rack", "stamp"
_PRIVATE, _PUBLIC = "stamp", "stamp.pub"
_SSH = serialization.Encoding.OpenSSH


@dataclass(frozen=True, slots=True)
class RackKey:
    """The key of one rack; ``public`` is the 32 bytes of RFC 8032."""

    private: Ed25519PrivateKey
    public: bytes

    def __repr__(self) -> str:
        return f"RackKey({fingerprint(self.public)})"

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature of ``data``; the same every time."""
        return self.private.sign(data)


def rack_key(rack: Rack) -> RackKey:
    """The key of ``rack``, made on first use. Two runs at the same time get the same key.

    Raises ConfigurationError that names the file when the store is damaged.
    """
    ensure_state(rack.folder)
    folder = KeyFolder(rack.keys / _RACK / _STAMP)
    with store_locked(rack.keys, [_RACK]):
        files = folder.kept((_PRIVATE, _PUBLIC), lambda: _new_pair(rack.name))
    try:
        private = serialization.load_ssh_private_key(files[_PRIVATE], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise folder.damaged(_PRIVATE, "is not an OpenSSH private key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise folder.damaged(_PRIVATE, "is not an Ed25519 key")
    public = private.public_key().public_bytes_raw()
    if _public_bytes(files[_PUBLIC]) != public:
        raise folder.damaged(_PUBLIC, f"does not belong to {_PRIVATE}")
    return RackKey(private, public)


def known_public_key(rack_folder: Path) -> bytes | None:
    """The public key of the rack in ``rack_folder``, or None when it has none, or none that can be
    understood. Raises ConfigurationError for a link or a stranger's, HostStorage for one that may
    not be read.

    Makes no key, because looking at a card must not change a rack.
    """
    folder = state_folder(rack_folder) / "keys" / _RACK / _STAMP
    try:
        return _public_bytes(folder.read(_PUBLIC, LARGEST_KEY))
    except FileNotFoundError:
        return None


def fingerprint(public: bytes) -> str:
    """``SHA256:…`` as ``ssh-keygen -l`` prints it (RFC 8709, 4)."""
    kind = b"ssh-ed25519"
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, public))
    return blob_fingerprint(blob)


def _new_pair(rack: str) -> dict[str, KeyFile]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    line = key.public_key().public_bytes(_SSH, serialization.PublicFormat.OpenSSH)
    comment = f" cards of rack {rack}\n".encode()
    return {
        _PRIVATE: KeyFile(private, private=True),
        _PUBLIC: KeyFile(line + comment, private=False),
    }


def _public_bytes(line: bytes) -> bytes | None:
    try:
        key = serialization.load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None

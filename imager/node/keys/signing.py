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
from imager.config.rack import STATE, Rack
from imager.node.keys.ssh import blob_fingerprint
from imager.node.keys.store import KeyFile, KeyFolder, store_locked

_FOLDER = "_rack/stamp"
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
    """The key of ``rack``, made on first use; two runs at once get the same one.

    Raises ConfigurationError that names the file when the store is damaged.
    """
    ensure_state(rack.folder)
    folder = KeyFolder(rack.keys / _FOLDER)
    with store_locked(rack.keys):
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
    """The public key of the rack in ``rack_folder``, or None when it has none that can be read.

    Makes nothing: looking at a card must not give a rack a key.
    """
    try:
        return _public_bytes((rack_folder / STATE / "keys" / _FOLDER / _PUBLIC).read_bytes())
    except OSError:
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

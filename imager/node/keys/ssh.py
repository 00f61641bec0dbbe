"""The host keys of sshd, made on this computer so that its known_hosts can be complete before a
node is switched on, and so that a node needs no entropy to make them.

In: a folder of the key store. Out: the files for /etc/ssh, in OpenSSH's own format.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography import __version__ as VERSION
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from imager.node.keys.salt import is_whole
from imager.node.keys.store import KeyFile, KeyFolder

# The primality checks of a full load take 0.3 s a key. Debian 13 has cryptography 43, which makes
# them always.
_QUICKLY = {"unsafe_skip_rsa_key_validation": True} if int(VERSION.split(".")[0]) >= 45 else {}

_HostKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_MAKERS: Mapping[str, Callable[[], _HostKey]] = {
    "ssh_host_ed25519_key": ed25519.Ed25519PrivateKey.generate,
    "ssh_host_ecdsa_key": lambda: ec.generate_private_key(ec.SECP256R1()),
    # The default of ssh-keygen(1).
    "ssh_host_rsa_key": lambda: rsa.generate_private_key(65537, 3072),
}
"""The three kinds ``ssh-keygen -A`` makes: if all exist, sshd makes no
keys of its own at boot."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """One host key: ``name`` is the file's name in /etc/ssh, without ``.pub``."""

    name: str
    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"HostKey({self.name}, {self.public.decode(errors='replace').strip()})"

    @property
    def line(self) -> str:
        """Kind and key as they stand in a known_hosts file (sshd(8)), without the comment."""
        return b" ".join(self.public.split()[:2]).decode()

    @property
    def fingerprint(self) -> str:
        """As ssh shows it when it meets the key for the first time."""
        return blob_fingerprint(base64.b64decode(self.public.split()[1]))


def blob_fingerprint(blob: bytes) -> str:
    """``SHA256:…`` of a public key in SSH's wire form (RFC 4253, 6.6), as ``ssh-keygen -l``
    prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def host_keys(folder: KeyFolder, node: str) -> tuple[HostKey, ...]:
    """The host keys of ``node`` in ``folder``, made on first use.

    Call it with the store locked. Raises ConfigurationError when a file is missing, is no key,
    or a public half does not belong to its private half.
    """
    names = tuple(name for base in _MAKERS for name in (base, f"{base}.pub"))
    files = folder.kept(names, lambda: new_host_keys(node))
    for base in _MAKERS:
        try:
            key = serialization.load_ssh_private_key(files[base], password=None, **_QUICKLY)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise folder.damaged(base, "is not an OpenSSH private key") from None
        if isinstance(key, rsa.RSAPrivateKey) and not is_whole(key):
            raise folder.damaged(base, "is damaged: its numbers do not fit together")
        if _public_line(key.public_key()) != files[f"{base}.pub"].split(b" ")[:2]:
            raise folder.damaged(f"{base}.pub", f"does not belong to {base}")
    return tuple(HostKey(base, files[base], files[f"{base}.pub"]) for base in _MAKERS)


def known_host_lines(folder: KeyFolder) -> tuple[str, ...]:
    """Kind and key of each host key in ``folder``, as they stand in a known_hosts file (sshd(8));
    empty if there are none yet. Only the public halves are read.

    Raises ConfigurationError when one is missing or is no public key.
    """
    files = folder.at_hand(tuple(f"{base}.pub" for base in _MAKERS))
    return tuple(_known_line(folder, *file) for file in (files or {}).items())


def _known_line(folder: KeyFolder, name: str, line: bytes) -> str:
    try:
        return b" ".join(_public_line(serialization.load_ssh_public_key(line))).decode()
    except (ValueError, UnsupportedAlgorithm):
        raise folder.damaged(name, "is not an OpenSSH public key") from None


def new_host_keys(node: str) -> dict[str, KeyFile]:
    """The files of new host keys for ``node``, by their names."""
    files = {}
    for name, make in _MAKERS.items():
        key = make()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        line = b" ".join((*_public_line(key.public_key()), f"root@{node}\n".encode()))
        files[name] = KeyFile(private, private=True)
        files[f"{name}.pub"] = KeyFile(line, private=False)
    return files


def _public_line(key: serialization.SSHPublicKeyTypes) -> list[bytes]:
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return text.split(b" ")

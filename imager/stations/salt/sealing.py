"""Secrets on their way to a station are sealed: only the memory of that station can open them.

In: a secret, and the public key that the station told of itself. Out: bytes that may lie anywhere.
Salt encrypts a minion's pillar on the wire, but a master keeps each pillar that it compiled on its
disk (in /var/cache/salt/master, for ``minion_data_cache``). The station's private key lies in /run,
which is memory, and is made anew each time the computer starts.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_FOLDER = Path("/run/picloud-image")
_NAME = "station.key"
_KEY_BYTES = 32
_NONCE = bytes(12)
"""Each key that seals is used once, so the nonce need not differ."""


class NotSealed(ValueError):
    """The bytes are no secret that was sealed to this station."""


def seal(public: bytes, secret: bytes) -> bytes:
    """``secret`` for the owner of the 32 bytes ``public``; raises ValueError for no such key."""
    once = X25519PrivateKey.generate()
    own = once.public_key().public_bytes_raw()
    shared = once.exchange(X25519PublicKey.from_public_bytes(public))
    return own + _box(shared, own, public).encrypt(_NONCE, secret, None)


def unseal(private: X25519PrivateKey, sealed: bytes) -> bytes:
    """The secret; raises NotSealed."""
    once, box = sealed[:_KEY_BYTES], sealed[_KEY_BYTES:]
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(once))
        return _box(shared, once, public_of(private)).decrypt(_NONCE, box, None)
    except (InvalidTag, ValueError):
        raise NotSealed("it was sealed to another key, or altered") from None


def public_of(private: X25519PrivateKey) -> bytes:
    """The 32 bytes that others seal to."""
    return private.public_key().public_bytes_raw()


def own_key(folder: Path = _FOLDER) -> X25519PrivateKey:
    """The key of this station, which is made when it is not there. ``folder`` lies in memory and
    belongs to root. Two that make it at once get the same one."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / _NAME
    with suppress(FileNotFoundError):
        return _read(path)
    fresh = folder / f".{_NAME}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, X25519PrivateKey.generate().private_bytes_raw())
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
    finally:
        os.close(descriptor)
        fresh.unlink()
    return _read(path)


def _read(path: Path) -> X25519PrivateKey:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return X25519PrivateKey.from_private_bytes(os.read(descriptor, _KEY_BYTES))
    finally:
        os.close(descriptor)


def _box(shared: bytes, once: bytes, public: bytes) -> ChaCha20Poly1305:
    kdf = HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"picloud-image station" + once + public)
    return ChaCha20Poly1305(kdf.derive(shared))

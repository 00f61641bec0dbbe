"""Salt's key pairs, as Salt itself writes them, and the fingerprint a minion compares.

In: nothing, or a pair of files. Out: a pair. RSA 2048 is Salt's default, and with it a Pi 2 that is
the master of a rack still answers quickly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from imager.node.keys.store import KeyFile, KeyFolder

KEY_BITS = 2048
PUBLIC_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class SaltPair:
    """One RSA pair: PKCS#1 private ("BEGIN RSA PRIVATE KEY") and SubjectPublicKeyInfo public
    ("BEGIN PUBLIC KEY"), LF line ends, exactly one at the end (salt/crypt.py, gen_keys)."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"SaltPair({fingerprint(self.public)})"


def salt_pair(folder: KeyFolder, name: str) -> SaltPair:
    """The pair ``name``.pem and ``name``.pub in ``folder``, made on first use.

    Call it with the store locked. Raises ConfigurationError when one half is missing, is no such
    key, or does not belong to the other: a minion that has only one half, or two that differ,
    never gets an answer, and Salt does not say why.
    """
    private, public = f"{name}.pem", f"{name}.pub"
    files = folder.kept((private, public), lambda: new_salt_pair(name))
    pair = SaltPair(files[private], files[public])
    try:
        # The primality checks of a full load take 30 ms a key, and the master's card needs all.
        key = serialization.load_pem_private_key(
            pair.private, password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise folder.damaged(private, "is not a PEM private key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise folder.damaged(private, "is not an RSA key")
    if not is_whole(key):
        raise folder.damaged(private, "is damaged: its numbers do not fit together")
    if _public_pem(key) != clean(pair.public):
        raise folder.damaged(public, f"does not belong to {private}")
    return SaltPair(clean(pair.private), clean(pair.public))


def fingerprint(public_pem: bytes) -> str:
    """The value of ``master_finger`` for this key: SHA-256 over the lines between BEGIN and END
    with their line ends, in pairs of hex digits with colons (salt/utils/crypt.py, pem_finger of
    a path). ``salt-key -F`` of some releases hashes the whole text and prints another value, with
    which every minion would exit, so it is never asked.
    """
    lines = [line for line in clean(public_pem).splitlines(keepends=True) if line.strip()]
    digest = hashlib.sha256(b"".join(lines[1:-1])).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def is_whole(key: rsa.RSAPrivateKey) -> bool:
    """Whether the numbers of ``key`` fit together (RFC 8017, section 3.2). A test signature would
    not show that the file was damaged, because OpenSSL copes with one wrong number."""
    numbers = key.private_numbers()
    p, q, d = numbers.p, numbers.q, numbers.d
    e, n = numbers.public_numbers.e, numbers.public_numbers.n
    return (
        min(p, q) > 1
        and p * q == n
        and e * d % (p - 1) == e * d % (q - 1) == 1
        and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
        and numbers.iqmp * q % p == 1
    )


def new_salt_pair(name: str) -> dict[str, KeyFile]:
    """The files of a new pair ``name``, by their names."""
    key = rsa.generate_private_key(PUBLIC_EXPONENT, KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return {
        f"{name}.pem": KeyFile(pem, private=True),
        f"{name}.pub": KeyFile(_public_pem(key), private=False),
    }


def _public_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def clean(pem: bytes) -> bytes:
    """The PEM text with LF line ends and exactly one at its end: older masters and minions
    compare keys as raw text (salt issue 68493)."""
    return b"\n".join(pem.strip().splitlines()) + b"\n"

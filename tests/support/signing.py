"""Throwaway OpenPGP keys and detached signatures, made on the spot; no key is ever kept.

pysequoia (a dependency of the program itself) signs, so no other tool is needed. What it
refuses to make (weak hashes, signatures over text, expired keys) GnuPG makes for the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pysequoia import SignatureMode, Tsk, sign, sign_file


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair: ``certificate`` is the armoured public part, ``fingerprint`` upper case."""

    certificate: bytes
    secret: Tsk
    fingerprint: str


def make_key(user_id: str = "picloud-image stand-in (throwaway) <nobody@localhost>") -> SigningKey:
    """A new key; its signatures are made by a subkey, as modern keys do."""
    secret = Tsk.generate(user_id)
    certificate = secret.extract_certificate()
    return SigningKey(str(certificate).encode(), secret, certificate.fingerprint.upper())


def revoked(key: SigningKey) -> bytes:
    """Its certificate after its owner said that it is not to be trusted any more."""
    certificate = key.secret.extract_certificate()
    return bytes(certificate) + bytes(certificate.revoke(key.secret.certifier()))


def sign_detached(key: SigningKey, data: bytes, *, armor: bool = False) -> bytes:
    """A detached signature over ``data``."""
    return bytes(sign(key.secret.signer(), data, mode=SignatureMode.DETACHED, armor=armor))


def sign_file_detached(key: SigningKey, file: Path, signature: Path) -> None:
    """Write a detached binary signature over ``file``, however large, to ``signature``."""
    sign_file(
        key.secret.signer(), str(file), str(signature), mode=SignatureMode.DETACHED, armor=False
    )


class GnuPG:
    """A GnuPG home of its own, for what pysequoia will not make."""

    def __init__(self, home: str) -> None:
        self.home = home

    def __call__(self, *words: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--yes", "--quiet", "--pinentry-mode",
             "loopback", "--passphrase", "", *words],
            input=stdin, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout


@contextmanager
def gnupg() -> Iterator[GnuPG]:
    """A GnuPG home that is gone afterwards, its agent too.

    In /tmp and not in pytest's folder: the agent's socket has a path of at most 107 bytes.
    """
    home = tempfile.mkdtemp(prefix="picloud-gpg-", dir="/tmp")
    try:
        yield GnuPG(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)

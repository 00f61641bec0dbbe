"""Is this file what the pinned key signed? The library Sequoia decides; here it is put in words.

In: a file, its detached signature, the pinned certificate. Out: the proof, or NotAuthentic.
pysequoia gives one answer for every failure ("no valid signatures found"). So what can be seen
without it is checked first and named: which key, which hash, what kind of signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, PacketPile, SignatureType, Tag

from imager.base.errors import NotAuthentic
from imager.base.run import running
from imager.release.signature_packets import signature_packets

_STRONG_HASHES = (
    HashAlgorithm.SHA256,
    HashAlgorithm.SHA384,
    HashAlgorithm.SHA512,
    HashAlgorithm.SHA3_256,
    HashAlgorithm.SHA3_512,
)


def parse_certificate(data: bytes, fingerprint: str) -> Cert | None:
    """The certificate in ``data``, armoured or binary, whose primary key is ``fingerprint``.

    ``data`` may be a whole keyring; None when it holds no such key or no key at all. Copies of
    the same certificate are merged, so that a revocation in one of them counts.
    """
    try:
        found = Cert.split_bytes(data)
    except RuntimeError:
        return None
    return merged(cert for cert in found if cert.fingerprint.upper() == fingerprint)


def merged(certificates: Iterable[Cert]) -> Cert | None:
    """``certificates``, copies of the same one, put together; None when there are none.

    keys.openpgp.org leaves out user ids that nobody confirmed. An old key says only in its user id
    that it may sign; the copy of another keyserver has that.
    """
    whole: Cert | None = None
    for certificate in certificates:
        whole = certificate if whole is None else whole.merge(certificate)
    return whole


def fingerprints_in(data: bytes) -> tuple[str, ...]:
    """The primary fingerprints of every certificate in ``data``, for messages."""
    try:
        return tuple(cert.fingerprint.upper() for cert in Cert.split_bytes(data))
    except RuntimeError:
        return ()


def parse_signatures(data: bytes, certificate: Cert, name: str) -> tuple[Sig, ...]:
    """The signatures in ``data``, armoured or binary, that ``certificate`` may have made.

    ``name`` is the file they came in. This needs only a few hundred bytes, so it is done before the
    long download. Raises NotAuthentic when there is none: no OpenPGP signature at all, one by
    another key, one over text (which does not cover line endings), or one with a weak hash.
    """
    try:
        found = [Sig.from_bytes(packet) for packet in signature_packets(data)]
    except (RuntimeError, ValueError):
        raise NotAuthentic(
            f"{name} is not an OpenPGP signature: it begins {data[:16]!r}",
            hint="the server gave something else, a sign-in page perhaps; try another network",
        ) from None
    own = [signature for signature in found if _may_be_by(signature, certificate)]
    if not own:
        raise NotAuthentic(
            f"{name} was made by the key {_issuer(found[0])}, not by the pinned one",
            hint=f"the pinned key is {certificate.fingerprint.upper()}; do not use what it signed",
        )
    whole = [signature for signature in own if _is_over_bytes(signature)]
    if not whole:
        raise NotAuthentic(
            f"{name} is a signature over something else than a file's bytes",
            hint="whoever signs this release must sign it again with gpg --detach-sign",
        )
    strong = [signature for signature in whole if _hash_of(signature) in _STRONG_HASHES]
    if not strong:
        hash_name = repr(_hash_of(whole[0])).rpartition(".")[2]
        raise NotAuthentic(
            f"{name} rests on the weak or unknown hash {hash_name}, which may be forged",
            hint="whoever signs this release must sign it again with SHA-256 or better",
        )
    return tuple(strong)


def verify_detached(
    tarball: Path, signatures: Iterable[Sig], certificate: Cert, name: str | None = None
) -> Sig:
    """The one of ``signatures`` that ``certificate`` made over the bytes of ``tarball``.

    Sequoia's standard policy decides which of its keys may sign: a key must not have expired when
    it signed, and a revoked one never counts. Raises NotAuthentic, which calls the file ``name``,
    where that is not the name it has here.
    """
    for signature in signatures:
        if _made(tarball, signature, certificate):
            return signature
    called, key = name or tarball.name, certificate.fingerprint.upper()
    if certificate.is_revoked:
        raise NotAuthentic(
            f"{called} cannot be proven: the key {key} is revoked",
            hint="its owner said that it is not to be trusted any more; look where the release is "
            "published which key signs it now",
        )
    raise NotAuthentic(
        f"{called} is not what the key {key} signed",
        hint="a byte was altered on the way or on the mirror, or the signature is an older one",
    )


def signed_at(data: bytes) -> datetime | None:
    """When the signatures in ``data``, which were proven, were made: the earliest time that one of
    them gives. None where none gives a time."""
    made = [Sig.from_bytes(packet).created for packet in signature_packets(data)]
    return min((each for each in made if each is not None), default=None)


def _made(tarball: Path, signature: Sig, certificate: Cert) -> bool:
    # Given a file's name, Sequoia maps the whole file into memory: 700 MiB, and a disk that fails
    # meanwhile would kill this program (SIGBUS). From a pipe it reads small pieces, as fast, with
    # 17 MiB at most (pysequoia 0.1.35). No other thread runs while it works (it holds the
    # interpreter's lock), so another process must write to the pipe.
    with running(["cat", tarball]) as child:
        if child.stdout is None:
            raise AssertionError("running() gives every child a pipe")
        try:
            result = verify(
                file=f"/proc/self/fd/{child.stdout.fileno()}",
                store=lambda _ids: [certificate],
                signature=signature,
            )
        except RuntimeError:
            return False
    return any(valid.certificate == certificate.fingerprint for valid in result.valid_sigs)


def _may_be_by(signature: Sig, certificate: Cert) -> bool:
    """Whether the signature names a key of ``certificate`` as its maker, or no key at all."""
    packets = PacketPile.from_bytes(bytes(certificate))
    keys = {
        packet.fingerprint for packet in packets if packet.tag in (Tag.PublicKey, Tag.PublicSubkey)
    }
    if signature.issuer_fingerprint is not None:
        return signature.issuer_fingerprint in keys
    if signature.issuer_key_id is None:
        return True
    # A version 4 key id is the end of the fingerprint (RFC 9580, section 5.5.4.2).
    return any(key is not None and key.endswith(signature.issuer_key_id) for key in keys)


def _issuer(signature: Sig) -> str:
    return (signature.issuer_fingerprint or signature.issuer_key_id or "of unknown name").upper()


# pysequoia raises RuntimeError for a number that no standard gave a name.


def _is_over_bytes(signature: Sig) -> bool:
    try:
        return signature.signature_type == SignatureType.Binary
    except RuntimeError:
        return False


def _hash_of(signature: Sig) -> HashAlgorithm | None:
    try:
        return signature.hash_algorithm
    except RuntimeError:
        return None

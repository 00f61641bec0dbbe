"""The public keys that prove what is carried.

In: the fingerprints that the rack pins, and what a carried file brings. Out: their certificates.
A key may come from anywhere, since nobody can forge one with a given fingerprint. A module of its
own because importing what speaks to the network takes 0.1 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pysequoia import Cert

from imager.base.errors import NetworkError
from imager.packages.fetch.network import signing_key
from imager.release.openpgp import parse_certificate
from imager.release.terms import FetchTerms, KeySources


def keys_of(
    fingerprints: Iterable[str],
    terms: FetchTerms,
    sources: KeySources,
    carried: Mapping[str, bytes] | None = None,
) -> dict[str, Cert]:
    """The certificate of each fingerprint. What the file itself has carried is the last source to
    be asked: another one may know that the key was revoked since.

    Raises as ``find_key``.
    """
    brought = carried or {}
    return {
        fingerprint: _key(fingerprint, terms, sources, brought.get(fingerprint, b""))
        for fingerprint in sorted(set(fingerprints))
    }


def _key(fingerprint: str, terms: FetchTerms, sources: KeySources, carried: bytes) -> Cert:
    try:
        return signing_key(fingerprint, terms, sources)
    except NetworkError:
        certificate = parse_certificate(carried, fingerprint)
        if certificate is None:
            raise
    terms.progress.note(f"the public key {fingerprint} came from the file itself")
    terms.cache.made("keys").write(f"{fingerprint}.asc", str(certificate).encode())
    return certificate

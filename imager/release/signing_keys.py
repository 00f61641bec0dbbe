"""Finds the public key with a given fingerprint. Any source will do: nobody can forge that key.

In: a fingerprint. Out: the certificate of exactly that primary key, kept in the cache for next
time. The sources, in this order: a file that the person names, the cache, this computer's pacman
keyrings, and keyservers over HTTPS. What the cache has is part of it in any case: a revocation that
was seen once is not forgotten for an older copy of the key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from pysequoia import Cert

from imager.base.below import read_named
from imager.base.cache import Cache
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, NetworkError, NotAuthentic
from imager.base.progress import Progress
from imager.base.units import MiB
from imager.release.openpgp import fingerprints_in, merged, parse_certificate
from imager.release.terms import KeySources
from imager.release.transfer.web import NotThere, Web

_KEY_BYTES = MiB


def find_key(
    fingerprint: str,
    cache: Cache,
    web: Web,
    progress: Progress,
    sources: KeySources,
) -> Cert:
    """The certificate whose primary key is ``fingerprint``, from the first source that has it,
    with what the cache knows of it.

    Raises ConfigurationError when ``sources.file`` cannot be read or holds no key, NotAuthentic
    when it holds another one, and NetworkError when no source has the key.
    """
    kept = f"{fingerprint}.asc"
    known = _from_cache(cache, kept, fingerprint)
    if sources.file is not None:
        named = _from_file(sources.file, fingerprint)
        certificate = named if known is None else known.merge(named)
    elif known is not None:
        return known
    else:
        local = _from_keyrings(sources.keyrings, fingerprint)
        certificate = local or _from_keyservers(sources.keyservers, fingerprint, web, progress)
        where = "a pacman keyring of this computer" if local else "a keyserver"
        progress.note(f"the public key {fingerprint} came from {where}")
    cache.made("keys").write(kept, str(certificate).encode())
    return certificate


def _from_cache(cache: Cache, name: str, fingerprint: str) -> Cert | None:
    try:
        return parse_certificate(cache.looked_at("keys").read(name, _KEY_BYTES), fingerprint)
    except FileNotFoundError:
        return None


def key_file(file: Path) -> bytes:
    """What ``--signing-key`` names; ConfigurationError when it is no file of a key's size."""
    try:
        return read_named(file, _KEY_BYTES)
    except PermissionError:
        with host_storage(file):
            raise
    except OSError as error:
        raise ConfigurationError(
            f"--signing-key {file}: {error.strerror}", hint="name a file with an OpenPGP public key"
        ) from error


def _from_file(file: Path, fingerprint: str) -> Cert:
    data = key_file(file)
    certificate = parse_certificate(data, fingerprint)
    if certificate is not None:
        return certificate
    held = fingerprints_in(data)
    if not held:
        raise ConfigurationError(
            f"--signing-key {file}: no OpenPGP public key in it",
            hint=f"export it with gpg --armor --export {fingerprint}",
        )
    raise NotAuthentic(
        f"--signing-key {file}: holds {', '.join(held)}, not the pinned key",
        hint=f"the release is pinned to {fingerprint}",
    )


def _from_keyrings(keyrings: Iterable[Path], fingerprint: str) -> Cert | None:
    for keyring in keyrings:
        try:
            certificate = parse_certificate(keyring.read_bytes(), fingerprint)
        except OSError:
            continue  # not there, or not readable: the next source is just as good
        if certificate is not None:
            return certificate
    return None


def _from_keyservers(
    keyservers: Collection[str], fingerprint: str, web: Web, progress: Progress
) -> Cert:
    """The key with all that the keyservers know of it: only one of them may know that it was
    revoked, so it is said which was not heard."""
    found: list[Cert] = []
    failures: list[str] = []
    unheard: list[str] = []
    if not keyservers:
        raise NetworkError(
            f"the public key {fingerprint} is not here, and no keyserver was to be asked",
            hint="run it once without --offline, or name the key's file with --signing-key FILE",
        )
    for template in keyservers:
        url = template.format(fingerprint=fingerprint)
        try:
            data = web.small_file(url, _KEY_BYTES)
        except NetworkError as error:
            failures.append(error.what)
            if not isinstance(error, NotThere):
                unheard.append(error.what)
            continue
        certificate = parse_certificate(data, fingerprint)
        if certificate is None:
            failures.append(f"{url}: gave something else than the key asked for")
        else:
            found.append(certificate)
    whole = merged(found)
    if whole is None:
        raise NetworkError(
            f"no keyserver gave the public key {fingerprint}",
            hint="get the key's file some other way and name it with --signing-key FILE",
            details=failures,
        )
    for what in unheard:
        progress.warn(f"{what}; if the key was revoked, only that keyserver may know it")
    return whole

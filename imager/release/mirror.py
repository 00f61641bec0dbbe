"""A tarball, its signature and its checksum, fetched from one mirror and proven together.

In: where a mirror has a tarball, and the pinned key. Out: a ProvenSet, still in the partial folder.
The signature is fetched and checked first, before the long download. The ``.md5`` proves nothing,
since anybody could change it. It only tells what to do when the signature does not fit: a damaged
transfer is tried once more, and files that do not belong together mean another mirror.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.durable import host_storage
from imager.base.errors import NetworkError, NotAuthentic
from imager.base.trusted_folder import kept_file
from imager.base.units import KiB
from imager.release.archive import SIGNATURE_BYTES, sha256_of
from imager.release.openpgp import parse_signatures, verify_detached
from imager.release.request import Wanted
from imager.release.transfer.download import Partial, TarballLocation, Version, download
from imager.release.transfer.web import NotThere, Web

_MD5_BYTES = 4 * KiB
_MD5 = re.compile(rb"\s*([0-9a-fA-F]{32})(\s|\Z)")


@dataclass(frozen=True, slots=True)
class ProvenSet:
    """A tarball whose bytes the pinned key signed, with that signature alone and their hash."""

    source_url: str
    version: Version
    tarball: Path
    sha256: str
    size_bytes: int
    signature: bytes


class _DamagedOnTheWay(NotAuthentic):
    """Neither the signature nor the mirror's checksum is right for the bytes that arrived."""


def fetch_set(
    web: Web,
    place: TarballLocation,
    key: Cert,
    partial: Partial,
    run: Wanted,
) -> ProvenSet:
    """Fetch and prove the files at ``place``; a transfer that was damaged is tried once more.

    A tarball that is not authentic is kept beside the
    partial folder under a name ending in ``.rejected``. Raises NetworkError, NotAuthentic,
    OlderRelease and HostStorage.
    """
    try:
        return _fetch_once(web, place, key, partial, run)
    except _DamagedOnTheWay as error:
        run.terms.progress.note(f"{error.what}, nor what its .md5 says; fetching it once more")
    return _fetch_once(web, place, key, partial, run)


def parse_md5(data: bytes) -> str | None:
    """The checksum in a file as md5sum(1) writes it, in lower case; None when there is none."""
    found = _MD5.match(data)
    return found[1].decode().lower() if found else None


def _fetch_once(
    web: Web, place: TarballLocation, key: Cert, partial: Partial, run: Wanted
) -> ProvenSet:
    name, progress = run.spec.name, run.terms.progress
    signature = signature_beside(
        web, place, "a release is used only with its .sig beside it; try another mirror"
    )
    candidates = run.not_older(parse_signatures(signature, key, f"{place.url}.sig"), place.url)
    md5 = _md5(web, place)
    download(web, place, partial, f"fetch {name}", progress)
    size = partial.size_bytes()
    with progress.phase(f"prove {name}", size) as phase:
        sha256 = sha256_of(partial.path, phase)
        try:
            proof = verify_detached(partial.path, candidates, key, place.url)
        except NotAuthentic as error:
            broken = md5 is not None and md5 != _md5_of(partial.path)
            rejected = _set_aside(partial, place, signature)
            raise (_DamagedOnTheWay if broken else NotAuthentic)(
                error.what,
                hint=f"{error.hint}; nothing was unpacked, the file is kept as {rejected}",
            ) from error
    # The mirror may have got a new file since it was located.
    version = partial.version() or place.version
    # What else came beside it proves nothing, and may claim another time.
    return ProvenSet(place.url, version, partial.path, sha256, size, bytes(proof))


def signature_beside(web: Web, place: TarballLocation, hint: str) -> bytes:
    """The detached signature beside the file at ``place``; NotAuthentic with ``hint`` when there
    is none, NetworkError."""
    url = place.url + ".sig"
    try:
        return web.patiently(lambda: web.small_file(url, SIGNATURE_BYTES, follow=place.follow))
    except NotThere as error:
        raise NotAuthentic(
            f"{place.url} comes without a signature: {error.what}", hint=hint
        ) from error


def _md5(web: Web, place: TarballLocation) -> str | None:
    try:
        return parse_md5(web.small_file(place.url + ".md5", _MD5_BYTES, follow=place.follow))
    except NetworkError:
        return None  # it is not needed for the proof


def _md5_of(path: Path) -> str:
    with host_storage(path), kept_file(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _set_aside(partial: Partial, place: TarballLocation, signature: bytes) -> Path:
    """Rename the bad tarball and its signature; the last rejected one of a name is kept."""
    file_name = place.url.rpartition("/")[2]
    rejected = partial.reject(file_name)
    partial.folder.parent.write(f"{file_name}.sig.rejected", signature)
    return rejected

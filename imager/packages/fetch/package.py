"""One package, fetched from the first mirror that has it and proven.

In: what it must be, and where it may lie. Out: a VerifiedPacman in the archive. It is proven when
the pinned key signed its bytes, when it says itself that it is the package and version that was
asked for (a mirror could give another one of the same key), and when it has the hash that rack.lock
pins. What a database says of it is no proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.errors import NetworkError, NotAuthentic, PicloudError
from imager.base.progress import Progress, Quiet
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import kept_bytes, kept_file
from imager.base.units import GiB
from imager.packages.fetch.archive import PackageArchive
from imager.packages.metadata import read_pkginfo
from imager.packages.verified import VerifiedPacman
from imager.release.archive import SIGNATURE_BYTES, sha256_of
from imager.release.lock import PacmanPin
from imager.release.mirror import signature_beside
from imager.release.openpgp import parse_signatures, verify_detached
from imager.release.tarball import UNREADABLE
from imager.release.transfer.download import Partial, download, locate
from imager.release.transfer.web import NotThere, TransferLimits, Web

LARGEST_PACKAGE = 2 * GiB


@dataclass(frozen=True, slots=True)
class Expected:
    """Which package is meant. ``sha256`` is what rack.lock pins, or, where not ``pinned``, what a
    database says."""

    name: str
    version: str
    arch: str
    file: str
    sha256: str
    size_bytes: int
    pinned: bool

    @property
    def called(self) -> str:
        return f"{self.name} {self.version}"


class MirrorMoved(NetworkError):
    """A mirror's database speaks of files that the mirror does not have, or has otherwise."""


def package_limits(limits: TransferLimits | None) -> TransferLimits:
    """``limits`` for files that are packages."""
    given = limits or TransferLimits()
    return replace(given, tarball_bytes=min(given.tarball_bytes, LARGEST_PACKAGE))


def fetch_package(
    expected: Expected,
    urls: Sequence[str],
    web: Web,
    key: Cert,
    cache: Cache,
    progress: Progress,
) -> tuple[PacmanPin, VerifiedPacman]:
    """The package ``expected`` from the first of ``urls`` that has it.

    Raises NotAuthentic where one of them has something else and none has the right one, MirrorMoved
    for a package that is not pinned and is not there, NetworkError, HostStorage.
    """
    failures: list[PicloudError] = []
    web.forget_failures()
    for url in dict.fromkeys(urls):
        try:
            return _from(url, expected, web, key, cache, progress)
        except (NetworkError, NotAuthentic) as error:
            failures.append(error)
            if url != urls[-1]:
                progress.note(f"{error.what}; asking the next mirror")
    raise _worst(expected, failures)


def prove(package: VerifiedPacman, key: Cert) -> None:
    """Read an archived package anew: its hash, its signature, and what it says of itself.

    Raises NotAuthentic that names the file.
    """
    signatures = parse_signatures(
        kept_bytes(package.signature, SIGNATURE_BYTES), key, str(package.signature)
    )
    with Quiet().phase("") as phase:
        digest = sha256_of(package.path, phase)
    if digest != package.sha256:
        raise NotAuthentic(
            f"{package.path} was altered since it was archived: its sha256 is {digest[:12]}…",
            hint="set it aside and fetch it anew",
        )
    verify_detached(package.path, signatures, key)
    require_itself(package.path, package.name, package.version, package.arch, str(package.path))


def _from(
    url: str, expected: Expected, web: Web, key: Cert, cache: Cache, progress: Progress
) -> tuple[PacmanPin, VerifiedPacman]:
    try:
        place = web.patiently(lambda: locate(web, url))
        signature = signature_beside(
            web, place, "a package is used only with its .sig beside it; try again later"
        )
    except NotThere as error:
        if expected.pinned:
            raise
        raise MirrorMoved(error.what, hint=_LATER) from error
    candidates = parse_signatures(signature, key, f"{place.url}.sig")
    size = place.version.size_bytes
    if size not in (None, expected.size_bytes):
        raise _otherwise(place.url, expected, f"{size} bytes instead of {expected.size_bytes}")
    tag = hashlib.sha256(url.encode()).hexdigest()[:8]
    partial = Partial(cache.looked_at("partial") / f"{expected.name}-{tag}")
    download(web, place, partial, f"fetch {expected.called}", progress)
    with Quiet().phase("") as phase:
        digest = sha256_of(partial.path, phase)
    try:
        proof = verify_detached(partial.path, candidates, key, place.url)
    except NotAuthentic as error:
        rejected = partial.reject(expected.file)
        raise NotAuthentic(
            error.what,
            hint=f"{error.hint}; the file is kept as {rejected}",
        ) from error
    if expected.pinned and digest != expected.sha256:
        partial.discard()
        raise _otherwise(place.url, expected, f"sha256 {digest[:12]}…")
    try:
        require_itself(partial.path, expected.name, expected.version, expected.arch, place.url)
    except NotAuthentic:
        partial.discard()
        raise
    pin = PacmanPin(
        version=expected.version,
        arch=expected.arch,
        file=expected.file,
        sha256=digest,
        size_bytes=partial.size_bytes(),
        signer=key.fingerprint.upper(),
        url=place.url,
        fetched_at=timestamp(),
    )
    package = PackageArchive(cache).publish(expected.name, pin, partial.path, bytes(proof))
    partial.discard()
    return pin, package


_LATER = "the mirror is being updated; run the same command again later"


def _otherwise(url: str, expected: Expected, found: str) -> PicloudError:
    if not expected.pinned:
        return MirrorMoved(f"{url} is not what its database says: {found}", hint=_LATER)
    return NotAuthentic(
        f"{url} is not the {expected.called} that rack.lock pins "
        f"({expected.sha256[:12]}…): {found}",
        hint=f"to use what is published now, run picloud-image lock --update {expected.name}"
        " (without a name, all may move)",
    )


def require_itself(file: Path, name: str, version: str, arch: str, place: str) -> None:
    """Raise NotAuthentic unless the package ``file`` says that it is the one that is meant."""
    try:
        with kept_file(file) as opened:
            said = read_pkginfo(opened)
        found = tuple(said.get(key, [""])[0] for key in ("pkgname", "pkgver", "arch"))
    except (*UNREADABLE, ValueError) as error:
        raise NotAuthentic(
            f"{place} is signed and is no package: {error or 'it ends early'}",
            hint="tell whoever publishes it; try again later",
        ) from error
    if found != (name, version, arch):
        raise NotAuthentic(
            f"{place} is {' '.join(found)}, and should be {name} {version} {arch}",
            hint="this mirror gives packages under wrong names; choose another one",
        )


def _worst(expected: Expected, failures: Sequence[PicloudError]) -> PicloudError:
    """The error to end with: one about authenticity counts more than a mirror that is down."""
    gone = expected.pinned and all(isinstance(error, NotThere) for error in failures)
    if len(failures) == 1 and not gone:
        return failures[0]
    forged = next((error for error in failures if isinstance(error, NotAuthentic)), None)
    details = [error.what for error in failures]
    if forged is not None:
        return NotAuthentic(forged.what, hint=forged.hint, details=details)
    if all(isinstance(error, MirrorMoved) for error in failures):
        return MirrorMoved(failures[0].what, hint=failures[0].hint, details=details)
    if gone:
        return NetworkError(
            f"no mirror has {expected.called} any more, which rack.lock pins",
            hint="take it from a computer whose archive has it (picloud-image archive export), or "
            f"run picloud-image lock --update {expected.name} (without a name, all may move)",
            details=details,
        )
    return NetworkError(
        f"none of {len(failures)} mirrors gave {expected.called}",
        hint="check the network, then run it again",
        details=details,
    )

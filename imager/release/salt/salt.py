"""From a version of Salt to a VerifiedSalt: found in the archive, or fetched from PyPI by pip.

In: the version in rack.toml and the rack's lock. Out: a VerifiedSalt in the archive. Files on PyPI
have no signature, so the first fetch has to trust the connection (TLS); from then on rack.lock
says which bytes are right. For what is in the archive the network is not used, but what came there
otherwise than by pip is taken only by the hash that rack.lock pins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import host_storage
from imager.base.errors import NetworkError, NotAuthentic
from imager.base.progress import Quiet, followed
from imager.base.timestamps import timestamp
from imager.base.trusted_folder import kept_file
from imager.release.content_store import placed, set_aside
from imager.release.lock import PackagePin, RackLock
from imager.release.salt.fetched import fetched_at, record_fetched
from imager.release.salt.pip import (
    LARGEST_FILE,
    FileTooLarge,
    downloaded_bytes,
    fetch_source,
    fetch_wheel,
)
from imager.release.terms import FetchTerms
from imager.release.verified import VerifiedPackage, VerifiedSalt

SALT = "salt"
WHEELS = ("looseversion",)
"""Small Python packages that Salt always imports and that many distributions do not have."""


def fetch_salt(version: str, lock: RackLock, terms: FetchTerms) -> VerifiedSalt:
    """Salt ``version`` as this rack uses it, and what goes on the card beside it.

    With a pin for this version in ``lock`` it is exactly the pinned bytes. Without one it is what
    pip brought before, else what PyPI publishes, which then becomes the pin.

    Raises NetworkError, ConfigurationError for a version PyPI does not have, NotAuthentic when
    PyPI gives other bytes than those pinned, HostStorage, MissingTool without pip.
    """
    run = _SaltFetch(lock, terms)
    source, *wheels = (run.package(name, wanted) for name, wanted in _packages(version))
    return VerifiedSalt(source, tuple(wheels))


def pinned_salt(version: str, lock: RackLock) -> PackagePin | None:
    """The pin in ``lock`` for Salt ``version``; None when there is none."""
    return _pin_of(lock, SALT, version)


def salt_at_hand(version: str | None, cache: Cache, lock: RackLock) -> VerifiedSalt | None:
    """The Salt ``fetch_salt`` would give, if that needs no fetching; nothing is pinned or said.

    None where ``version`` is None. Raises NetworkError where it would have to be fetched.
    """
    if version is None:
        return None
    require_pinned(version, lock)
    return fetch_salt(version, lock, FetchTerms(cache, Quiet(), offline=True))


def require_pinned(version: str, lock: RackLock) -> None:
    """Raise NetworkError unless ``lock`` pins Salt ``version`` and what goes with it."""
    for name, wanted in _packages(version):
        if _pin_of(lock, name, wanted) is None:
            raise NetworkError(f"{SALT} {version} is not pinned", hint="run picloud-image fetch")


def archived_salt(version: str, cache: Cache, lock: RackLock) -> VerifiedPackage | None:
    """The source release of Salt that ``fetch_salt`` would use without the network; only its name
    and size are checked. None when it would have to be fetched."""
    pin = _pin_of(lock, SALT, version)
    return next(_archived(cache, SALT, version, _sha256_of(pin)), None)


def salt_of(digests: Sequence[str], cache: Cache) -> VerifiedSalt | None:
    """The Salt of these archived files, by their SHA-256 (hex), its source release first; every
    byte is read. None where one is missing or altered."""
    if len(digests) != 1 + len(WHEELS):
        return None
    found = []
    for name, digest in zip((SALT, *WHEELS), digests, strict=True):
        package = next(_archived(cache, name, None, digest), None)
        if package is None or not _is_unaltered(package):
            return None
        found.append(package)
    return VerifiedSalt(found[0], tuple(found[1:]))


def archived_package(name: str, cache: Cache, pin: PackagePin) -> VerifiedPackage | None:
    """The package ``name`` that ``pin`` means, if it is archived; its bytes are not read."""
    return next(_archived(cache, name, pin.version, pin.sha256), None)


def require_archived(version: str, cache: Cache, lock: RackLock) -> None:
    """Raise NetworkError, as ``fetch_salt`` does offline, when something is not in the archive.
    Files are checked as by ``archived_salt``; nothing is pinned."""
    for name, wanted in _packages(version):
        pin = _pin_of(lock, name, wanted)
        if next(_archived(cache, name, wanted, _sha256_of(pin)), None) is None:
            raise _not_here(cache, name, wanted, pin)


@dataclass(frozen=True, slots=True)
class _SaltFetch:
    """One call of fetch_salt: its arguments, and the steps for each package."""

    lock: RackLock
    terms: FetchTerms

    def package(self, name: str, version: str | None) -> VerifiedPackage:
        """``name`` by its pin, from the archive, or from PyPI; pinned from now on."""
        pin = None if self.terms.update else _pin_of(self.lock, name, version)
        found = None if self.terms.update else self._here(name, version, pin)
        if found is None and self.terms.offline:
            raise _not_here(self.terms.cache, name, version, pin)
        if found is None:
            found = self._fetched(name, version, pin)
        self._pin(found)
        return found

    def _here(
        self, name: str, version: str | None, pin: PackagePin | None
    ) -> VerifiedPackage | None:
        """The first one in the archive whose every byte is right. Others are set aside, but not
        offline: whoever cannot fetch another one, or only looks, changes nothing."""
        for package in list(_archived(self.terms.cache, name, version, _sha256_of(pin))):
            if _is_unaltered(package):
                return package
            altered = f"{package.path} was altered since it was archived"
            if self.terms.offline:
                self.terms.progress.warn(altered)
                continue
            aside = set_aside(self.terms.cache.looked_at("packages") / package.sha256)
            self.terms.progress.warn(f"{altered}; it is kept as {aside.name}")
        return None

    def _fetched(self, name: str, version: str | None, pin: PackagePin | None) -> VerifiedPackage:
        wanted = pin.version if pin else version
        what = f"{name} {wanted or ''}".rstrip()
        with (
            self.terms.cache.made("packages").locked(f"{name}.lock"),
            self.terms.cache.work_folder("pip") as work,
        ):
            # The run that was waited for may have fetched it.
            here = None if self.terms.update else self._here(name, version, pin)
            if here is not None:
                return here
            total = pin.size_bytes if pin else None
            most = min(pin.size_bytes, LARGEST_FILE) if pin else LARGEST_FILE
            with (
                self.terms.progress.phase(f"fetch {what}", total) as phase,
                host_storage(work),
                followed(phase, lambda: downloaded_bytes(work)),
            ):
                try:
                    if name in WHEELS:
                        file = fetch_wheel(name, wanted, work, most)
                    else:
                        file = fetch_source(name, what.partition(" ")[2], work, most)
                except FileTooLarge as error:
                    if pin is None:
                        raise
                    raise _not_as_pinned(what, pin, f"more than {most} bytes") from error
            digest = _sha256_in(file)
            if pin and digest != pin.sha256:
                raise _not_as_pinned(what, pin, f"sha256 {digest[:12]}…")
            package = publish(file, name, self.terms.cache)
            record_fetched(self.terms.cache.looked_at("packages") / digest)
        return replace(package, fetched=True)

    def _pin(self, package: VerifiedPackage) -> None:
        """Pin ``package`` in rack.lock if no pin or another one is there; say what changed."""
        old = self.lock.package(package.name)
        if old is not None and (old.version, old.sha256) == (package.version, package.sha256):
            if self.terms.update:
                self.terms.progress.note(f"{package.name}: {_named(old)} is still what PyPI has")
            return
        new = PackagePin(
            version=package.version,
            sha256=package.sha256,
            size_bytes=package.size_bytes,
            fetched_at=timestamp(),
        )
        self.lock.with_pin(package.name, new)
        before = "nothing" if old is None else _named(old)
        self.terms.progress.note(f"{package.name}: pin moved from {before} to {_named(new)}")


def _is_unaltered(package: VerifiedPackage) -> bool:
    with host_storage(package.path), kept_file(package.path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


def _not_as_pinned(what: str, pin: PackagePin, why: str) -> NotAuthentic:
    return NotAuthentic(
        f"PyPI's {what} is not the one that rack.lock pins ({pin.sha256[:12]}…): {why}",
        hint="to use what is published now, run picloud-image fetch --update",
    )


def _named(pin: PackagePin) -> str:
    return f"{pin.version} ({pin.sha256[:12]}…)"


def _packages(version: str) -> Iterator[tuple[str, str | None]]:
    """Name and version of each package for Salt ``version``, Salt itself first; the version is None
    where any will do."""
    yield SALT, version
    for wheel in WHEELS:
        yield wheel, None


def _not_here(cache: Cache, name: str, version: str | None, pin: PackagePin | None) -> NetworkError:
    """The error for --offline when a package is not in the archive, or cannot be taken from it."""
    hint = "run picloud-image fetch once without --offline"
    if pin is None and next(_archived(cache, name, version, None, trusting=True), None):
        return NetworkError(
            f"nothing says that the {name} in {cache.packages} is PyPI's, and rack.lock does not "
            "pin it",
            hint=hint,
        )
    which = f" with sha256 {pin.sha256[:12]}…, which rack.lock pins," if pin else ""
    return NetworkError(
        f"{name} {pin.version if pin else version or ''}".rstrip()
        + f"{which} is not in {cache.packages}",
        hint=hint,
    )


def _pin_of(lock: RackLock, name: str, version: str | None) -> PackagePin | None:
    """The pin that the bytes must match, or None. A pin for another version does not count: the
    person has changed the version in rack.toml."""
    pin = lock.package(name)
    return pin if pin and version in (None, pin.version) else None


def _sha256_of(pin: PackagePin | None) -> str | None:
    return pin.sha256 if pin else None


def _archived(
    cache: Cache, name: str, version: str | None, sha256: str | None, *, trusting: bool = False
) -> Iterator[VerifiedPackage]:
    """Every archived package that may be the one asked for: the one of that hash, or those that pip
    brought, the newest first. ``trusting`` gives others, too: only to speak of them, for a file
    that came by ``archive import`` is what a stranger says that it is."""
    packages = cache.looked_at("packages")
    digests = [d for d in packages.names() if (d == sha256 if sha256 else len(d) == 64)]
    newest_first = sorted(digests, key=lambda digest: (packages / digest).changed(), reverse=True)
    for digest in newest_first:
        folder = packages / digest
        if sha256 is None and not trusting and fetched_at(folder) is None:
            continue
        for file in folder.names():
            found = version_in(file, name)
            if found and version in (None, found):
                yield VerifiedPackage(name, found, digest, folder.path / file, folder.size(file))


def version_in(file_name: str, name: str) -> str | None:
    """The version in a file's name, such as ``salt-3008.3.tar.gz`` or
    ``looseversion-1.3.0-py3-none-any.whl``; None when it is no file of package ``name``."""
    head, _, rest = file_name.partition("-")
    if head.lower() != name:
        return None
    if rest.endswith(".tar.gz"):
        return rest.removesuffix(".tar.gz")
    return rest.partition("-")[0] if rest.endswith(".whl") else None


def _sha256_in(file: Path) -> str:
    with host_storage(file), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def publish(file: Path, name: str, cache: Cache) -> VerifiedPackage:
    """Move a file as PyPI has it into the archive, unless it is there already. That it is PyPI's is
    not said by this (``record_fetched``). Raises NotAuthentic for one whose name is not that of the
    package."""
    version = version_in(file.name, name)
    if version is None:
        raise NotAuthentic(
            f"pip gave {file.name} for {name}",
            hint="check pip's own settings (pip config list)",
        )
    digest = _sha256_in(file)
    size = file.stat().st_size
    folder = cache.packages / digest
    if file.name not in (cache.looked_at("packages") / digest).names():
        with placed(cache, folder) as staged:
            file.chmod(0o444)
            file.rename(staged / file.name)
    return VerifiedPackage(name, version, digest, folder / file.name, size)

"""Ask the mirrors of a release one after another, until one has an authentic release.

In: a release, and the pin its bytes must match. Out: an entry of the archive. Only one run at a
time asks for a release. After Ctrl-C the bytes that came in are kept for the next run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from pysequoia import Cert

from imager.base.errors import (
    Interrupted,
    MalformedRelease,
    NetworkError,
    NotAuthentic,
    PicloudError,
)
from imager.base.timestamps import timestamp
from imager.base.units import format_size
from imager.release.archive import ArchivedTarball, TarballRecord
from imager.release.lock import Pin
from imager.release.mirror import ProvenSet, fetch_set
from imager.release.request import OlderRelease, Wanted
from imager.release.signing_keys import find_key
from imager.release.tarball import require_release
from imager.release.terms import KeySources
from imager.release.transfer.download import Partial, TarballLocation, Version, locate
from imager.release.transfer.web import TransferLimits, Web


@contextmanager
def alone(run: Wanted) -> Iterator[None]:
    """Make other runs wait that would use the same partial file; on Ctrl-C say how much of it is
    kept."""
    folder = run.terms.cache.made("partial")
    name = Path(_partial(run).folder.name).with_suffix(".lock").name
    try:
        with ExitStack() as held:
            try:
                held.enter_context(folder.locked(name, wait=False))
            except BlockingIOError:
                run.terms.progress.note(f"another run is fetching {run.spec.name}; waiting for it")
                held.enter_context(folder.locked(name))
            yield
    except KeyboardInterrupt:
        kept = format_size(_partial(run).size_bytes())
        raise Interrupted(
            f"interrupted while fetching {run.spec.name}; the {kept} that came in are kept",
            hint="run the same command again; it goes on from there",
        ) from None


def from_mirrors(
    run: Wanted, sources: KeySources, limits: TransferLimits | None
) -> ArchivedTarball:
    """The release of the first mirror that has an authentic one, put into the archive.

    Raises NetworkError, NotAuthentic, MalformedRelease for what is signed and is no release,
    HostStorage, and ConfigurationError for ``sources.file``.
    """
    with closing(Web(limits or TransferLimits())) as web:
        return _first_authentic(run, web, sources)


def _first_authentic(run: Wanted, web: Web, sources: KeySources) -> ArchivedTarball:
    fingerprint = run.spec.signing_key
    key = find_key(fingerprint, run.terms.cache, web, run.terms.progress, sources)
    failures: list[PicloudError] = []
    for url in run.spec.urls:
        try:
            entry = _from_mirror(run, web, _locate(run, web, url), key)
            require_release(entry.tarball, entry.record.source_url)
            return entry
        except (NetworkError, NotAuthentic, MalformedRelease) as error:
            failures.append(error)
            if url != run.spec.urls[-1]:
                run.terms.progress.note(f"{error.what}; asking the next mirror")
    raise _worst(run.spec.name, failures)


def _locate(run: Wanted, web: Web, url: str) -> TarballLocation:
    # Where there are mirrors, the next one is a better second attempt than the same one.
    if run.spec.mirrors:
        return locate(web, url)
    return web.patiently(lambda: locate(web, url))


def _from_mirror(run: Wanted, web: Web, place: TarballLocation, key: Cert) -> ArchivedTarball:
    pin, size = run.honoured, place.version.size_bytes
    if pin is None:
        for entry in run.known_by_headers():
            if place.version.is_same_file(_version_of(entry.record)):
                run.terms.progress.note(f"{place.url} is the one that is archived already")
                return entry
    elif size is not None and size != pin.size_bytes:
        raise _not_the_pin(run, pin, place, f"{size} bytes instead of {pin.size_bytes}")
    proven = fetch_set(web, place, key, _partial(run), run)
    entry = run.archive.publish(proven.tarball, proven.signature, _record(run, proven))
    _partial(run).discard()
    if pin is not None and proven.sha256 != pin.sha256:
        # It is authentic and stays in the archive, so that --update need not fetch it again.
        raise _not_the_pin(run, pin, place, f"sha256 {proven.sha256[:12]}…")
    return entry


def _not_the_pin(run: Wanted, pin: Pin, place: TarballLocation, found: str) -> NotAuthentic:
    return NotAuthentic(
        f"{place.url} is not the {run.spec.name} that rack.lock pins ({pin.sha256[:12]}…): {found}",
        hint="to use what is published now, run picloud-image fetch --update",
    )


def _record(run: Wanted, proven: ProvenSet) -> TarballRecord:
    return TarballRecord(
        name=run.spec.name,
        sha256=proven.sha256,
        size_bytes=proven.size_bytes,
        fingerprint=run.spec.signing_key,
        url=run.spec.url,
        source_url=proven.source_url,
        fetched_at=timestamp(),
        last_modified=proven.version.last_modified,
        etag=proven.version.etag,
    )


def _partial(run: Wanted) -> Partial:
    # Two releases may share a file name; the URL tells them apart.
    tag = hashlib.sha256(run.spec.url.encode()).hexdigest()[:8]
    return Partial(run.terms.cache.looked_at("partial") / f"{run.spec.name}-{tag}")


def _version_of(record: TarballRecord) -> Version:
    return Version(record.size_bytes, record.etag, record.last_modified)


def _worst(name: str, failures: list[PicloudError]) -> PicloudError:
    """The error to end with: one about authenticity counts more than a mirror that is behind, and
    that more than one that is down."""
    if len(failures) == 1:
        return failures[0]
    details = [error.what for error in failures]
    older = [error for error in failures if isinstance(error, OlderRelease)]
    for error in failures:
        if isinstance(error, MalformedRelease):
            return MalformedRelease(error.what, hint=error.hint, details=details)
        if isinstance(error, NotAuthentic) and error not in older:
            return NotAuthentic(error.what, hint=error.hint, details=details)
    if older:
        last = max(older, key=lambda error: error.signed_at)
        return OlderRelease(last.what, last.signed_at, details)
    return NetworkError(
        f"none of {len(failures)} mirrors gave {name}",
        hint="check the network, then run it again; what came in so far is kept",
        details=details,
    )

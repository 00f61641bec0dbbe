"""A release by name becomes a VerifiedRelease: pinned, archived, or fetched and proven.

In: a ReleaseSpec and the rack's lock. Out: a VerifiedRelease in the archive. A pinned release
that is archived costs no network at all. Otherwise the mirrors are asked in turn, and the set of
the first one that proves authentic is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.durable import locked
from imager.base.errors import Interrupted, NetworkError, NotAuthentic, PicloudError, UsageError
from imager.base.progress import Progress
from imager.base.units import format_size
from imager.release.archive import Archive, DamagedEntry, Entry, Record, verified
from imager.release.download import Partial, Place, Version, locate
from imager.release.keys import KeySources, find_key
from imager.release.known import ReleaseSpec
from imager.release.lock import Pin, RackLock
from imager.release.mirror import ProvenSet, fetch_set
from imager.release.verified import VerifiedRelease
from imager.release.web import Limits, Web


def fetch_release(
    spec: ReleaseSpec,
    cache: Cache,
    lock: RackLock | None,
    progress: Progress,
    *,
    offline: bool,
    update: bool,
    signing_key_file: Path | None,
    limits: Limits | None = None,
    key_sources: KeySources | None = None,
) -> VerifiedRelease:
    """The release ``spec`` as this rack uses it, in the archive of ``cache``.

    With a pin in ``lock`` it is exactly the pinned bytes; without one, what the mirrors publish
    now, which then becomes the pin. Without a lock (None) it is the newest one archived, or what
    the mirrors publish. ``update`` asks the mirrors whatever is here and moves the pin;
    ``offline`` never touches the network.

    Raises NetworkError, NotAuthentic (also when the mirrors no longer have the pinned bytes),
    HostStorage, ConfigurationError for ``signing_key_file``, and Interrupted on Ctrl-C.
    """
    if offline and update:
        raise UsageError("--offline and --update exclude each other", hint="leave one of them out")
    run = _Run(spec, cache, lock, progress, update)
    entry = run.archived(mend=not offline)
    if entry is None and offline:
        raise run.not_here()
    if entry is None:
        with run.alone(), closing(Web(limits or Limits())) as web:
            # The run that was waited for may have fetched it and pinned it.
            run = replace(run, lock=None if lock is None else RackLock.load(lock.path))
            entry = run.archived(mend=True)
            if entry is None:
                entry = run.from_mirrors(web, signing_key_file, key_sources or KeySources())
                run.pin(entry)
    return verified(entry, spec.models)


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of fetch_release: what was asked for, and the steps that need to know it."""

    spec: ReleaseSpec
    cache: Cache
    lock: RackLock | None
    progress: Progress
    update: bool

    @property
    def partial(self) -> Partial:
        # Two releases may share a file name; the URL tells them apart.
        tag = hashlib.sha256(self.spec.url.encode()).hexdigest()[:8]
        return Partial(self.cache.partial / f"{self.spec.name}-{tag}")

    @property
    def archive(self) -> Archive:
        return Archive(self.cache)

    @property
    def honoured(self) -> Pin | None:
        """The pin that the bytes must match."""
        return None if self.lock is None or self.update else self.lock.pin(self.spec.name)

    def of_name(self) -> tuple[Entry, ...]:
        return self.archive.of_name(self.spec.name, self.spec.signing_key)

    def archived(self, *, mend: bool) -> Entry | None:
        """The entry to use without asking anybody; ``mend`` sets a damaged one aside."""
        if self.lock is None and not self.update:
            return next(iter(self.of_name()), None)
        pin = self.honoured
        if pin is None:
            return None
        if pin.fingerprint != self.spec.signing_key:
            raise NotAuthentic(
                f"rack.lock pins a {self.spec.name} that the key {pin.fingerprint} signed",
                hint=f"for one by {self.spec.signing_key}, run picloud-image fetch --update",
            )
        try:
            entry = self.archive.find(pin.sha256)
        except DamagedEntry as error:
            if not mend:
                raise
            aside = self.archive.set_aside(pin.sha256)
            self.progress.warn(f"{error.what}; it is kept as {aside.name}")
            return None
        # Another rack may have got the same bytes by another key: that proves nothing here.
        return entry if entry and entry.record.fingerprint == self.spec.signing_key else None

    def not_here(self) -> NetworkError:
        """Why --offline cannot work."""
        pin = self.honoured
        which = f" with sha256 {pin.sha256[:12]}…, which rack.lock pins," if pin else ""
        return NetworkError(
            f"{self.spec.name}{which} is not in {self.cache.releases}",
            hint="run picloud-image fetch once without --offline",
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second run out of the partial file; on Ctrl-C say what is kept of it."""
        path = self.partial.folder.with_suffix(".lock")
        try:
            with ExitStack() as held:
                try:
                    held.enter_context(locked(path, wait=False))
                except BlockingIOError:
                    self.progress.note(f"another run is fetching {self.spec.name}; waiting for it")
                    held.enter_context(locked(path))
                yield
        except KeyboardInterrupt:
            kept = format_size(self.partial.size_bytes())
            raise Interrupted(
                f"interrupted while fetching {self.spec.name}; the {kept} that came in are kept",
                hint="run the same command again; it goes on from there",
            ) from None

    def from_mirrors(self, web: Web, key_file: Path | None, sources: KeySources) -> Entry:
        """What the first mirror with an authentic set offers, in the archive."""
        fingerprint = self.spec.signing_key
        key = find_key(fingerprint, self.cache, web, self.progress, file=key_file, sources=sources)
        failures: list[PicloudError] = []
        for url in self.spec.urls:
            try:
                return self._from_mirror(web, self._locate(web, url), key)
            except (NetworkError, NotAuthentic) as error:
                failures.append(error)
                if url != self.spec.urls[-1]:
                    self.progress.note(f"{error.what}; asking the next mirror")
        raise _worst(self.spec.name, failures)

    def _locate(self, web: Web, url: str) -> Place:
        # Where there are mirrors, the next one is a better second attempt than the same one.
        if self.spec.mirrors:
            return locate(web, url)
        return web.patiently(lambda: locate(web, url))

    def _from_mirror(self, web: Web, place: Place, key: Cert) -> Entry:
        pin, size = self.honoured, place.version.size_bytes
        if pin is None:
            for entry in self.of_name():
                if place.version.is_same_file(_version_of(entry.record)):
                    self.progress.note(f"{place.url} is the one that is archived already")
                    return entry
        elif size is not None and size != pin.size_bytes:
            raise self._not_the_pin(pin, place, f"{size} bytes instead of {pin.size_bytes}")
        proven = fetch_set(web, place, key, self.partial, self.spec.name, self.progress)
        entry = self.archive.publish(proven.tarball, proven.signature, self._record(proven))
        self.partial.discard()
        if pin is not None and proven.sha256 != pin.sha256:
            # Authentic all the same, so it stays archived and --update need not fetch it again.
            raise self._not_the_pin(pin, place, f"sha256 {proven.sha256[:12]}…")
        return entry

    def _not_the_pin(self, pin: Pin, place: Place, found: str) -> NotAuthentic:
        return NotAuthentic(
            f"{place.url} is not the {self.spec.name} that rack.lock pins "
            f"({pin.sha256[:12]}…): {found}",
            hint="to use what is published now, run picloud-image fetch --update",
        )

    def _record(self, proven: ProvenSet) -> Record:
        return Record(
            name=self.spec.name,
            sha256=proven.sha256,
            size_bytes=proven.size_bytes,
            fingerprint=self.spec.signing_key,
            url=self.spec.url,
            source_url=proven.source_url,
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            last_modified=proven.version.last_modified,
            etag=proven.version.etag,
        )

    def pin(self, entry: Entry) -> None:
        """Pin ``entry`` in rack.lock if no pin or another one is there, and say what changed."""
        if self.lock is None:
            return
        record, old = entry.record, self.lock.pin(self.spec.name)
        if old is not None and old.sha256 == record.sha256:
            if self.update:
                self.progress.note(f"{record.name}: sha256 {old.sha256[:12]}… is still the newest")
            return
        new = Pin(
            sha256=record.sha256,
            size_bytes=record.size_bytes,
            url=record.source_url,
            fingerprint=record.fingerprint,
            fetched_at=record.fetched_at,
        )
        self.lock.with_pin(self.spec.name, new)
        before = "nothing" if old is None else f"{old.sha256[:12]}… ({old.fetched_at})"
        self.progress.note(
            f"{record.name}: pin moved from {before} to {new.sha256[:12]}… ({new.fetched_at})"
        )


def _version_of(record: Record) -> Version:
    return Version(record.size_bytes, record.etag, record.last_modified)


def _worst(name: str, failures: list[PicloudError]) -> PicloudError:
    """The error to end with: a forgery is worse news than a mirror that is down."""
    forged = [error for error in failures if isinstance(error, NotAuthentic)]
    if len(failures) == 1:
        return failures[0]
    details = [error.what for error in failures]
    if forged:
        return NotAuthentic(forged[0].what, hint=forged[0].hint, details=details)
    return NetworkError(
        f"none of {len(failures)} mirrors gave {name}",
        hint="check the network, then run it again; what came in so far is kept",
        details=details,
    )

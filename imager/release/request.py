"""Which release one run wants, and whether it is in the archive already.

In: a ReleaseSpec and the rack's lock. Out: an entry of the archive, or why there is none; and the
lock with the pin of what was fetched. The network is not used here.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.cache import Cache
from imager.base.errors import NetworkError, NotAuthentic
from imager.base.progress import Progress
from imager.release.archive import Archive, ArchivedTarball, DamagedEntry
from imager.release.catalogue import ReleaseSpec
from imager.release.lock import Pin, RackLock


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one call of fetch_release was asked for."""

    spec: ReleaseSpec
    cache: Cache
    lock: RackLock | None
    progress: Progress
    update: bool

    @property
    def archive(self) -> Archive:
        """Where releases are kept."""
        return Archive(self.cache)

    @property
    def honoured(self) -> Pin | None:
        """The pin that the bytes must match."""
        return None if self.lock is None or self.update else self.lock.pin(self.spec.name)

    def of_name(self) -> tuple[ArchivedTarball, ...]:
        """Every archived release of this name by this key."""
        return self.archive.of_name(self.spec.name, self.spec.signing_key)

    def archived(self, *, mend: bool) -> ArchivedTarball | None:
        """The entry that can be used without the network, or None. With ``mend`` a damaged one is
        renamed, so that it is fetched anew."""
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
        # Another rack may have the same bytes with the signature of another key, no proof for us.
        return entry if entry and entry.record.fingerprint == self.spec.signing_key else None

    def not_here(self) -> NetworkError:
        """The error for --offline when the release is not in the archive."""
        pin = self.honoured
        which = f" with sha256 {pin.sha256[:12]}…, which rack.lock pins," if pin else ""
        return NetworkError(
            f"{self.spec.name}{which} is not in {self.cache.releases}",
            hint="run picloud-image fetch once without --offline",
        )

    def pin(self, entry: ArchivedTarball) -> None:
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

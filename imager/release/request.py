"""A release that one run asks for: which one, by which pin, and what of it is archived already.

In: a ReleaseSpec and the rack's lock. Out: an entry of the archive, or why there is none. After a
fetch, the pin is moved here to what was fetched. Nothing here uses the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.errors import NetworkError, NotAuthentic
from imager.release.archive import Archive, ArchivedTarball, DamagedEntry
from imager.release.catalogue import ReleaseSpec
from imager.release.lock import Pin, RackLock
from imager.release.terms import FetchTerms


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one call of fetch_release was asked for."""

    spec: ReleaseSpec
    lock: RackLock | None
    terms: FetchTerms

    @property
    def archive(self) -> Archive:
        """Where releases are kept."""
        return Archive(self.terms.cache)

    @property
    def honoured(self) -> Pin | None:
        """The pin that the bytes must match."""
        return None if self.lock is None or self.terms.update else self.lock.pin(self.spec.name)

    def of_name(self) -> tuple[ArchivedTarball, ...]:
        """Every archived release of this name by this key."""
        return self.archive.of_name(self.spec.name, self.spec.signing_key)

    def archived(self, *, mend: bool) -> ArchivedTarball | None:
        """The entry to use without asking anybody; ``mend`` sets a damaged one aside. Raises
        NotAuthentic where rack.lock pins one that another key signed."""
        if self.lock is None and not self.terms.update:
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
            # The same bytes with the signature of another key are no proof for this rack.
            return self.archive.find(pin.sha256, self.spec.signing_key)
        except DamagedEntry as error:
            if not mend:
                raise
            aside = self.archive.set_aside(pin.sha256)
            self.terms.progress.warn(f"{error.what}; it is kept as {aside.name}")
            return None

    def not_here(self) -> NetworkError:
        """The error for --offline when the release is not in the archive."""
        pin = self.honoured
        which = f" with sha256 {pin.sha256[:12]}…, which rack.lock pins," if pin else ""
        return NetworkError(
            f"{self.spec.name}{which} is not in {self.terms.cache.releases}",
            hint="run picloud-image fetch once without --offline",
        )

    def pin(self, entry: ArchivedTarball) -> None:
        """Pin ``entry`` in rack.lock if no pin or another one is there, and say what changed."""
        if self.lock is None:
            return
        record, old = entry.record, self.lock.pin(self.spec.name)
        if old is not None and (old.sha256, old.fingerprint) == (record.sha256, record.fingerprint):
            if self.terms.update:
                same = f"sha256 {old.sha256[:12]}… is still the newest"
                self.terms.progress.note(f"{record.name}: {same}")
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
        self.terms.progress.note(
            f"{record.name}: pin moved from {before} to {new.sha256[:12]}… ({new.fetched_at})"
        )

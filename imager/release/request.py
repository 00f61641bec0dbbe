"""A release that one run asks for: which one, by which pin, and what of it is archived already.

In: a ReleaseSpec and the rack's lock. Out: an entry of the archive, or why there is none. After a
fetch, the pin is moved here to what was fetched, unless that is older. Nothing here uses the
network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pysequoia import Sig

from imager.base.errors import NetworkError, NotAuthentic
from imager.base.timestamps import timestamp
from imager.release.archive import Archive, ArchivedTarball, DamagedEntry
from imager.release.catalogue import ReleaseSpec
from imager.release.lock import Pin, RackLock
from imager.release.terms import FetchTerms


class OlderRelease(NotAuthentic):
    """What a mirror publishes is authentic, and is not known to be newer than what is pinned. A
    mirror that is behind gives that, and so can anybody on the way. ``signed_at`` is when it was
    signed."""

    def __init__(self, what: str, signed_at: datetime, details: Iterable[str] = ()) -> None:
        hint = "if it is to be that one, say picloud-image fetch --update --yes"
        super().__init__(what, hint=hint, details=details)
        self.signed_at = signed_at


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
    def _pinned(self) -> Pin | None:
        return None if self.lock is None else self.lock.pin(self.spec.name)

    @property
    def honoured(self) -> Pin | None:
        """The pin that the bytes must match."""
        return None if self.terms.update else self._pinned

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

    def known_by_headers(self) -> tuple[ArchivedTarball, ...]:
        """The archived ones that a mirror's headers may name, without its bytes: what is pinned
        now, and the last that was signed. For any other, a date in a header would be enough to
        bring it back."""
        here, pin = self.of_name(), self._pinned
        found = [each for each in here if pin is not None and each.record.sha256 == pin.sha256]
        dated = [(at, each) for each in here if (at := each.signed_at) is not None]
        if dated:
            found.append(max(dated, key=lambda pair: pair[0])[1])
        return tuple(found)

    def not_older(self, signatures: tuple[Sig, ...], url: str) -> tuple[Sig, ...]:
        """Those of ``signatures``, found beside ``url``, that are not older than the one of what is
        pinned now, where the pin is to move. Raises OlderRelease where none is: before a long
        download, and so that a mirror that is behind is passed over."""
        pin = self._pinned
        before = self._signed_at(pin) if pin else None
        earliest = self.terms.not_before or before
        if pin is None or earliest is None or not self.terms.update:
            return signatures
        # One that gives no time is none to Sequoia.
        dated = [(each.created or earliest, each) for each in signatures]
        fit = tuple(each for made, each in dated if made >= earliest)
        if not fit:
            raise self._older(url, pin, max(made for made, _ in dated), before)
        return fit

    def require_newer(self, entry: ArchivedTarball) -> None:
        """The same, of what was fetched, where the pinned one is not archived: what is published
        after it is signed after it was fetched."""
        pin, now = self._pinned, entry.signed_at
        if pin is None or not self.terms.update or self.terms.not_before:
            return
        fetched = _time_in(pin.fetched_at)
        if pin.sha256 == entry.record.sha256 or self._signed_at(pin) or now is None:
            return
        if fetched is None or now < fetched:
            raise self._older(entry.record.source_url, pin, now, None)

    def _older(self, url: str, pin: Pin, now: datetime, before: datetime | None) -> OlderRelease:
        is_older = "is older" if before else "may be older"
        return OlderRelease(
            f"{url} {is_older} than the {self.spec.name} that rack.lock pins ({pin.sha256[:12]}…): "
            f"it was signed {_said(now)}, that was {_dated(pin, before)}",
            now,
        )

    def pin(self, entry: ArchivedTarball) -> None:
        """Pin ``entry`` in rack.lock if no pin or another one is there, and say what changed."""
        if self.lock is None or self.terms.looking:
            return
        record, old = entry.record, self.lock.pin(self.spec.name)
        if old is not None and (old.sha256, old.fingerprint) == (record.sha256, record.fingerprint):
            if self.terms.update:
                same = f"sha256 {old.sha256[:12]}… is still the newest"
                self.terms.progress.note(f"{self.spec.name}: {same}")
            return
        new = record.pin
        self.lock.with_pin(self.spec.name, new)
        before = f"{old.sha256[:12]}… ({_dated(old, self._signed_at(old))})" if old else "nothing"
        self.terms.progress.note(
            f"{self.spec.name}: pin moved from {before} to {new.sha256[:12]}… "
            f"({_dated(new, entry.signed_at)})"
        )

    def _signed_at(self, pin: Pin) -> datetime | None:
        """When the release of ``pin`` was signed; None where it is not archived."""
        try:
            entry = self.archive.find(pin.sha256, pin.fingerprint)
        except DamagedEntry:
            return None
        return entry.signed_at if entry else None


def _dated(pin: Pin, signed: datetime | None) -> str:
    return f"signed {_said(signed)}" if signed else f"fetched {pin.fetched_at}"


def _said(when: datetime) -> str:
    return timestamp(when.timestamp())


def _time_in(text: str) -> datetime | None:
    """The time that a rack.lock gives, which a person may have written."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None

"""The network's side of packages: databases and packages from the mirrors a release names.

In: where its packages come from, and the pinned key. Out: databases, and packages proven and
archived. A module of its own because importing what speaks to the network takes 0.1 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from pysequoia import Cert

from imager.base.progress import FindingData, Phase, Progress
from imager.packages.fetch.archive import PackageArchive
from imager.packages.fetch.mirrors import from_mirrors
from imager.packages.fetch.package import Expected, fetch_package, package_limits
from imager.packages.resolve.database import Database, PackageOffer
from imager.packages.resolve.repositories import Repositories
from imager.release.lock import PacmanPin
from imager.release.signing_keys import find_key
from imager.release.terms import FetchTerms, KeySources
from imager.release.transfer.web import TransferLimits, Web

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """One run's connection to the mirrors."""

    web: Web
    fingerprint: str
    repositories: Repositories
    terms: FetchTerms
    sources: KeySources

    def offers(self, use: Callable[[Sequence[Database]], _Made]) -> _Made:
        """What ``use`` makes of what the mirrors offer now; see ``from_mirrors``."""
        return from_mirrors(use, self.repositories, self.web, self.terms.progress)

    def offered(self, offers: Mapping[str, PackageOffer]) -> dict[str, PacmanPin]:
        """Fetch, prove and archive those of ``offers`` that are not archived; what to pin, by name.
        Raises as fetch_package."""
        archive = PackageArchive(self.terms.cache)
        here = {
            name: pin
            for name, offer in offers.items()
            if (pin := archive.pin_of(name, offer.version, offer.sha256, self.fingerprint))
        }
        new = {name: offer for name, offer in offers.items() if name not in here}
        return here | self._all(
            {name: _expected_offer(offer) for name, offer in new.items()},
            {name: (offer.url,) for name, offer in new.items()},
        )

    def pinned(self, pins: Mapping[str, PacmanPin]) -> None:
        """Fetch, prove and archive what ``pins`` mean. Raises as fetch_package."""
        self._all(
            {name: _expected_pin(name, pin) for name, pin in pins.items()},
            {name: tuple(self._urls(pin)) for name, pin in pins.items()},
        )

    def key(self) -> Cert:
        """The pinned key, from the first source that has it."""
        return find_key(
            self.fingerprint, self.terms.cache, self.web, self.terms.progress, self.sources
        )

    def _all(
        self, expected: Mapping[str, Expected], urls: Mapping[str, tuple[str, ...]]
    ) -> dict[str, PacmanPin]:
        if not expected:
            return {}
        key, cache, found = self.key(), self.terms.cache, {}
        total = sum(each.size_bytes for each in expected.values())
        with self.terms.progress.phase("fetch packages", total) as phase:
            within = _Within(self.terms.progress, phase)
            for name, each in expected.items():
                found[name], _ = fetch_package(each, urls[name], self.web, key, cache, within)
        return found

    def _urls(self, pin: PacmanPin) -> Iterator[str]:
        """Where a pinned package may be: where it was found, then in the same folder elsewhere."""
        yield pin.url
        tail = pin.url.split("/")[-3:-1]
        for mirror in self.repositories.mirrors():
            for _, folder in mirror:
                if folder.split("/")[-2:] == tail:
                    yield f"{folder}/{pin.file}"


@contextmanager
def package_source(
    fingerprint: str,
    repositories: Repositories,
    terms: FetchTerms,
    sources: KeySources,
    limits: TransferLimits | None,
) -> Iterator[PackageSource]:
    """A connection until the block ends."""
    with closing(Web(package_limits(limits))) as web:
        yield PackageSource(web, fingerprint, repositories, terms, sources)


def signing_key(fingerprint: str, terms: FetchTerms, sources: KeySources) -> Cert:
    """The pinned key; a keyserver is asked only if no file here has it, and never offline."""
    asked = replace(sources, keyservers=()) if terms.offline else sources
    with closing(Web(TransferLimits())) as web:
        return find_key(fingerprint, terms.cache, web, terms.progress, asked)


class _Within:
    """A Progress whose phases are steps of one that goes on: thirty packages are one line."""

    def __init__(self, progress: Progress, phase: Phase) -> None:
        self._progress = progress
        self._phase = phase

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        yield self._phase

    def steps(self, name: str, count: int) -> AbstractContextManager[Phase]:
        return self._progress.steps(name, count)

    def note(self, message: str) -> None:
        self._progress.note(message)

    def warn(self, message: str) -> None:
        self._progress.warn(message)

    def finding(self, finding: FindingData) -> None:
        self._progress.finding(finding)


def _expected_offer(offer: PackageOffer) -> Expected:
    return Expected(
        offer.name,
        offer.version,
        offer.arch,
        offer.file,
        offer.sha256,
        offer.size_bytes,
        pinned=False,
    )


def _expected_pin(name: str, pin: PacmanPin) -> Expected:
    return Expected(name, pin.version, pin.arch, pin.file, pin.sha256, pin.size_bytes, pinned=True)

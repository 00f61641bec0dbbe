"""Packages become part of a release, as if pacman had installed them, with no foreign code run.

In: a staged release and a PackageSet. Out: the release with their files, pacman's database with
their entries, the units that are asked for enabled, and a queue for first boot of what scriptlets
and hooks would have done. The result does not depend on privileges or on a clock.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import zip_longest

from imager.base.errors import ConfigurationError, MalformedRelease
from imager.base.progress import Phase, Progress
from imager.image.packages import database
from imager.image.packages.archive import Metadata, begin_unpacking, read_package
from imager.image.packages.changes import PackageChange, PackageOperation
from imager.image.packages.hooks import hooks_to_run
from imager.image.packages.queue import queued
from imager.image.packages.transaction import Arrival, FileOwners, depart
from imager.image.packages.units import enable_units
from imager.image.unpack.inflate import Inflater
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import unpacked_by
from imager.packages.verified import PackageSet, VerifiedPacman

_PLAIN = re.compile(r"[A-Za-z0-9@_+][A-Za-z0-9@._+-]* [A-Za-z0-9:.+_~^]+-[A-Za-z0-9.]+")
"""Name and version as makepkg lets them through: names of files, and words of a shell, too."""


def add_packages(
    stager: Stager, packages: PackageSet, release: str, progress: Progress
) -> tuple[str, ...]:
    """Add ``packages`` to the release called ``release`` that is in ``stager``. Returns what is
    left for first boot, the lines of its queue.

    Raises ConfigurationError with everything that stands against it (files that two packages
    have, a package that is taken out and needed, a unit that is not there), MalformedRelease for a
    package that cannot go on a card, NotAuthentic for one that was damaged in the archive.
    """
    if not (packages.install or packages.remove or packages.enable):
        return ()
    adding = _PackagesAdding(stager, packages, release)
    adding.take_out()
    total = sum(package.size_bytes for package in packages.install)
    with (
        progress.phase("add packages", total) as phase,
        closing(_each_begun(packages.install, phase)) as begun,
    ):
        for package, inflater in begun:
            adding.add(package, inflater)
    adding.require_sound()
    adding.enter()
    changes = tuple(adding.changes)
    enable_units(stager, packages.enable, release)
    return queued(stager, changes, hooks_to_run(stager, changes, adding.provided()))


def _each_begun(
    packages: Sequence[VerifiedPacman], phase: Phase
) -> Generator[tuple[VerifiedPacman, Inflater], None, None]:
    """Each package, being unpacked; the one after it is then being unpacked already."""
    begun: deque[Inflater] = deque()
    try:
        for package, after in zip_longest(packages, packages[1:]):
            begun = begun or deque([begin_unpacking(package.path, phase)])
            if after is not None:
                begun.append(begin_unpacking(after.path, phase))
            yield package, begun[0]
            begun.popleft()
    finally:
        for inflater in begun:
            inflater.cancel()


class _PackagesAdding:
    """The steps that put one set into one release."""

    def __init__(self, stager: Stager, packages: PackageSet, release: str) -> None:
        self._stager = stager
        self._set = packages
        self._release = release
        self._installed = {each.name: each for each in database.installed_files(stager)}
        self._known_before = self.provided()
        self._owners = FileOwners(self._installed.values())
        self._metadata: dict[str, Metadata] = {}
        self._faults: list[str] = []
        self.changes: list[PackageChange] = []
        if not self._installed and (packages.install or packages.remove):
            raise ConfigurationError(
                f"{release} has no pacman that knows its packages, so none can be added",
                hint="leave [packages] out of rack.toml, or choose a release that has pacman",
            )

    def provided(self) -> frozenset[str]:
        """The names of all packages there are now, and what they provide."""
        return frozenset(name for each in self._installed.values() for name in each.package.names)

    def take_out(self) -> None:
        """Remove what the set removes."""
        for name in self._set.remove:
            old = self._installed.pop(name, None)
            if old is None:
                self._faults.append(f"{name} cannot be taken out, as {self._release} has none")
            else:
                depart(self._stager, self._owners, old)
                database.forget(self._stager, old)
                self.changes.append(PackageChange(PackageOperation.REMOVE, old))

    def add(self, package: VerifiedPacman, inflater: Inflater) -> None:
        """Put what ``inflater`` unpacks of one package in the place of its older version if there
        is one. Raises MalformedRelease for one that cannot go on a card."""
        old = self._installed.get(package.name)
        names = [each.name for each in self._set.install]
        coming = frozenset(names[names.index(package.name) + 1 :]) & self._installed.keys()
        arrival = Arrival(self._stager, self._owners, old, coming)
        try:
            with unpacked_by(inflater, package.path, package.sha256) as stream:
                metadata = read_package(stream, package.path, arrival.take)
        except MalformedRelease as error:
            raise _unusable(package, error.what) from error
        said = metadata.package
        if (said.name, said.version) != (package.name, package.version) or not _PLAIN.fullmatch(
            said.called
        ):
            raise _unusable(package, f"it calls itself {said.called!r}")
        is_dependency = package.name not in self._set.explicit and (
            old is None or old.is_dependency
        )
        new = arrival.finish(metadata, is_dependency)
        if old is not None:
            database.forget(self._stager, old)
        self._faults += (
            f"{said.called} brings /{path}, which {self._called(owner)} has"
            for path, owner in arrival.conflicts
        )
        self._installed[new.name] = new
        self._metadata[new.name] = metadata
        how = PackageOperation.UPGRADE if old else PackageOperation.INSTALL
        self.changes.append(PackageChange(how, new, old))

    def _called(self, owner: str | None) -> str:
        return self._installed[owner].package.called if owner else self._release

    def require_sound(self) -> None:
        """Raise ConfigurationError if anything stands against the set."""
        faults = [*self._faults, *self._unmet()]
        if faults:
            raise ConfigurationError(
                f"the packages do not go together with {self._release}",
                hint="choose others under [packages] in rack.toml",
                details=faults,
            )

    def _unmet(self) -> Iterator[str]:
        """What is needed and not there, of the packages added and of those that had it before."""
        known = self.provided()
        for name, each in sorted(self._installed.items()):
            lost = self._known_before - known
            needs = set(each.package.depends)
            missing = needs - known if name in self._metadata else needs & lost
            for need in sorted(missing):
                yield f"{each.package.called} needs {need}, which is not there"

    def enter(self) -> None:
        """Enter all that was added into pacman's database, with the time of the newest file."""
        when = self._stager.newest
        for name, metadata in self._metadata.items():
            database.enter(self._stager, self._installed[name], metadata, when)


def _unusable(package: VerifiedPacman, why: str) -> MalformedRelease:
    return MalformedRelease(
        f"the package {package.file_name} cannot go on a card: {why}",
        hint="choose another version of it under [packages] in rack.toml, and tell whoever"
        " publishes it",
    )

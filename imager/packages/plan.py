"""What rack.lock is to say of packages: resolved for all nodes of a rack together.

In: a release, the wishes of all nodes, what is pinned, and what repositories offer. Out: a
LockPlan, which says what would change and why, before anything is written. What is pinned stays as
it is, unless it may move.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imager.base.cache import Cache
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, NotAuthentic
from imager.base.text import command_line
from imager.base.trusted_folder import kept_file
from imager.packages.metadata import read_pkginfo
from imager.packages.resolve.base_system import BaseSystem
from imager.packages.resolve.complaints import PINNED
from imager.packages.resolve.database import Database, PackageOffer, own_database
from imager.packages.resolve.pacman import is_newer
from imager.packages.resolve.resolve import Resolution, asked_for_by, installed_of, resolve
from imager.packages.verified import VerifiedPacman
from imager.packages.wish import PackageWish, name_in
from imager.release.lock import RackLock, SetPin
from imager.release.tarball import UNREADABLE


@dataclass(frozen=True, slots=True)
class LockChange:
    """A package of rack.lock that would change: ``old`` or ``new`` is None for one that comes or
    goes. ``size_bytes`` is what would be fetched, ``asked_by`` names the packages that need it,
    none for one that was asked for; ``base`` is the version that the release itself has.
    ``older_than`` is the version from which it goes back: the pinned one, or the release's own."""

    name: str
    old: str | None
    new: str | None
    size_bytes: int = 0
    asked_by: tuple[str, ...] = ()
    base: str | None = None
    older_than: str | None = None


@dataclass(frozen=True, slots=True)
class LockPlan:
    """``sets`` is what rack.lock is to say of each group of nodes, ``offers`` which packages those
    are, by name."""

    sets: Mapping[str, SetPin]
    offers: Mapping[str, PackageOffer]
    changes: tuple[LockChange, ...]

    @property
    def size_bytes(self) -> int:
        """How much is to be fetched."""
        return sum(change.size_bytes for change in self.changes)

    @property
    def older(self) -> tuple[str, ...]:
        """The packages that would go back to an older version."""
        return tuple(change.name for change in self.changes if change.older_than)


@dataclass(frozen=True, slots=True)
class PlanInput:
    """Everything a plan is made from. ``kept`` are the pinned packages that do not move,
    ``repositories`` what mirrors offer: nothing, where the network is not to be used."""

    release_sha256: str
    base: BaseSystem
    arch: str
    lock: RackLock
    kept: Sequence[VerifiedPacman]
    repositories: Sequence[Database]
    cache: Cache


def plan_lock(given: PlanInput, wishes: Mapping[str, PackageWish], fresh: bool) -> LockPlan:
    """What rack.lock is to say for ``wishes``, by the key of each set. Sets that it has for this
    release stay as they are, unless all are to be resolved afresh.

    Raises as ``resolve`` does, and ConfigurationError where something pinned would have to move.
    """
    pinned = {package.name: offer_of(package) for package in given.kept}
    fit = [offer for offer in pinned.values() if _fits(offer, given)]
    databases = [own_database(PINNED, fit), *given.repositories]
    sets: dict[str, SetPin] = {}
    found: list[Resolution] = []
    for key, wish in wishes.items():
        known = given.lock.sets.get(key)
        if known is not None and known.release == given.release_sha256 and not fresh:
            sets[key] = known
            continue
        resolution = resolve(wish, given.base, given.arch, databases, given.cache)
        found.append(resolution)
        sets[key] = SetPin(
            release=given.release_sha256,
            wanted=wish.install,
            packages=tuple(package.name for package in resolution.packages),
            remove=resolution.remove,
        )
    offers = {
        name: pinned[name] for each in sets.values() for name in each.packages if name in pinned
    }
    faults = list(_moved(found, pinned, offers))
    if faults:
        raise ConfigurationError(
            f"[packages]: {faults[0]}",
            hint="name what may move: picloud-image lock --update PKG…, or without names for all",
            details=faults if len(faults) > 1 else (),
        )
    return LockPlan(sets, offers, tuple(_changes(given, sets, offers)))


def require_agreed(plan: LockPlan, agreed: Collection[str]) -> None:
    """Raise NotAuthentic for a package that would become older and is none of ``agreed``, where
    nobody is shown the plan: a database is signed by nobody."""
    older = [each for each in plan.changes if each.older_than and each.name not in agreed]
    if older:
        raise NotAuthentic(
            f"the mirrors have {len(older)} of the packages older than the release or rack.lock, "
            "and nobody agreed to that",
            hint="if they are to be that old, name them: "
            f"{command_line('lock', '--update', *plan.older, '--yes')}",
            details=[f"{each.name} {each.older_than} -> {each.new}" for each in older],
        )


def offer_of(package: VerifiedPacman) -> PackageOffer:
    """An archived package as something that can be had. Raises NotAuthentic for one that was
    altered so that it is none any more."""
    with host_storage(package.path), kept_file(package.path) as file:
        try:
            said = read_pkginfo(file)
        except (*UNREADABLE, ValueError) as error:
            raise NotAuthentic(
                f"{package.path} was altered since it was archived: {error or 'it ends early'}",
                hint="run picloud-image lock --verify: it sets aside what is damaged",
            ) from error
    return PackageOffer(
        name=package.name,
        version=package.version,
        arch=package.arch,
        file=package.file_name,
        sha256=package.sha256,
        size_bytes=package.size_bytes,
        depends=tuple(said.get("depend", ())),
        provides=tuple(said.get("provides", ())),
        conflicts=tuple(said.get("conflict", ())),
        replaces=tuple(said.get("replaces", ())),
    )


def _fits(offer: PackageOffer, given: PlanInput) -> bool:
    """Whether a pinned package can still be meant: a release that has it as new, or newer, is not
    to be made older by a pin."""
    has = installed_of(given.base).get(offer.name)
    return offer.arch in (given.arch, "any") and (
        has is None or is_newer(offer.version, has[1].version)
    )


def _moved(
    found: Iterable[Resolution], pinned: Mapping[str, PackageOffer], offers: dict[str, PackageOffer]
) -> Iterator[str]:
    """Collect what was resolved in ``offers``; a line for everything that would have two versions
    in one rack."""
    for resolution in found:
        needed_by = asked_for_by(resolution.packages)
        for package in resolution.packages:
            other = offers.setdefault(package.name, package)
            if (other.version, other.arch) != (package.version, package.arch):
                who = ", ".join(needed_by[package.name]) or "the nodes"
                place = "rack.lock pins" if package.name in pinned else "others get"
                yield (
                    f"{who} would have {package.called} for {package.arch}, and {place} "
                    f"{other.version} for {other.arch}"
                )


def _changes(
    given: PlanInput,
    sets: Mapping[str, SetPin],
    offers: Mapping[str, PackageOffer],
) -> Iterator[LockChange]:
    wanted = {name_in(word) for each in sets.values() for word in each.wanted}
    needed_by = asked_for_by(offers.values())
    installed = installed_of(given.base)
    old = given.lock.pacman
    of_release = {
        name
        for each in given.lock.sets.values()
        if each.release == given.release_sha256
        for name in each.packages
    }
    for name in sorted({*offers, *old}):
        new, before = offers.get(name), old.get(name)
        if new is None:
            yield LockChange(name, old[name].version, None)
            continue
        base = installed[name][1].version if name in installed else None
        has = [before.version] if before else []
        if base and name not in of_release:
            has.append(base)  # else the nodes have the pinned one instead
        others = (each for each in has if each != new.version)
        older_than = next((each for each in others if is_newer(each, new.version)), None)
        is_same = before and (before.version, before.sha256) == (new.version, new.sha256)
        if older_than or not is_same:
            yield LockChange(
                name,
                before.version if before else None,
                new.version,
                new.size_bytes if new.url else 0,
                () if name in wanted else needed_by[name],
                base,
                older_than,
            )

"""The packages of a rack's nodes: by rack.lock, and rack.lock made where it does not say.

In: a VerifiedRelease, what the nodes of a rack want, and rack.lock. Out: a PackageSet for each
wish, proven and archived. What is locked and archived needs no network. What is not locked yet is
resolved, fetched, proven and then locked, for all nodes of the rack together, so that each name
means the same bytes on all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imager.base.errors import ConfigurationError, NetworkError, NotAuthentic
from imager.packages.fetch.alone import alone
from imager.packages.fetch.archive import GET_ANEW, DamagedPackage, PackageArchive
from imager.packages.fulfilled import elsewhere, require_fulfilled
from imager.packages.plan import LockPlan, PlanInput, plan_lock, require_agreed
from imager.packages.python import require_python
from imager.packages.resolve.base_system import BaseSystem, base_at_hand, base_of
from imager.packages.resolve.database import Database, PackageOffer
from imager.packages.resolve.repositories import repositories_of
from imager.packages.resolve.resolve import installed_of
from imager.packages.verified import PackageSet, VerifiedPacman
from imager.packages.wish import PackageWish, name_in
from imager.release.lock import PacmanPin, RackLock, SetPin
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease

if TYPE_CHECKING:
    from imager.packages.fetch.network import PackageSource
    from imager.release.transfer.web import TransferLimits


@dataclass(frozen=True, slots=True)
class PackageOrder:
    """What one run asks for: the packages of ``wishes``, all that the nodes of a rack want beyond
    ``release``, as ``lock`` pins them. ``salt`` are names that Salt needs: a wish for nothing else
    is no wish where the release has no pacman. ``hold`` are names that never move, ``agreed`` those
    that a person agreed to have older. ``salt_version`` is the Salt that must work on the Python
    they bring."""

    release: VerifiedRelease
    wishes: Sequence[PackageWish]
    lock: RackLock
    terms: FetchTerms
    sources: KeySources = field(default_factory=KeySources)
    salt: frozenset[str] = frozenset()
    hold: frozenset[str] = frozenset()
    agreed: frozenset[str] = frozenset()
    salt_version: str | None = None
    limits: TransferLimits | None = None


def packages_of(order: PackageOrder) -> tuple[PackageSet, ...]:
    """What the nodes of each of the wishes have, in their order.

    Raises ConfigurationError for a wish that cannot be fulfilled and for a rack.lock that is not
    what was written, NetworkError, NotAuthentic, also where what is not locked yet would be older
    than it was, MissingTool without pacman where something is to be resolved, HostStorage,
    Interrupted.
    """
    if _leaves_to_release(order):
        base_of(order.release, order.terms.cache, order.terms.progress)  # is at hand from then on
    here = packages_at_hand(order)
    if here is not None:
        return here
    with alone(order.terms):
        # Another run, for which this one waited, may have locked them meanwhile.
        now = RackLock.load(order.lock.path)
        if order.lock.sets and not now.sets:
            raise _changed(order)
        order = replace(order, lock=now)
        base = base_of(order.release, order.terms.cache, order.terms.progress)
        if (base.has_pacman or not _only_salt(order)) and is_unlocked(order):
            order = replace(order, lock=_locked(order))
        _pinned(order, _named(order))
        here = packages_at_hand(order)
    if here is None:
        raise AssertionError("what was locked and archived just now is at hand")
    return here


def packages_at_hand(order: PackageOrder) -> tuple[PackageSet, ...] | None:
    """As ``packages_of`` where that needs neither the network nor a change; else None. Nothing is
    made or changed. Raises NotAuthentic for a pin of another key, ConfigurationError where Salt
    does not work on the nodes' Python, or where rack.lock does not give what rack.toml asks for."""
    base = base_at_hand(order.release, order.terms.cache) if order.wishes else None
    archived: dict[str, tuple[VerifiedPacman, ...]] = {}  # by wish: many nodes have the same
    found: list[PackageSet] = []
    for wish in order.wishes:
        pin = order.lock.sets.get(wish.key)
        if wish.is_plain or (_is_salts(order, wish) and base is not None and not base.has_pacman):
            found.append(PackageSet((), enable=wish.enable))
        elif pin is None or pin.release != order.release.sha256:
            return None
        else:
            if wish.key not in archived:
                here = _archived(order, pin.packages)
                if here is None:
                    return None
                require_fulfilled(order.lock.path, wish, pin, here, base)
                archived[wish.key] = here
            found.append(_set_of(wish, pin, archived[wish.key]))
        if base is not None:
            _require_python(order, base, found[-1].install)
    return tuple(found)


def _archived(order: PackageOrder, names: Sequence[str]) -> tuple[VerifiedPacman, ...] | None:
    """The pinned packages ``names``, if the archive has all of them, undamaged."""
    archive = PackageArchive(order.terms.cache)
    found = []
    for name in names:
        try:
            package = archive.find(name, _pin(order, name))
        except DamagedPackage:
            return None
        if package is None:
            return None
        found.append(package)
    return tuple(found)


def require_archived(order: PackageOrder) -> None:
    """Raise NetworkError when a package that rack.lock pins for a wish is not in the archive.
    Changes nothing."""
    archive = PackageArchive(order.terms.cache)
    missing = [name for name in _named(order) if archive.find(name, _pin(order, name)) is None]
    if missing:
        raise _not_here(order, missing)


def plan_packages(order: PackageOrder, moving: Collection[str] | None = None) -> LockPlan:
    """What rack.lock is to say. Without ``moving`` only what it does not say yet is resolved; with
    it everything is, and only the packages in it may change, or all when it is empty.

    Raises as ``packages_of``, and ConfigurationError for a name in ``moving`` that is not locked
    and would not be.
    """
    names = set(order.lock.pacman)
    if moving is not None:
        base = base_of(order.release, order.terms.cache, order.terms.progress)
        _require_movable(order, moving, installed_of(base))
        names = names - set(moving) if moving else names & order.hold
    kept = _archived(order, sorted(names))
    if kept is None:
        with alone(order.terms):
            kept = _pinned(order, sorted(names))
    plan = _plan(order, kept, fresh=moving is not None)
    _require_movable(order, moving or (), plan.offers)
    return plan


def _plan(order: PackageOrder, kept: Sequence[VerifiedPacman], *, fresh: bool) -> LockPlan:
    """See ``plan_packages``; what is ``kept`` does not move."""
    base = base_of(order.release, order.terms.cache, order.terms.progress)
    repositories = repositories_of(base)
    given = PlanInput(
        release_sha256=order.release.sha256,
        base=base,
        arch=repositories.arch,
        lock=order.lock,
        kept=kept,
        repositories=(),
        cache=order.terms.cache,
    )
    wishes = {wish.key: wish for wish in order.wishes if not wish.is_plain}

    def planned(repositories: Sequence[Database]) -> LockPlan:
        with order.terms.progress.phase("resolve packages"):
            its = replace(given, repositories=repositories)
            return plan_lock(its, wishes, fresh)

    try:
        if order.terms.offline:
            plan = planned(())
        else:
            with _network(order) as source:
                plan = source.offers(planned)
    except ConfigurationError as error:
        if not order.terms.offline:
            raise
        raise NetworkError(
            f"the packages of this rack are not locked, and the archive alone is not enough: "
            f"{error.what}",
            hint="run picloud-image lock once without --offline",
            details=error.details,
        ) from error
    for pin in plan.sets.values():
        _require_python(order, base, [plan.offers[name] for name in pin.packages])
    return plan


def carry_out(order: PackageOrder, plan: LockPlan, into: Path | None = None) -> RackLock:
    """Fetch and prove what ``plan`` needs, then write it into rack.lock, or into the new lock
    ``into``. Returns the lock that was written.

    Raises as ``packages_of``, and ConfigurationError where rack.lock is another one by now; it is
    then as before, and what was proven is archived.
    """
    now = RackLock.load(order.lock.path)
    if (now.sets, now.pacman) != (order.lock.sets, order.lock.pacman):
        raise _changed(order)
    target = now if into is None else RackLock.load(into)
    if target.path != now.path and target.sets:
        raise _changed(order, target.path)
    new = {name: offer for name, offer in plan.offers.items() if offer.url}
    pins = {name: order.lock.pacman[name] for name in plan.offers if name not in new}
    if new:
        with _network(order) as source:
            pins |= source.offered(new)
    return target.with_packages(pins, plan.sets)


def verify_archive(order: PackageOrder) -> Iterator[VerifiedPacman]:
    """Prove every package that rack.lock pins anew: its bytes, its signature, and what it says of
    itself. Yields each after its proof; raises NotAuthentic for the first that fails, which is
    renamed unless it is the key that failed, NetworkError for one that is not here."""
    from imager.packages.fetch.network import signing_key
    from imager.packages.fetch.package import prove

    terms = order.terms
    if not order.lock.pacman:
        return
    key = signing_key(order.release.fingerprint, terms, order.sources)
    archive = PackageArchive(terms.cache)
    for name in sorted(order.lock.pacman):
        package = archive.find(name, _pin(order, name))
        if package is None:
            raise _not_here(order, [name])
        try:
            prove(package, key)
        except NotAuthentic as error:
            if key.is_revoked:
                raise  # the package is what it was, and may have the signature of another key, too
            aside = archive.set_aside(package.sha256)
            raise NotAuthentic(error.what, hint=f"{GET_ANEW} {aside.name}") from error
        yield package


def _locked(order: PackageOrder) -> RackLock:
    """rack.lock with what it did not say yet."""
    from imager.packages.fetch.package import MirrorMoved

    _require_same_release(order)
    order.terms.progress.note("rack.lock does not say yet which packages the nodes have")
    kept = _pinned(order, sorted(order.lock.pacman))
    try:
        return carry_out(order, _agreed(order, kept))
    except MirrorMoved as error:
        order.terms.progress.note(f"{error.what}; asking again what there is")
    return carry_out(order, _agreed(order, kept))


def _agreed(order: PackageOrder, kept: Sequence[VerifiedPacman]) -> LockPlan:
    """What is to be locked though nobody is shown it."""
    plan = _plan(order, kept, fresh=False)
    require_agreed(plan, order.agreed)
    return plan


def _require_python(
    order: PackageOrder, base: BaseSystem, packages: Iterable[VerifiedPacman | PackageOffer]
) -> None:
    require_python(order.salt_version, base, {each.name: each.version for each in packages})


def _require_same_release(order: PackageOrder) -> None:
    """One rack has one release: two would move the same names to and fro."""
    release = order.release
    others = {pin.sha256: name for name, pin in order.lock.pins.items() if name != release.name}
    for locked in order.lock.sets.values():
        if locked.release != release.sha256 and locked.release in others:
            raise ConfigurationError(
                f"{order.lock.path} has the packages of {others[locked.release]}, not of "
                f"{release.name}",
                hint="use a rack of its own for it, or say picloud-image lock --update",
            )


def _require_movable(order: PackageOrder, moving: Collection[str], others: Collection[str]) -> None:
    """Raise for a name that is not locked, and is none of ``others`` either, or is held: what the
    release has itself may be locked as an older one, and is named as that."""
    for name in moving:
        if name not in order.lock.pacman and name not in others:
            raise ConfigurationError(
                f"{name} is not among the {len(order.lock.pacman)} packages of {order.lock.path}",
                hint="picloud-image lock shows them; what is new goes into [packages] in rack.toml",
            )
        if name in order.lock.pacman and name in order.hold:
            raise ConfigurationError(
                f"{name} is held by [packages] hold",
                hint="take it out of hold in rack.toml if it is to move",
            )


def _pinned(order: PackageOrder, names: Sequence[str]) -> tuple[VerifiedPacman, ...]:
    """The pinned packages ``names``, fetched where they are not archived. No other run may fetch
    meanwhile: both would add to what came in so far of a package."""
    archive = PackageArchive(order.terms.cache)
    missing = {name: pin for name in names if not _sound(order, name, pin := _pin(order, name))}
    if missing and order.terms.offline:
        raise _not_here(order, list(missing))
    if missing:
        with _network(order) as source:
            source.pinned(missing)
    found = (archive.find(name, order.lock.pacman[name]) for name in names)
    return tuple(package for package in found if package is not None)


def _sound(order: PackageOrder, name: str, pin: PacmanPin) -> bool:
    """Whether the archive has it. A damaged one is set aside, but not by who cannot fetch it."""
    archive = PackageArchive(order.terms.cache)
    try:
        return archive.find(name, pin) is not None
    except DamagedPackage as error:
        if order.terms.offline:
            raise
        aside = archive.set_aside(pin.sha256)
        order.terms.progress.warn(f"{error.what}; it is kept as {aside.name}")
        return False


def _pin(order: PackageOrder, name: str) -> PacmanPin:
    pin = order.lock.pacman[name]
    if pin.signer != order.release.fingerprint:
        raise NotAuthentic(
            f"rack.lock pins a {name} that the key {pin.signer} signed",
            hint=f"for packages by {order.release.fingerprint}, run picloud-image lock --update",
        )
    return pin


def _set_of(wish: PackageWish, pin: SetPin, packages: tuple[VerifiedPacman, ...]) -> PackageSet:
    explicit = {name_in(word) for word in pin.wanted} & set(pin.packages)
    return PackageSet(packages, pin.remove, frozenset(explicit), wish.enable)


def _is_salts(order: PackageOrder, wish: PackageWish) -> bool:
    return wish.names <= order.salt and not wish.remove


def _only_salt(order: PackageOrder) -> bool:
    return all(wish.is_plain or _is_salts(order, wish) for wish in order.wishes)


def is_unlocked(order: PackageOrder) -> bool:
    """Whether rack.lock does not say yet what one of the wishes means."""
    sets = (order.lock.sets.get(wish.key) for wish in order.wishes if not wish.is_plain)
    return any(pin is None or pin.release != order.release.sha256 for pin in sets)


def _leaves_to_release(order: PackageOrder) -> bool:
    """Whether rack.lock has no package for something that was wished: the release must have it."""
    sets = order.lock.sets
    return any(wish.key in sets and elsewhere(wish, sets[wish.key]) for wish in order.wishes)


def _named(order: PackageOrder) -> list[str]:
    """Every package of the wishes, as rack.lock has them."""
    sets: Mapping[str, SetPin] = order.lock.sets
    keys = (wish.key for wish in order.wishes if wish.key in sets)
    return sorted({name for key in keys for name in sets[key].packages})


def _changed(order: PackageOrder, path: Path | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"{path or order.lock.path} was changed by another run meanwhile",
        hint="run the same command again; it goes by what is there now",
    )


def _not_here(order: PackageOrder, names: Sequence[str]) -> NetworkError:
    more, are = (f" and {len(names) - 1} more", "are") if len(names) > 1 else ("", "is")
    return NetworkError(
        f"{names[0]} {order.lock.pacman[names[0]].version}{more}, which rack.lock pins, {are} not "
        f"in {order.terms.cache.packages}",
        hint="run picloud-image fetch once without --offline",
    )


@contextmanager
def _network(order: PackageOrder) -> Iterator[PackageSource]:
    # Not imported above: the modules for the network take 0.1 s to import.
    from imager.packages.fetch.network import package_source

    base = base_of(order.release, order.terms.cache, order.terms.progress)
    repositories = repositories_of(base)
    given = (order.release.fingerprint, repositories, order.terms, order.sources, order.limits)
    with package_source(*given) as source:
        yield source

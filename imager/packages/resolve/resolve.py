"""From names to packages: what pacman would install on a release, each step of it explained.

In: a wish, the packages a release has, and what repositories offer. Out: a Resolution, or a
ConfigurationError that says in a person's words what does not fit. Nothing is fetched here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imager.base.cache import Cache
from imager.base.errors import ConfigurationError, NetworkError
from imager.packages.metadata import PacmanPackage, parse_description, without_bound
from imager.packages.resolve.base_system import BaseSystem
from imager.packages.resolve.complaints import Known, explained, few_of, listed, unknown_names
from imager.packages.resolve.database import Database, PackageOffer
from imager.packages.resolve.pacman import Answer, Chosen, Pacman
from imager.packages.wish import PackageWish


@dataclass(frozen=True, slots=True)
class Resolution:
    """What fulfils a wish: ``packages`` to install, what is needed first, and ``remove``, names of
    the release's own."""

    packages: tuple[PackageOffer, ...]
    remove: tuple[str, ...]


def installed_of(base: BaseSystem) -> dict[str, tuple[str, PacmanPackage]]:
    """Entry and description of each package of the release, by name."""
    found = {}
    for entry, text in base.local.items():
        try:
            package = parse_description(text)
        except ValueError:
            continue  # pacman reports it better
        found[package.name] = (entry, package)
    return found


def resolve(
    wish: PackageWish, base: BaseSystem, arch: str, databases: Sequence[Database], cache: Cache
) -> Resolution:
    """What ``wish`` means on ``base``. The databases are asked in their order.

    Raises ConfigurationError with every reason why it cannot be, MissingTool without pacman,
    NetworkError for a database that says what cannot be, HostStorage.
    """
    installed = installed_of(base)
    with cache.work_folder("pacman") as work:
        pacman = Pacman(work, arch)
        pacman.know(databases)
        pacman.install(base.local)
        versions = {name: package.version for name, (_, package) in installed.items()}
        known = Known(base.release, versions, databases)
        gone = tuple(dict.fromkeys(wish.remove))
        faults = list(_not_there(gone, known))
        if faults:
            raise _refused(base, faults)
        pacman.remove(installed[name][0] for name in gone)
        wanted = pacman.unsatisfied(wish.install) if wish.install else ()
        faults = list(unknown_names(wanted, known))
        if faults:
            raise _refused(base, faults)
        answer = pacman.resolve(wanted) if wanted else Answer((), ())
        if answer.complaints:
            raise _refused(base, explained(answer.complaints, known))
        packages = tuple(_offered(chosen, databases) for chosen in answer.chosen)
        provided = {word for _, package in installed.values() for word in package.provides}
        faults = list(_choices(packages, wish, known, provided))
        if faults:
            raise _refused(base, faults)
        _require_sound(pacman, base, packages, [installed[name][0] for name in gone], known)
    return Resolution(packages, gone)


def asked_for_by(packages: Iterable[PackageOffer]) -> dict[str, tuple[str, ...]]:
    """For each of ``packages`` the names of those that need it."""
    listed = tuple(packages)
    makers = {package.name: package.name for package in listed}
    for package in listed:
        for word in package.provides:
            makers.setdefault(without_bound(word), package.name)
    found: dict[str, list[str]] = {package.name: [] for package in listed}
    for package in listed:
        for word in package.depends:
            maker = makers.get(without_bound(word))
            if maker and maker != package.name and package.name not in found[maker]:
                found[maker].append(package.name)
    return {name: tuple(names) for name, names in found.items()}


def _not_there(names: Iterable[str], known: Known) -> Iterator[str]:
    for name in names:
        if name not in known.installed:
            yield f"{name} cannot be removed: {known.release} has no package of that name"


def _offered(chosen: Chosen, databases: Sequence[Database]) -> PackageOffer:
    database = next(each for each in databases if each.name == chosen.repository)
    try:
        offer = database.offer(chosen.name)
    except ValueError as error:
        raise _unsound(database, f"{chosen.name}: {error}") from error
    if offer is None or offer.version != chosen.version:
        raise _unsound(database, f"{chosen.name} is in it under two names or versions")
    return offer


def _unsound(database: Database, why: str) -> NetworkError:
    return NetworkError(
        f"{database.server}/{database.name}.db is not sound: {why}",
        hint="run it again later; the mirror may be about to be updated",
    )


def _choices(
    packages: Sequence[PackageOffer], wish: PackageWish, known: Known, provided: set[str]
) -> Iterator[str]:
    """Every need that several packages would meet, where nobody said which one: pacman would take
    the first without a word. ``provided`` is what the release provides."""
    there = {*known.installed, *provided, *(package.name for package in packages)}
    for package in packages:
        for word in package.depends:
            name = without_bound(word)
            makers = () if name in there else known.providers(name)
            if len(makers) < 2 or not set(makers).isdisjoint({*known.installed, *wish.names}):
                continue
            if any(known.is_pinned(each) for each in makers if each in there):
                continue
            yield (
                f"{package.name} needs {name}, which {listed(makers)} provide: name one of them "
                "in install"
            )


def _require_sound(
    pacman: Pacman,
    base: BaseSystem,
    packages: Sequence[PackageOffer],
    gone: Sequence[str],
    known: Known,
) -> None:
    """Raise for what would be wrong among the packages of a node, but is not wrong already in the
    release itself."""
    names = {package.name for package in packages}
    old = [entry for name, (entry, _) in installed_of(base).items() if name in names]
    pacman.remove(entry for entry in old if entry not in gone)
    pacman.install({package.entry: package.description() for package in packages})
    faults = pacman.faults()
    if not faults:
        return
    pacman.remove(package.entry for package in packages)
    pacman.install({entry: base.local[entry] for entry in {*old, *gone}})
    before = set(pacman.faults())
    new = [fault for fault in faults if fault not in before]
    if new:
        raise _refused(base, explained(new, known))


def _refused(base: BaseSystem, faults: Iterable[str]) -> ConfigurationError:
    reasons = tuple(faults)
    details = few_of(reasons)
    return ConfigurationError(
        f"[packages]: {details[0]}"
        if len(details) == 1
        else f"[packages]: {len(reasons)} reasons why they cannot be added to {base.release}",
        hint="mend [packages] in rack.toml by what is named here (picloud-image docs locking)",
        details=details if len(details) > 1 else (),
    )

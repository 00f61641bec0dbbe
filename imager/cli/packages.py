"""From a rack's [packages] and what Salt needs to what each of its nodes has beyond the release.

In: a Session, a Rack, a VerifiedRelease. Out: a PackageSet for each node, resolved, proven,
archived and pinned. A lock is always made for all nodes of a rack, whichever are asked for. Canary
nodes go by canary.lock where there is one, all others by rack.lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from imager.base.errors import ConfigurationError
from imager.base.text import command_line
from imager.cli.session import Session
from imager.config.nodeset import fold
from imager.config.rack import Node, Rack
from imager.image.salt.needs import ARCH_PACKAGES
from imager.packages.candidate import candidate_in
from imager.packages.locking import PackageOrder, packages_at_hand, packages_of
from imager.packages.verified import PackageSet
from imager.packages.wish import PackageWish
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease

PackageSets = dict[str, PackageSet]
"""By node."""


def wish_of_node(rack: Rack, node: Node) -> PackageWish:
    """What ``node`` wants. What Salt needs is part of it, unless Salt comes without a version, or
    the rack has a folder of packages for that ([salt] packages)."""
    return PackageWish(_salt_needs(rack)).then(node.packages)


def candidate_of(rack: Rack) -> RackLock | None:
    """canary.lock, by which the canary nodes go; None where nothing is on trial. Raises
    ConfigurationError for one that no node goes by."""
    candidate = candidate_in(rack.candidate_file)
    if candidate is not None and not rack.canary:
        raise ConfigurationError(
            f"{rack.candidate_file} has packages on trial, and rack.toml names no canary that "
            "tries them",
            hint='name it again, as canary = ["pi3"] under [packages]; or drop what is on trial: '
            "picloud-image lock undo",
        )
    return candidate


def lock_of_node(rack: Rack, node: Node) -> RackLock:
    """The lock that says which packages ``node`` has."""
    candidate = candidate_of(rack) if node.name in rack.canary else None
    return candidate or RackLock.load(rack.lock_file)


def require_promoted(rack: Rack, nodes: Iterable[Node]) -> None:
    """Raise ConfigurationError while packages are on trial, unless all of ``nodes`` try them."""
    others = [node.name for node in nodes if node.name not in rack.canary]
    if not others or candidate_of(rack) is None:
        return
    canary = fold(rack.canary)
    raise ConfigurationError(
        f"{rack.candidate_file} is on trial on {canary}, and {fold(others)} would be written, too",
        hint=f"try it: {command_line('rack', 'flash', canary)}; then picloud-image lock promote "
        "gives it to all, or picloud-image lock undo drops it",
    )


def trial_line(rack: Rack) -> str | None:
    """Who has what no other node has yet, for a person; None where nothing is on trial."""
    if candidate_of(rack) is None:
        return None
    return (
        f"on trial: {fold(rack.canary)} by {rack.candidate_file.name}, the others by "
        f"{rack.lock_file.name} until picloud-image lock promote"
    )


def nodes_on_trial(rack: Rack) -> list[str]:
    """The nodes that go by canary.lock."""
    return [] if candidate_of(rack) is None else list(rack.canary)


def package_order(
    session: Session, rack: Rack, release: VerifiedRelease, terms: FetchTerms | None = None
) -> PackageOrder:
    """What one run asks for on behalf of all nodes of ``rack``, by rack.lock."""
    return PackageOrder(
        release=release,
        wishes=tuple(wish_of_node(rack, node) for node in rack.nodes),
        lock=RackLock.load(rack.lock_file),
        terms=terms or FetchTerms(session.cache, session.console, session.settings.offline),
        sources=KeySources(file=session.settings.signing_key),
        salt=frozenset(_salt_needs(rack)),
        hold=rack.held_packages,
        salt_version=rack.salt_version,
    )


def package_orders(
    session: Session, rack: Rack, release: VerifiedRelease, terms: FetchTerms | None = None
) -> tuple[PackageOrder, ...]:
    """The order by rack.lock, and after it the one by canary.lock where there is one."""
    order, candidate = package_order(session, rack, release, terms), candidate_of(rack)
    return (order,) if candidate is None else (order, replace(order, lock=candidate))


def packages_for(session: Session, rack: Rack, release: VerifiedRelease) -> PackageSets:
    """What each node has beyond ``release``, fetched and locked if need be. Raises as
    ``packages_of``."""
    orders = package_orders(session, rack, release)
    return _by_node(rack, [packages_of(order) for order in orders])


def packages_at_hand_for(
    session: Session, rack: Rack, release: VerifiedRelease, terms: FetchTerms
) -> PackageSets | None:
    """As ``packages_for`` if that needs neither the network nor a change, else None. Nothing is
    made or shown."""
    found = [packages_at_hand(order) for order in package_orders(session, rack, release, terms)]
    here = [sets for sets in found if sets is not None]
    return _by_node(rack, here) if len(here) == len(found) else None


def salts_alone(rack: Rack) -> frozenset[str]:
    """What Salt needs and nobody else asked for."""
    return frozenset(_salt_needs(rack)).difference(*(node.packages.names for node in rack.nodes))


def _salt_needs(rack: Rack) -> tuple[str, ...]:
    return ARCH_PACKAGES if rack.salt_version and not rack.salt_packages else ()


def _by_node(rack: Rack, of_orders: list[tuple[PackageSet, ...]]) -> PackageSets:
    """Each node's set: the last, which is the candidate's if there is one, for canary nodes."""
    promoted, tried = of_orders[0], of_orders[-1]
    return {
        node.name: tried[n] if node.name in rack.canary else promoted[n]
        for n, node in enumerate(rack.nodes)
    }

"""From a rack's [packages] and what Salt needs to what each of its nodes has beyond the release.

In: a Session, a Rack, a VerifiedRelease. Out: a PackageSet for each node, resolved, proven,
archived and pinned. rack.lock is always made for all nodes of a rack, whichever are asked for.
"""

from __future__ import annotations

from imager.cli.session import Session
from imager.config.rack import Node, Rack
from imager.image.salt.needs import ARCH_PACKAGES
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


def package_order(
    session: Session, rack: Rack, release: VerifiedRelease, terms: FetchTerms | None = None
) -> PackageOrder:
    """What one run asks for on behalf of all nodes of ``rack``."""
    return PackageOrder(
        release=release,
        wishes=tuple(wish_of_node(rack, node) for node in rack.nodes),
        lock=RackLock.load(rack.lock_file),
        terms=terms or FetchTerms(session.cache, session.console, session.settings.offline),
        sources=KeySources(file=session.settings.signing_key),
        salt=frozenset(_salt_needs(rack)),
        hold=rack.held_packages,
    )


def packages_for(session: Session, rack: Rack, release: VerifiedRelease) -> PackageSets:
    """What each node has beyond ``release``, fetched and locked if need be. Raises as
    ``packages_of``."""
    return _by_node(rack, packages_of(package_order(session, rack, release)))


def packages_at_hand_for(
    session: Session, rack: Rack, release: VerifiedRelease, terms: FetchTerms
) -> PackageSets | None:
    """As ``packages_for`` if that needs neither the network nor a change, else None. Nothing is
    made or shown."""
    found = packages_at_hand(package_order(session, rack, release, terms))
    return None if found is None else _by_node(rack, found)


def salts_alone(rack: Rack) -> frozenset[str]:
    """What Salt needs and nobody else asked for."""
    return frozenset(_salt_needs(rack)).difference(*(node.packages.names for node in rack.nodes))


def _salt_needs(rack: Rack) -> tuple[str, ...]:
    return ARCH_PACKAGES if rack.salt_version and not rack.salt_packages else ()


def _by_node(rack: Rack, sets: tuple[PackageSet, ...]) -> PackageSets:
    return {node.name: found for node, found in zip(rack.nodes, sets, strict=True)}

"""``fetch``: from a release's name to what is proven, archived and pinned."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from itertools import chain

import click
from pysequoia import Cert

from imager.base.units import format_size
from imager.cli.choice import open_rack, proven_release, proven_salt, require_programs
from imager.cli.consent import ask
from imager.cli.packages import package_orders
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.packages import package_fields
from imager.config.rack import Rack
from imager.packages.locking import packages_of, verify_archive
from imager.packages.verified import PackageSet
from imager.release.archive import prove
from imager.release.request import OlderRelease
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease, VerifiedSalt

_EVER = datetime.fromtimestamp(0, UTC)


@command("fetch")
@click.option("--update", is_flag=True, help="Move the pin in rack.lock to what is new now.")
@click.option("--yes", is_flag=True, help="Do not ask: move it to an older one, too.")
def fetch(session: Session, update: bool, yes: bool) -> CommandResult:
    """Fetch the release, packages and Salt, prove them, archive and pin them.

    What is pinned, in rack.lock, is used from then on, whatever is published later. What is
    archived already is read again and compared with its hash, and with --signing-key its
    signature is proven anew. --update leaves packages as they
    are: picloud-image lock --update moves those. It asks where what is published was signed
    before what is pinned.

    Examples:
        picloud-image fetch
            Have everything here before the cards are written.
        picloud-image fetch --update
            Take the release that is new now.
    """
    rack = open_rack(session)
    require_programs(rack)
    release = _released(session, rack, update=update, yes=yes)
    prove(release, session.cache, session.console, _named_key(session, release))
    orders = package_orders(session, rack, release)
    sets = tuple(dict.fromkeys(found for order in orders for found in packages_of(order)))
    orders = package_orders(session, rack, release)
    total = sum(pin.size_bytes for order in orders for pin in order.lock.pacman.values())
    if total:
        with session.console.phase("prove packages", total) as phase:
            for package in chain.from_iterable(verify_archive(order) for order in orders):
                phase.advance(package.size_bytes)
    salt = proven_salt(session, rack, update=update)
    session.console.lines(
        f"{release.name}: {format_size(release.size_bytes)}, signed by {release.fingerprint}",
        f"sha256 {release.sha256}",
        f"archived in {release.tarball.parent}, pinned in {rack.lock_file}",
        *_salt_lines(salt),
        *_packages_lines(sets),
    )
    return {
        "release": release.name,
        "sha256": release.sha256,
        "size_bytes": release.size_bytes,
        "fingerprint": release.fingerprint,
        "tarball": str(release.tarball),
        "source_url": release.source_url,
        "fetched_at": release.fetched_at,
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "sha256": package.sha256,
                "size_bytes": package.size_bytes,
                "file": str(package.path),
            }
            for package in (salt.packages if salt else ())
        ],
        "sets": [package_fields(each) for each in sets],
    }


def _released(session: Session, rack: Rack, *, update: bool, yes: bool) -> VerifiedRelease:
    """The release, or what is published now; an older one than what is pinned only if the person
    wants it."""
    chosen = partial(proven_release, session, rack, rack.nodes[0], update=update)
    try:
        return chosen(not_before=_EVER if yes else None)
    except OlderRelease as error:
        if not session.console.can_ask:
            raise
        ask(session, [f"{error.what}."], "yes")
        return chosen(not_before=error.signed_at)


def _named_key(session: Session, release: VerifiedRelease) -> Cert | None:
    """The key in the file that was named, which is kept: it may know of a revocation. None where
    none was named; what is archived was proven when it came."""
    if session.settings.signing_key is None:
        return None
    # Not imported above: the modules for the network take 0.1 s to import.
    from imager.packages.fetch.network import signing_key

    terms = FetchTerms(session.cache, session.console, session.settings.offline)
    return signing_key(release.fingerprint, terms, KeySources(file=session.settings.signing_key))


def _salt_lines(salt: VerifiedSalt | None) -> list[str]:
    if salt is None:
        return ["no Salt: rack.toml names no version under [salt]"]
    return [
        f"{package.name} {package.version}: {format_size(package.size_bytes)} from "
        f"{'PyPI' if package.fetched else 'the archive'}, sha256 {package.sha256[:16]}…"
        for package in salt.packages
    ]


def _packages_lines(sets: tuple[PackageSet, ...]) -> list[str]:
    """A line where the nodes have anything beyond the release; picloud-image lock shows what."""
    packages = {package.name: package for each in sets for package in each.install}
    if not packages:
        return []
    size = format_size(sum(package.size_bytes for package in packages.values()))
    return [f"{len(packages)} packages beyond the release: {size}, each signed by the same key"]

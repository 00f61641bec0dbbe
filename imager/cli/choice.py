"""From the common options to the rack, the release and the folders a command works with.

In: a Session. Out: a checked Rack, a ReleaseSpec, a VerifiedRelease, a GoldenImage. It is a
module of its own because every command begins with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from imager.base.boards import Board, board_named, kernel_among
from imager.base.errors import (
    ConfigurationError,
    HostStorage,
    MissingTool,
    NetworkError,
    NotAuthentic,
    UsageError,
)
from imager.base.programs import tools_for
from imager.base.progress import Quiet
from imager.base.run import require_tools
from imager.base.trusted_folder import TrustedFolder
from imager.cli.packages import package_orders, packages_at_hand_for, packages_for
from imager.cli.session import Session
from imager.config.folder import default_rack_to_be, find_rack
from imager.config.folder import rack_at_hand as folder_at_hand
from imager.config.load import load_rack
from imager.config.nodeset import expand, fold
from imager.config.rack import Node, Rack
from imager.doctor.programs import uses_of
from imager.image.compose.compose import cached_golden, compose
from imager.image.compose.golden import GoldenImage
from imager.node.files.templates import Allowance
from imager.packages.locking import require_archived as require_packages_archived
from imager.packages.rack_folder import bundle_in
from imager.packages.verified import PackageSet
from imager.rack.history.ledger import read_ledger
from imager.rack.plan.survey import GoldenImages, wants_of
from imager.rack.report.overview import OUT_OF_DATE_UNTOLD
from imager.release.catalogue import ReleaseSpec, spec_for
from imager.release.fetch import fetch_release
from imager.release.lock import RackLock
from imager.release.openpgp import fingerprints_in
from imager.release.salt.salt import fetch_salt, salt_at_hand
from imager.release.salt.salt import require_archived as require_salt_archived
from imager.release.signing_keys import key_file
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease, VerifiedSalt


def open_rack(session: Session, *, looking: bool = False) -> Rack:
    """The rack that ``--rack`` names, else the one here or above, else the default one, of which
    the person is told.

    The default one is made if it does not exist. With ``looking`` nothing is made: the rack is
    returned as it would be.
    """
    if looking and rack_at_hand(session) is None:
        rack = default_rack_to_be()
        session.console.note(
            f"no rack.toml here or above: this is the default rack, which will be made in "
            f"{rack.folder} when it is used (picloud-image rack init makes one of your own)"
        )
        return rack
    found = find_rack(Path.cwd(), session.settings.rack)
    if found.is_default:
        session.console.note(
            f"no rack.toml here or above: using the default rack in {found.path} "
            "(picloud-image rack init makes one of your own)"
        )
    return load_rack(found.path)


def existing_rack(session: Session) -> Rack:
    """As ``open_rack``, but raises ConfigurationError if there is no rack yet."""
    if rack_at_hand(session) is None:
        raise ConfigurationError(
            "no rack.toml here or above, and no default rack yet",
            hint="make one with picloud-image rack init, or name its folder with --rack DIR",
        )
    return open_rack(session)


def rack_at_hand(session: Session) -> Path | None:
    """The folder of the rack that ``open_rack`` would open; None if there is none. Makes
    nothing."""
    return folder_at_hand(Path.cwd(), session.settings.rack)


def own_folders(session: Session, rack: Rack) -> tuple[Path, ...]:
    """The cache and the rack: a disk on which they lie must not become a card."""
    return (session.cache.root.resolve(), rack.folder.resolve())


def folder_of_images(rack: Rack, named: Path) -> TrustedFolder:
    """The folder with the cards of a rack, made or saved, as a person named it, whether or not it
    is there: it holds the keys of all nodes. Where it lies in the rack, nothing on the way from the
    rack to it may be a link, either."""
    path = Path.cwd() / named
    if ".." not in path.parts and path.is_relative_to(rack.folder):
        return TrustedFolder(rack.folder, path.relative_to(rack.folder).parts)
    return TrustedFolder(path)


def chosen_release(session: Session, rack: Rack, node: Node) -> ReleaseSpec:
    """The release to use for a node: ``--release`` if given, else the one rack.toml names. It boots
    the node's board with the kernel that the node gets."""
    asked = session.settings.release
    source, key = rack.release.source, rack.release.signing_key
    if asked is not None and asked != source:
        source, key = asked, _key_for(session, asked)
    return spec_for(source, key, node.model, node.packages.names)


def _key_for(session: Session, release: str) -> str | None:
    """The fingerprint of the one key in the file that ``--signing-key`` names; a release given as a
    URL must be signed by it."""
    file = session.settings.signing_key
    if file is None or "://" not in release:
        return None
    found = fingerprints_in(key_file(file))
    if len(found) != 1:
        raise ConfigurationError(
            f"--signing-key {file}: holds {len(found)} OpenPGP keys, not one",
            hint="give the file of the one key that signs this release",
        )
    return found[0]


def proven_release(
    session: Session,
    rack: Rack,
    node: Node,
    *,
    update: bool = False,
    not_before: datetime | None = None,
    looking: bool = False,
) -> VerifiedRelease:
    """The release chosen for ``node``, fetched if need be, proven and archived; ``update``,
    ``not_before`` and ``looking`` are those of FetchTerms. Raises as fetch_release."""
    terms = _terms(session, update=update)
    return fetch_release(
        chosen_release(session, rack, node),
        RackLock.load(rack.lock_file),
        replace(terms, not_before=not_before, looking=looking),
        KeySources(file=session.settings.signing_key),
    )


def _terms(session: Session, *, update: bool) -> FetchTerms:
    return FetchTerms(session.cache, session.console, session.settings.offline, update)


def proven_salt(session: Session, rack: Rack, *, update: bool = False) -> VerifiedSalt | None:
    """The Salt that rack.toml names, fetched if need be and archived; None if it names none."""
    if rack.salt_version is None:
        return None
    salt = fetch_salt(
        rack.salt_version, RackLock.load(rack.lock_file), _terms(session, update=update)
    )
    return _with_packages(salt, rack)


def require_archived(session: Session, rack: Rack, nodes: Iterable[Node]) -> None:
    """With ``--offline``, raise if the cards of ``nodes`` need anything that must be fetched. The
    error is the one that the work itself would raise, but it comes before the person is asked, and
    in a dry run, too. Changes nothing."""
    if not session.settings.offline:
        return
    for its in by_boot(nodes):
        release = proven_release(session, rack, its[0])
        for order in package_orders(session, rack, release):
            require_packages_archived(order)
    if rack.salt_version is not None:
        require_salt_archived(rack.salt_version, session.cache, RackLock.load(rack.lock_file))


def _with_packages(salt: VerifiedSalt, rack: Rack) -> VerifiedSalt:
    return replace(salt, bundle=bundle_in(rack.salt_packages)) if rack.salt_packages else salt


def require_programs(rack: Rack) -> None:
    """Raise MissingTool for a program without which no card of ``rack`` can be made. The work would
    raise it too, but after hundreds of MB were fetched."""
    require_tools(*tools_for(*uses_of(rack)))


def golden_of(session: Session, rack: Rack, node: Node) -> GoldenImage:
    """The golden image for a node of the rack; what it is made of is fetched if need be."""
    return golden_images(session, rack, [node])[node.name]


def golden_images(session: Session, rack: Rack, nodes: Iterable[Node]) -> GoldenImages:
    """The golden image for each of ``nodes``, fetched and composed where need be."""
    require_programs(rack)
    found: dict[str, GoldenImage] = {}
    made: dict[tuple[str, PackageSet], GoldenImage] = {}
    for its in by_boot(nodes):
        release, model = proven_release(session, rack, its[0]), its[0].model
        # First: they may say that this Salt would not work, and then it need not be fetched.
        packages = packages_for(session, rack, release)
        salt = proven_salt(session, rack)
        for node in its:
            same = (model, packages[node.name])
            if same not in made:
                made[same] = compose(
                    release, session.cache, session.console, salt, packages[node.name]
                )
            found[node.name] = made[same]
    return found


def golden_images_at_hand(session: Session, rack: Rack, nodes: Iterable[Node]) -> GoldenImages:
    """As ``golden_images``, but only those composed already: fetches and makes nothing.

    Where a program is missing without which they cannot be told, it warns and returns none: what
    else is known can still be shown.
    """
    try:
        return dict(_composed(session, rack, nodes))
    except MissingTool as error:
        session.console.warn(f"{OUT_OF_DATE_UNTOLD}: {error.what}")
        return {}


def _composed(
    session: Session, rack: Rack, nodes: Iterable[Node]
) -> Iterator[tuple[str, GoldenImage]]:
    for its in by_boot(nodes):
        spec = chosen_release(session, rack, its[0])
        lock = RackLock.load(rack.lock_file)
        terms = FetchTerms(session.cache, Quiet(), offline=True)
        if lock.pin(spec.name) is None:
            continue
        try:
            release = fetch_release(spec, lock, terms)
            packages = packages_at_hand_for(session, rack, release, terms)
            salt = salt_at_hand(rack.salt_version, session.cache, lock)
            salt = _with_packages(salt, rack) if salt else None
        except (NetworkError, NotAuthentic):
            continue  # whoever needs it will be told then
        if packages is None:
            continue
        cached = {
            wanted: cached_golden(release, session.cache, salt, wanted)
            for wanted in {packages[node.name] for node in its}
        }
        for node in its:
            golden = cached[packages[node.name]]
            if golden is not None:
                yield node.name, golden


def by_boot(nodes: Iterable[Node]) -> Iterable[list[Node]]:
    """The nodes by board and kernel: what boots one of such nodes boots each."""
    found: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        found.setdefault((node.model, kernel_among(node.packages.names)), []).append(node)
    return found.values()


def recipes_at_hand(session: Session, rack: Rack) -> dict[str, str]:
    """As ``recipes_now``; where that cannot be told, it warns and returns none: a rack whose
    overlays are wrong, or whose golden image decayed, can still be looked at."""
    try:
        return recipes_now(session, rack)
    except (ConfigurationError, HostStorage, MissingTool) as error:
        session.console.warn(f"{OUT_OF_DATE_UNTOLD}: {error.what}")
        return {}


def recipes_now(session: Session, rack: Rack) -> dict[str, str]:
    """What the cards would be made from now, for the nodes that have a good card. Only what can be
    found without fetching or composing anything.

    Raises ConfigurationError for what is wrong with overlays or keys, HostStorage for what cannot
    be read, MissingTool for a program without which nobody can tell."""
    ledger = read_ledger(rack.folder)
    lasts = ((node, ledger.state_of(node.name).last) for node in rack.nodes)
    made = [node for node, last in lasts if last is not None and last.is_verified]
    # Without one, nobody asks which Pythons there are, which takes longer than all the rest.
    images = dict(_composed(session, rack, made))
    wants = wants_of(rack, made, ledger, images, Allowance(len(made)))
    return {want.node.name: want.recipe for want in wants if want.recipe}


def chosen_nodes(rack: Rack, asked: str | None) -> tuple[Node, ...]:
    """The nodes a command's NODES names (``pi[1-13]``), in the rack's order; all for None."""
    if asked is None:
        return rack.nodes
    try:
        names = expand(asked)
    except ValueError as error:
        those = shlex.quote(fold([node.name for node in rack.nodes]))
        raise UsageError(f"NODES: {asked!r} {error}", hint=f"for example {those}") from None
    wanted = {rack.node(name) for name in names}
    return tuple(node for node in rack.nodes if node in wanted)


def address_of(node: Node) -> str:
    """A node's address for a table."""
    return str(node.address.ip) if node.address is not None else "DHCP"


def chosen_board(model: str | None) -> Board | None:
    """The board that ``--model`` names; None where it names none. Raises UsageError."""
    try:
        return None if model is None else board_named(model)
    except ValueError as error:
        raise UsageError(f"--model: {error}", hint="leave it out for every board") from None

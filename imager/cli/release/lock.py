"""``lock``: which packages the nodes have beyond the release, by which bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import click

from imager.base.errors import NotAuthentic, UsageError
from imager.base.text import command_line
from imager.base.units import format_size
from imager.cli.choice import open_rack, proven_release
from imager.cli.consent import ask
from imager.cli.master import master_options
from imager.cli.packages import candidate_of, package_orders, packages_for, salts_alone
from imager.cli.release.canary import promoted, undone, warn_of_untried
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.packages import (
    HEAD,
    change_fields,
    change_lines,
    count_of,
    package_fields,
    package_rows,
    plan_fields,
    plan_lines,
)
from imager.config.nodeset import fold
from imager.config.rack import Rack
from imager.packages.candidate import changes_between
from imager.packages.carry.entries import EntryOrigin
from imager.packages.carry.lists import missing_of
from imager.packages.fetch.alone import alone
from imager.packages.locking import (
    PackageOrder,
    carry_out,
    is_unlocked,
    packages_at_hand,
    packages_of,
    plan_packages,
    verify_archive,
)
from imager.packages.plan import LockPlan, offer_of
from imager.packages.resolve.base_system import base_of
from imager.packages.resolve.resolve import asked_for_by
from imager.packages.verified import PackageSet
from imager.rack.master.connection import Way
from imager.release.lock import RackLock
from imager.release.verified import VerifiedRelease


@command("lock")
@click.argument("names", nargs=-1, metavar="[PKG]... | promote | undo")
@click.option("--update", is_flag=True, help="Move PKG, or all, to what the mirrors have now.")
@click.option("--verify", is_flag=True, help="Prove every archived package anew.")
@click.option("--dry-run", is_flag=True, help="Say what would change; no lock is written.")
@click.option("--yes", is_flag=True, help="Do not ask; what gets older must be named.")
@master_options
def lock(
    session: Session,
    names: tuple[str, ...],
    update: bool,
    verify: bool,
    dry_run: bool,
    yes: bool,
    way: Way,
) -> CommandResult:
    """Show the packages the nodes have beyond the release; pin those that are not pinned yet.

    What is pinned stays as it is until --update, which shows what would change and asks. Where
    rack.toml names a canary, that goes to its nodes alone, until promote, which asks the Salt
    master whether they are well, or undo. The options from --user to --local are for promote.

    Examples:
        picloud-image lock
            Which packages do the nodes have, and who asked for each?
        picloud-image lock --update docker --dry-run
            What would come with a new docker?
        picloud-image lock promote
            Give all nodes what the canary nodes tried.
    """
    if not update and not verify and names in (("promote",), ("undo",)):
        rack = open_rack(session, looking=dry_run)
        if names == ("undo",):
            return undone(session, rack, dry_run=dry_run)
        return promoted(session, rack, way, dry_run=dry_run)
    _require_sense(session, names, update=update, verify=verify, dry_run=dry_run)
    rack = open_rack(session, looking=dry_run)
    release = proven_release(session, rack, rack.nodes[0], looking=dry_run)
    orders = package_orders(session, rack, release)
    if verify:
        return _verified(session, orders)
    if update:
        return _updated(session, rack, orders, names, dry_run=dry_run, yes=yes)
    if dry_run:
        return _looked(session, rack, orders)
    return _shown(session, rack, release)


def _require_sense(
    session: Session, names: tuple[str, ...], *, update: bool, verify: bool, dry_run: bool
) -> None:
    if names and not update:
        raise UsageError(
            f"lock {names[0]}: names of packages belong to --update",
            hint=f"say {command_line('lock', '--update', *names)}, or picloud-image lock to see "
            "what is pinned",
        )
    if update and verify:
        raise UsageError("--update and --verify exclude each other", hint="leave one of them out")
    if verify and dry_run:
        # What is damaged is set aside.
        raise UsageError("--verify and --dry-run exclude each other", hint="leave one of them out")
    if update and session.settings.offline:
        raise UsageError("--offline and --update exclude each other", hint="leave one of them out")


def _looked(session: Session, rack: Rack, orders: Sequence[PackageOrder]) -> CommandResult:
    """Say what would be pinned and fetched. The release itself had to be fetched for that."""
    release = orders[0].release
    base_of(release, session.cache, session.console)
    order = next((each for each in orders if packages_at_hand(each) is None), None)
    fields = _planned(session, order) if order else _shown(session, rack, release)
    session.console.lines(*_left_alone(rack, release))
    return {"dry_run": True, **fields}


def _left_alone(rack: Rack, release: VerifiedRelease) -> list[str]:
    """How a dry run ends: the release, too, is pinned by none."""
    is_pinned = RackLock.load(rack.lock_file).pin(release.name) is not None
    return [
        *([] if is_pinned else [f"{release.name} ({release.sha256[:12]}…) would be pinned"]),
        "rack.lock is as it was (--dry-run); what had to be known for this is in the cache.",
    ]


def _planned(session: Session, order: PackageOrder) -> CommandResult:
    """What would change in the lock of ``order``, or else what it pins and is not here."""
    if is_unlocked(order):
        plan = plan_packages(order)
        session.console.event("plan", **plan_fields(plan))
        session.console.lines(*plan_lines(plan))
        return plan_fields(plan)
    found = missing_of(session.cache, order.lock)
    missing = [each for each in found if each.kind is EntryOrigin.PACMAN]
    size = sum(each.size_bytes for each in missing)
    session.console.lines(
        *(f"{each.called} ({format_size(each.size_bytes)})" for each in missing),
        f"{len(missing)} of those that {order.lock.path.name} pins are not in the archive, "
        f"{format_size(size)} to fetch",
    )
    return {"changes": [], "fetch_bytes": size}


def _verified(session: Session, orders: Sequence[PackageOrder]) -> CommandResult:
    sizes = {pin.sha256: pin.size_bytes for order in orders for pin in order.lock.pacman.values()}
    total, proven = sum(sizes.values()), set[str]()
    with session.console.phase("prove packages", total) as phase:
        for order in orders:
            for package in verify_archive(order):
                if package.sha256 not in proven:
                    phase.advance(package.size_bytes)
                proven.add(package.sha256)
    session.console.lines(
        f"{len(proven)} packages, {format_size(total)}: each is what rack.lock pins and what "
        f"{orders[0].release.fingerprint} signed"
    )
    return {"proven": len(proven), "size_bytes": total}


def _updated(
    session: Session,
    rack: Rack,
    orders: Sequence[PackageOrder],
    names: tuple[str, ...],
    *,
    dry_run: bool,
    yes: bool,
) -> CommandResult:
    order = orders[-1]
    plan = plan_packages(order, frozenset(names))
    # Nothing is on trial where nothing moves: what is new was never on other nodes.
    on_trial = bool(rack.canary) and any(change.old for change in plan.changes)
    session.console.event("plan", **plan_fields(plan))
    lines = plan_lines(plan)
    if on_trial:
        lines.append(f"on {fold(rack.canary)} alone, until picloud-image lock promote")
    if dry_run:
        session.console.lines(*lines, *_left_alone(rack, order.release))
        return {"dry_run": True, **plan_fields(plan)}
    if yes:
        _require_named(plan, names)
    if plan.changes and not yes:
        if not session.console.can_ask:
            raise UsageError(
                f"{count_of(plan)} would change and there is nobody to ask",
                hint="look with --dry-run, then say --yes",
            )
        ask(session, lines, "yes")
    else:
        session.console.lines(*lines)
    with alone(order.terms):
        carry_out(order, plan, rack.candidate_file if on_trial else None)
    # What rack.lock does not say yet is never on trial.
    for_all = replace(orders[0], lock=RackLock.load(rack.lock_file), agreed=frozenset(plan.older))
    if is_unlocked(for_all):
        packages_of(for_all)
    return {**plan_fields(plan), **_shown(session, rack, order.release)}


def _require_named(plan: LockPlan, names: Collection[str]) -> None:
    """Raise NotAuthentic for a package that would become older and that no one of ``names`` is:
    --yes alone is said by timers, too, and no mirror that is right offers less than it did."""
    older = [change for change in plan.changes if change.older_than and change.name not in names]
    if older:
        named = dict.fromkeys((*names, *plan.older))
        raise NotAuthentic(
            f"the mirrors have {len(older)} of the packages older than rack.lock or the release, "
            "and --yes alone does not agree to that",
            hint="if they are to go back, name them: "
            f"{command_line('lock', '--update', *named, '--yes')}",
            details=change_lines(older),
        )


def _shown(session: Session, rack: Rack, release: VerifiedRelease) -> CommandResult:
    """Show each set once, under the names of the nodes that have it, and what is on trial."""
    groups: dict[PackageSet, list[str]] = {}
    for name, packages in packages_for(session, rack, release).items():
        groups.setdefault(packages, []).append(name)
    for packages, nodes in groups.items():
        count, size = len(packages.install), sum(each.size_bytes for each in packages.install)
        removed = f", without {', '.join(packages.remove)}" if packages.remove else ""
        session.console.lines(
            f"{fold(nodes)}: {count} package{'' if count == 1 else 's'} beyond the release, "
            f"{format_size(size)}{removed}"
        )
        if packages.install:
            needed_by = asked_for_by(offer_of(package) for package in packages.install)
            session.console.table(HEAD, package_rows(packages, needed_by, salts_alone(rack)))
    if rack.lock_file.exists():
        session.console.lines(f"pinned in {rack.lock_file}")
    return {
        "lock": str(rack.lock_file),
        "candidate": _on_trial(session, rack),
        "sets": [{"nodes": nodes, **package_fields(each)} for each, nodes in groups.items()],
    }


def _on_trial(session: Session, rack: Rack) -> dict[str, object] | None:
    """Show what the canary nodes have that differs from rack.lock; None where nothing does."""
    candidate = candidate_of(rack)
    if candidate is None:
        return None
    changes = changes_between(RackLock.load(rack.lock_file), candidate)
    session.console.lines(
        f"on trial on {fold(rack.canary)}, pinned in {rack.candidate_file}:",
        *change_lines(changes),
        "picloud-image lock promote gives it to all nodes, picloud-image lock undo drops it",
    )
    warn_of_untried(session, rack, candidate, changes)
    return {
        "lock": str(candidate.path),
        "nodes": list(rack.canary),
        "changes": change_fields(changes),
    }

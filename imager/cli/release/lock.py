"""``lock``: which packages the nodes have beyond the release, by which bytes."""

from __future__ import annotations

import click

from imager.base.errors import UsageError
from imager.base.units import format_size
from imager.cli.choice import open_rack, proven_release
from imager.cli.consent import ask
from imager.cli.packages import package_order, salts_alone
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.packages import (
    HEAD,
    package_fields,
    package_rows,
    plan_fields,
    plan_lines,
)
from imager.config.nodeset import fold
from imager.config.rack import Rack
from imager.packages.locking import (
    PackageOrder,
    alone,
    carry_out,
    packages_at_hand,
    packages_of,
    plan_packages,
    verify_archive,
)
from imager.packages.plan import offer_of
from imager.packages.resolve.resolve import asked_for_by
from imager.packages.verified import PackageSet


@command("lock")
@click.argument("names", nargs=-1, metavar="[PKG]...")
@click.option("--update", is_flag=True, help="Move PKG, or all, to what the mirrors have now.")
@click.option("--verify", is_flag=True, help="Prove every archived package anew.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and touch nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def lock(
    session: Session, names: tuple[str, ...], update: bool, verify: bool, dry_run: bool, yes: bool
) -> CommandResult:
    """Show the packages the nodes have beyond the release; pin those that are not pinned yet.

    What is pinned stays as it is until --update, which shows what would change and asks.
    """
    _require_sense(session, names, update=update, verify=verify)
    rack = open_rack(session)
    order = package_order(session, rack, proven_release(session, rack, rack.nodes[0]))
    if verify:
        return _verified(session, order)
    if update:
        return _updated(session, rack, order, names, dry_run=dry_run, yes=yes)
    if dry_run and packages_at_hand(order) is None:
        plan = plan_packages(order)
        session.console.event("plan", **plan_fields(plan))
        session.console.lines(*plan_lines(plan), "Nothing was touched (--dry-run).")
        return {"dry_run": True, **plan_fields(plan)}
    return _shown(session, rack, packages_of(order))


def _require_sense(session: Session, names: tuple[str, ...], *, update: bool, verify: bool) -> None:
    if names and not update:
        raise UsageError(
            f"lock {names[0]}: names of packages belong to --update",
            hint=f"say lock --update {' '.join(names)}, or lock alone to see what is pinned",
        )
    if update and verify:
        raise UsageError("--update and --verify exclude each other", hint="leave one of them out")
    if update and session.settings.offline:
        raise UsageError("--offline and --update exclude each other", hint="leave one of them out")


def _verified(session: Session, order: PackageOrder) -> CommandResult:
    total = sum(pin.size_bytes for pin in order.lock.pacman.values())
    proven = 0
    with session.console.phase("prove packages", total) as phase:
        for package in verify_archive(order):
            phase.advance(package.size_bytes)
            proven += 1
    session.console.lines(
        f"{proven} packages, {format_size(total)}: each is what rack.lock pins and what "
        f"{order.release.fingerprint} signed"
    )
    return {"proven": proven, "size_bytes": total}


def _updated(
    session: Session,
    rack: Rack,
    order: PackageOrder,
    names: tuple[str, ...],
    *,
    dry_run: bool,
    yes: bool,
) -> CommandResult:
    plan = plan_packages(order, frozenset(names))
    session.console.event("plan", **plan_fields(plan))
    lines = plan_lines(plan)
    if dry_run:
        session.console.lines(*lines, "Nothing was touched (--dry-run).")
        return {"dry_run": True, **plan_fields(plan)}
    if plan.changes and not yes:
        if not session.console.can_ask:
            raise UsageError(
                f"{len(plan.changes)} packages would change and there is nobody to ask",
                hint="look with --dry-run, then say --yes",
            )
        ask(session, lines, "yes")
    else:
        session.console.lines(*lines)
    with alone(order.terms):
        carry_out(order, plan)
    moved = package_order(session, rack, order.release)
    return {**plan_fields(plan), **_shown(session, rack, packages_of(moved))}


def _shown(session: Session, rack: Rack, sets: tuple[PackageSet, ...]) -> CommandResult:
    """Show each set once, under the names of the nodes that have it."""
    groups: dict[PackageSet, list[str]] = {}
    for node, packages in zip(rack.nodes, sets, strict=True):
        groups.setdefault(packages, []).append(node.name)
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
    session.console.lines(f"pinned in {rack.lock_file}")
    return {
        "lock": str(rack.lock_file),
        "sets": [{"nodes": nodes, **package_fields(each)} for each, nodes in groups.items()],
    }

"""``clone``: one card becomes several, all from one reading of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from imager.base.errors import TargetRefused, UsageError
from imager.base.text import command_line
from imager.base.units import format_size
from imager.card.host.refusals import accept, refusals, refused
from imager.card.host.target import Limits, Refusal, RefusalCode, Target
from imager.card.host.targets import target_at
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.save.at_rest import require_different
from imager.card.save.original import Original, opened_original
from imager.card.save.smaller import require_shrinkable
from imager.card.write.options import options_for
from imager.cli.card.clone_node import made_other, stamp_of, wish_of
from imager.cli.card.write_image import folders_of_ours, own_receipts
from imager.cli.consent import consent_options, consented_all, limits_of
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.cli.views.batch_screen import Screen
from imager.cli.views.copies import plan_fields, plan_lines, show_copies
from imager.rack.batch.copies import CopyJob, CopyOrders, copy_to


@command("clone", uses=("rack", "cache"))
@click.argument("source", type=PATH)
@click.argument("targets", type=PATH, nargs=-1, required=True)
@click.option("--node", "node_name", metavar="NAME", help="Make the copy this node's own card.")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@click.option("--no-probe", is_flag=True, help="Trust the size of cards never seen before.")
@notify_option
@consent_options
def clone(
    session: Session,
    source: Path,
    targets: tuple[Path, ...],
    node_name: str | None,
    dry_run: bool,
    no_probe: bool,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
) -> CommandResult:
    """Copy a card to other cards, to several at once.

    SOURCE and TARGETS are disks, or files whose names end in .img. What the filesystems of
    SOURCE use is read once and written to every target; each byte is read back from each of
    them. A target that fails drops out and is left blank, and the others go on. A target may be
    smaller than SOURCE if the partitions fit.

    A copy of a node's card is that node once more, with the same keys and the same name. With
    --node it becomes another node of the rack instead, with all that is installed on it.

    Examples:
        sudo picloud-image clone /dev/sdb /dev/sdc
            Make a second card like the one in /dev/sdb.
        sudo picloud-image clone /dev/sdb /dev/sdc /dev/sdd
            Make two more, in the time that one takes.
        sudo picloud-image clone /dev/sdb /dev/sdc --node pi8
            Make pi8's card of the card of pi7 that is in /dev/sdb.
        sudo picloud-image clone /dev/sdb /dev/sdc --dry-run
            What would be copied, and what would be lost?
    """
    if node_name is not None and len(targets) > 1:
        raise UsageError(
            f"--node {node_name} is one card, and {len(targets)} targets are named",
            hint="name one target; a card for each node is made by one command each",
        )
    ours = folders_of_ours(session)
    found = [target_at(target, ours) for target in targets]
    limits = limits_of(ours, max_size, allow_fixed_disk=allow_fixed_disk)
    require_different(source, found)
    with opened_original(source) as original:
        _refuse_early(original, found, limits)
        for line in plan_lines(original, found):
            session.console.say(line)
        session.console.event("plan", **plan_fields(original, found))
        if original.lost_bytes is None:
            session.console.warn(
                f"whether {original.name} is whole cannot be told: the map beside it, of what its "
                "card did not give, cannot be read"
            )
        elif original.lost_bytes:
            session.console.warn(
                f"{original.name} is not whole: {format_size(original.lost_bytes)} were lost when "
                "it was saved, and are zeros in each copy"
            )
        wish = wish_of(session, original, node_name, looking=dry_run) if node_name else None
        if wish is None:
            _warn_of_twins(session, original)
        if dry_run:
            session.console.lines("Nothing was touched (--dry-run).")
            return {"dry_run": True, **plan_fields(original, found)}
        allowed = consented_all(session, found, limits, yes=yes)
        jobs = [
            CopyJob(accept(target, _size_for(original, target), each))
            for target, each in zip(found, allowed, strict=True)
        ]
        if wish is not None:
            return made_other(session, original, jobs[0].accepted, wish, probe=not no_probe)
        return _copied(session, original, jobs, probe=not no_probe)


def _size_for(original: Original, target: Target) -> int:
    """How much the target must hold; an image file becomes as large as the card."""
    return original.card.size_bytes if target.made_anew else original.size_bytes


def _copied(
    session: Session, original: Original, jobs: Sequence[CopyJob], *, probe: bool
) -> CommandResult:
    mapped = original.extents.total_bytes
    if len(jobs) > 1:
        orders = CopyOrders(original, mapped, own_receipts(), probe=probe)
        with Screen(session.console, whole="all") as screen:
            results = copy_to(orders, jobs, screen)
        return show_copies(session.console, original, results)
    (job,) = jobs
    order = SourceOrder(
        original,
        job.accepted.need_bytes,
        job.accepted,
        own_receipts(),
        options=options_for(job.target),
    )
    made = make_poured_card(order, session.console, probe=probe)
    session.console.verdict(
        f"{job.name} is a copy of {original.name}: written, read back", good=True
    )
    trouble = made.receipt.trouble
    session.console.lines(*([trouble.meaning] if trouble else []), f"receipt {made.receipt_path}")
    return {"source": original.name, **made.receipt.brief(), "receipt": str(made.receipt_path)}


# ── what speaks against it ───────────────────────────────────────────────────────────────────────


def _refuse_early(original: Original, targets: Sequence[Target], limits: Limits) -> None:
    """Raise TargetRefused with every reason against every target that is certain now."""
    against = [(target, tuple(_against(original, target, limits))) for target in targets]
    bad = [(target, reasons) for target, reasons in against if reasons]
    if len(bad) == 1:
        raise refused(*bad[0])
    if bad:
        raise TargetRefused(
            f"{len(bad)} of {len(targets)} targets must not be overwritten",
            hint="mend every reason, or leave those targets out",
            details=[str(reason) for _, reasons in bad for reason in reasons],
        )


def _against(original: Original, target: Target, limits: Limits) -> Iterator[Refusal]:
    # The name of a fixed disk is asked for later.
    limits = replace(limits, typed_name=target.typed_name)
    for reason in refusals(target, _size_for(original, target), limits):
        if reason.code is not RefusalCode.TOO_SMALL:
            yield reason
            continue
        size, need = target.size_bytes, original.size_bytes
        yield Refusal(
            reason.code,
            f"{target.node} is too small: it has {size} bytes ({format_size(size)}), and the "
            f"partitions of {original.name} end at byte {need}: {need - size} bytes short",
            _instead(original, target),
        )


def _instead(original: Original, target: Target) -> str:
    """What to do where ``target`` is too small."""
    try:
        require_shrinkable(original.card)
    except UsageError:
        return f"take a card of {original.size_bytes} bytes or more"
    shrunk = command_line("read", original.name, "smaller.img", "--shrink")
    write = command_line("write", target.node, "--image", "smaller.img")
    return f"make them smaller in a copy: {shrunk}, then {write}"


def _warn_of_twins(session: Session, original: Original) -> None:
    stamp = stamp_of(original)
    if stamp is not None:
        facts = stamp.facts
        session.console.warn(
            f"{original.name} is {facts.node} of rack {facts.rack}, and each copy will be "
            f"{facts.node} too, with the same keys and the same name: switch on only one of them"
        )

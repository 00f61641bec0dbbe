"""``probe``: does this card store what it claims, and how fast is it?

In: TARGET, a disk. Out: a verdict in words or JSON, exit 24 for a fake, 21 for a faulty card, 22
for one that cannot be read. It overwrites, so it refuses and asks as ``write`` does.
"""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import UsageError
from imager.card.claim.claim import claim
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.probe.probe import probe_card
from imager.card.probe.report import ProbeReport
from imager.cli.consent import consent_options, consented, limits_of, refuse_early
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option


@command("probe", uses=("cache",))
@click.argument("target", type=PATH)
@click.option("--whole", is_flag=True, help="Write and read every byte, not samples.")
@notify_option
@consent_options
def probe(
    session: Session,
    target: Path,
    whole: bool,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
) -> CommandResult:
    """Find out whether a card stores what it claims, and how fast it is.

    Everything on TARGET is lost; afterwards it is blank. Samples take a minute or less on
    most cards; --whole takes as long as writing and reading all of the card.

    Examples:
        sudo picloud-image probe /dev/sdb
            Is it as large as it says? What is on it is lost.
        sudo picloud-image probe /dev/sdb --whole
            Write and read every byte; this takes hours.
    """
    ours = (session.cache.root.resolve(),)
    disk = target_at(target, ours)
    limits = limits_of(ours, max_size, allow_fixed_disk=allow_fixed_disk)
    if disk.made_anew:
        raise UsageError(
            f"{target} is {disk.noun} and has no capacity or speed of its own",
            hint="give a disk; picloud-image devices lists those of this computer",
        )
    refuse_early(disk, limits)
    limits = consented(session, disk, limits, yes=yes)
    with claim(accept(disk, 0, limits), 0) as card:
        report = probe_card(card, session.console, whole=whole)
    return _show_report(session, report)


def _show_report(session: Session, report: ProbeReport) -> CommandResult:
    for finding in report.findings:
        session.console.finding(finding)
    failure = report.error()
    if failure is None:
        first, *others = report.verdict()
        session.console.verdict(first, good=True)
        session.console.lines(*others, f"{report.target} is blank now.")
        return report.to_json()
    session.console.error(failure)
    return {"exit_code": failure.exit_code, **report.to_json()}

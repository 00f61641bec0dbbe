"""``explain``: what the lights and the screen of a board that does not start mean."""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import UsageError
from imager.bootcheck.check import check_boot
from imager.bootcheck.findings import Code, Finding
from imager.bootcheck.lights import BLANK, BLINKS, RAINBOW, BoardSign
from imager.card.inspect.verify import open_target
from imager.cli.choice import chosen_board
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.inspect import finding_lines


@command("explain", uses=())
@click.argument("target", type=PATH, required=False)
@click.option("--blinks", metavar="N", help="Short blinks, e.g. 4; 2+1: 2 long ones and 1 short.")
@click.option("--rainbow", is_flag=True, help="The rainbow screen stays.")
@click.option("--blank", is_flag=True, help="A dark screen, and no blink.")
@click.option("--model", metavar="MODEL", help="Which board it is, e.g. pi2.")
def explain(
    session: Session,
    target: Path | None,
    blinks: str | None,
    rainbow: bool,
    blank: bool,
    model: str | None,
) -> CommandResult:
    """Say what the lights or the screen of a dead board mean, and what to check.

    With TARGET, its card, the card is read too, and what on it can cause this comes first.

    Examples:
        picloud-image explain --blinks 4
            The green light blinks four times, again and again.
        picloud-image explain /dev/sdb --rainbow --model pi2
            Look on the card of this Pi 2 for what causes it.
    """
    sign = _sign(blinks, rainbow=rainbow, blank=blank)
    board = chosen_board(model)
    found = _causes(target, sign, model)
    meaning = sign.meaning_on(board)
    session.console.lines(f"{sign.seen}: {meaning}")
    for finding in found:
        session.console.event("finding", **finding.to_json())
        session.console.lines(*finding_lines(finding))
    if target is not None and not found:
        session.console.lines(f"nothing on {target} explains it: look elsewhere first")
    session.console.lines(*(f"  {n}. {check}" for n, check in enumerate(sign.checks, 1)))
    return {
        "seen": sign.seen,
        "means": meaning,
        "checks": list(sign.checks),
        "findings": [finding.to_json() for finding in found],
    }


def _sign(blinks: str | None, *, rainbow: bool, blank: bool) -> BoardSign:
    if (blinks is not None) + rainbow + blank != 1:
        raise UsageError(
            "explain needs one thing that is seen", hint="say --blinks N, --rainbow or --blank"
        )
    if blinks is None:
        return RAINBOW if rainbow else BLANK
    if blinks not in BLINKS:
        raise UsageError(
            f"--blinks {blinks}: no board says that", hint=f"known are {', '.join(BLINKS)}"
        )
    return BLINKS[blinks]


def _causes(target: Path | None, sign: BoardSign, model: str | None) -> list[Finding]:
    if target is None:
        return []
    with open_target(target) as fresh:
        report = check_boot(fresh.reader(), fresh.raw.size_bytes, model=model)
    # What was not looked at can cause anything.
    codes = {*sign.codes, Code.NOT_LOOKED_AT}
    return [finding for finding in report.findings if finding.code in codes]

"""``inspect``: what a card or an image is, and where it would boot; nothing is changed."""

from __future__ import annotations

from pathlib import Path

import click

from imager.base.errors import WouldNotBoot
from imager.bootcheck.check import BootReport, judge_card
from imager.bootcheck.partitions import read_card
from imager.card.inspect.own_notes import CardNotes, read_notes
from imager.card.inspect.stamp import read_stamp
from imager.card.inspect.verify import open_target
from imager.cli.choice import chosen_board, rack_at_hand
from imager.cli.paths import PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.firstboot import firstboot_fields, firstboot_lines
from imager.cli.views.inspect import finding_lines, scope_lines, verdict
from imager.cli.views.stamp import stamp_fields, stamp_lines, when
from imager.disk.manifest import Reader
from imager.node.stamp.facts import StampError
from imager.node.stamp.stamp import NoStamp, Stamp

TARGET = click.argument("target", type=PATH)


@command("inspect", uses=("rack",))
@TARGET
@click.option("--model", metavar="MODEL", help="Judge for this board only, e.g. pi2.")
def inspect(session: Session, target: Path, model: str | None) -> CommandResult:
    """Say what a card or image is, and whether and where it would boot.

    Examples:
        picloud-image inspect /dev/sdb
            Whose card is this, and how did its first boot end?
        picloud-image inspect pi7.img --model pi3
            Would this image start a Pi 3?
    """
    chosen_board(model)
    rack = rack_at_hand(session)
    with open_target(target) as fresh:
        read = fresh.reader()
        card = read_card(read, fresh.raw.size_bytes)
        report = judge_card(card, model=model)
        notes = read_notes(card)
        stamp = _stamp_or_fault(read, fresh.raw.size_bytes)
    told = [f"    stamp: {stamp}"] if isinstance(stamp, str) else stamp_lines(stamp, rack)
    _show_report(session, target, report, notes, told)
    fields = {**report.to_json(), "target": str(target), "card": notes.node}
    fields["salt"] = notes.salt or None
    fields["stamp"] = stamp_fields(stamp, rack)
    fields["firstboot"] = firstboot_fields(notes.firstboot)
    if report.bootable:
        return fields
    session.console.error(
        WouldNotBoot(
            f"{target} would not boot: {report.errors[0].what}", hint=report.errors[0].mend
        )
    )
    return {"exit_code": WouldNotBoot.exit_code, **fields}


def _stamp_or_fault(read: Reader, size_bytes: int) -> Stamp | str:
    try:
        return read_stamp(read, size_bytes)
    except NoStamp as error:
        return str(error)
    except StampError as error:
        return f"unusable: {error}"


def _show_report(
    session: Session, target: Path, report: BootReport, notes: CardNotes, stamp: list[str]
) -> None:
    console = session.console
    good = report.bootable and report.undecided is None
    console.verdict(f"{target}: {verdict(report)}", good=good)
    lines = []
    if notes.node:
        lines.append("    " + ", ".join(map(_told, notes.node.items())))
    lines += stamp
    if notes.salt:
        lines.append(f"    Salt {notes.salt}")
    if notes.firstboot is not None or good:
        lines += firstboot_lines(notes.firstboot)
    console.lines(*lines)
    for finding in report.findings:
        console.event("finding", **finding.to_json())
        console.lines(*finding_lines(finding))
    if report.left_out:
        console.lines(f"and {report.left_out} more findings like these")
    if not report.findings:
        console.lines("    no findings in what was looked at")
    console.lines(*scope_lines(report))


def _told(fact: tuple[str, object]) -> str:
    """One of the card's own words, with no room to look like a line of ours."""
    key, value = fact
    if key == "imaged_at" and isinstance(value, int):
        value = when(value)
    return " ".join(f"{key} {value}".split())[:200]

"""``devices`` and ``inspect``: look at disks and cards without changing them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imager.base.errors import WouldNotBoot
from imager.cli.card.verify import add_verify_command
from imager.cli.card.write import add_write_command
from imager.cli.choice import rack_at_hand
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.firstboot import firstboot_fields, firstboot_lines
from imager.cli.views.stamp import stamp_fields, stamp_lines

if TYPE_CHECKING:
    from imager.bootcheck.check import BootReport, Finding
    from imager.card.host.disks import Disk
    from imager.card.host.refusals import Refusal
    from imager.card.inspect.own_notes import CardNotes
    from imager.disk.manifest import Reader
    from imager.node.stamp.stamp import Stamp

TARGET = click.argument("target", type=click.Path(path_type=Path))


def add_card_commands(group: click.Group) -> None:
    """Add the commands that have to do with cards."""
    add_write_command(group)
    add_verify_command(group)

    @command(group, "inspect")
    @TARGET
    @click.option("--model", metavar="MODEL", help="Judge for this board only, e.g. pi2.")
    def inspect(session: Session, target: Path, model: str | None) -> CommandResult:
        """Say what a card or image is, and whether and where it would boot."""
        from imager.bootcheck.check import judge_card
        from imager.bootcheck.models import model_named
        from imager.bootcheck.partitions import read_card
        from imager.card.inspect.own_notes import read_notes
        from imager.card.inspect.verify import open_target
        from imager.card.medium.reopen import reader_of, remembering

        if model is not None:
            try:
                model_named(model)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="--model") from error
        rack = rack_at_hand(session)
        with open_target(target) as fresh:
            read = remembering(reader_of(fresh.raw), fresh.raw.size_bytes)
            card = read_card(read, fresh.raw.size_bytes)
            report = judge_card(card, model=model)
            notes = read_notes(card)
            stamp = _stamp_or_fault(read, fresh.raw.size_bytes)
        told = [f"    stamp: {stamp}"] if isinstance(stamp, str) else stamp_lines(stamp, rack)
        _tell_report(session, target, report, notes, told)
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

    @command(group, "devices")
    def devices(session: Session) -> CommandResult:
        """List every disk, what is on it, and whether it may be written."""
        from imager.card.host.disks import list_disks
        from imager.card.host.refusals import Limits, refusals

        ours = (session.cache.root.resolve(),)
        judged = [(disk, refusals(disk, 0, Limits(ours=ours))) for disk in list_disks(ours)]
        for disk, reasons in judged:
            session.console.lines(
                f"{disk.title}: {'refused' if reasons else 'ready'}",
                *(f"    on it: {held}" for held in disk.holds),
                *(f"    slot: {slot}" for slot in disk.by_path[:1]),
                *(f"    refused: {reason.message}" for reason in reasons),
            )
        if not judged:
            session.console.lines("This computer has no disk that could be a card.")
        return {"devices": [_disk_fields(disk, reasons) for disk, reasons in judged]}


def _disk_fields(disk: Disk, reasons: tuple[Refusal, ...]) -> dict[str, object]:
    return {
        "device": disk.node,
        "size_bytes": disk.size_bytes,
        "bus": disk.bus,
        "vendor": disk.vendor,
        "model": disk.model,
        "serial": disk.serial,
        "removable": disk.removable,
        "read_only": disk.read_only,
        "slots": list(disk.by_path),
        "holds": list(disk.holds),
        "ready": not reasons,
        "refusals": [
            {"code": reason.code, "message": reason.message, "hint": reason.hint}
            for reason in reasons
        ],
    }


def _stamp_or_fault(read: Reader, size_bytes: int) -> Stamp | str:
    from imager.card.inspect.stamp import read_stamp
    from imager.node.stamp.facts import StampError
    from imager.node.stamp.stamp import NoStamp

    try:
        return read_stamp(read, size_bytes)
    except NoStamp as error:
        return str(error)
    except StampError as error:
        return f"unusable: {error}"


def _tell_report(
    session: Session, target: Path, report: BootReport, notes: CardNotes, stamp: list[str]
) -> None:
    console = session.console
    lines = [f"{target}: {report.node or 'no host name found'}"]
    if notes.node:
        lines.append("    " + ", ".join(map(_told, notes.node.items())))
    lines += stamp
    if notes.salt:
        lines.append(f"    Salt {notes.salt}")
    if report.models:
        lines.append(f"    would boot: {', '.join(report.models)}")
    if notes.firstboot is not None or report.bootable:
        lines += firstboot_lines(notes.firstboot)
    console.lines(*lines)
    for finding in report.findings:
        console.event("finding", **finding.to_json())
        console.lines(*_finding_lines(finding))
    if report.left_out:
        console.lines(f"and {report.left_out} more findings like these")
    if not report.findings:
        console.lines("    no findings: every boot file is whole and in its place")


def _told(fact: tuple[str, object]) -> str:
    """One of the card's own words, with no room to look like a line of ours."""
    return " ".join(f"{fact[0]} {fact[1]}".split())[:200]


def _finding_lines(finding: Finding) -> list[str]:
    return [
        f"{finding.severity}: {finding.what} [{finding.code}]",
        f"    why:  {finding.why}",
        f"    seen: {finding.symptom}",
        f"    mend: {finding.mend}",
    ]

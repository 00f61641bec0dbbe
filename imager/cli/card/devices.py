"""``devices``: the disks of this computer, and which of them may be written."""

from __future__ import annotations

from imager.card.host.disks import Disk, list_disks
from imager.card.host.refusals import refusals
from imager.card.host.target import Limits, Refusal
from imager.card.inspect.identity import identity_of
from imager.cli.session import CommandResult, Session, command


@command("devices", uses=("cache",))
def devices(session: Session) -> CommandResult:
    """List every disk, what is on it, and whether it may be written.

    Examples:
        picloud-image devices
            Which disk is the card: by size, name and what is on it.
        picloud-image devices --json
            The same for a script; refusals have codes.
    """
    ours = (session.cache.root.resolve(),)
    judged = [(disk, refusals(disk, 0, Limits(ours=ours))) for disk in list_disks(ours)]
    names = {disk.node: identity_of(disk) for disk, _ in judged}
    for disk, reasons in judged:
        name = names[disk.node]
        session.console.lines(
            f"{disk.title}: {'refused' if reasons else 'ready'}",
            *([f"    on it: {name}"] if name else []),
            *(f"    on it: {held}" for held in disk.holds),
            *(f"    slot: {slot}" for slot in disk.by_path[:1]),
            *(f"    refused: {reason.message}" for reason in reasons),
        )
    if not judged:
        session.console.lines("This computer has no disk that could be a card.")
    return {"devices": [_disk_fields(disk, reasons, names[disk.node]) for disk, reasons in judged]}


def _disk_fields(disk: Disk, reasons: tuple[Refusal, ...], identity: str) -> dict[str, object]:
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
        "identity": identity or None,
        "ready": not reasons,
        "refusals": [
            {"code": reason.code, "message": reason.message, "hint": reason.hint}
            for reason in reasons
        ],
    }

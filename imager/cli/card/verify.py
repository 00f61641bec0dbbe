"""``verify``: is a card still what was written, and if a node ran from it, is it still whole?"""

from __future__ import annotations

import re
from pathlib import Path

import click

from imager.base.errors import UsageError
from imager.base.text import command_line
from imager.base.units import format_rate, format_size
from imager.card.host.first_mib import first_mib
from imager.card.inspect.stamp import require_trusted
from imager.card.inspect.use import CardUse
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import Proof, is_image_file, open_target, proof_for, verify_card
from imager.card.receipt.store import load_receipt
from imager.cli.card.repair import repair as repaired
from imager.cli.choice import rack_at_hand
from imager.cli.consent import consent_options
from imager.cli.paths import EXISTING_FILE, PATH
from imager.cli.session import CommandResult, Session, command
from imager.cli.terminal.attention import notify_option
from imager.cli.views.stamp import stamp_fields, stamp_lines
from imager.disk.budget import MAX_FINDINGS

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}\Z")


@command("verify")
@click.argument("target", type=PATH)
@click.option(
    "--receipt",
    type=EXISTING_FILE,
    help="Check against this receipt, not the card's own stamp.",
)
@click.option(
    "--key",
    metavar="FINGERPRINT",
    help="Demand a stamp signed by this key (SHA256:…). [the rack's, if one is at hand]",
)
@click.option("--repair", is_flag=True, help="Put back what was lost; asks before it writes.")
@notify_option
@consent_options
def verify(
    session: Session,
    target: Path,
    receipt: Path | None,
    key: str | None,
    repair: bool,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
) -> CommandResult:
    """Read a card again and compare it with its own stamp.

    The stamp is a signed list, on the card itself, of what it should hold: so this works on any
    computer, with no other file. A card that a node has run from is searched
    for damage: boot files and files of the release must be as they were. A card without a
    stamp is held against the newest receipt for it, if its rack is at hand. With a rack at
    hand, a stamp that another key signed is refused.

    With --repair the image is made again from the rack, and what the card has lost is put
    back: everything on a card no Pi has run from, else the boot files.

    Examples:
        sudo picloud-image verify /dev/sdb
            Is everything on it as it was written?
        sudo picloud-image verify /dev/sdb --repair
            Put back what was lost, from the rack.
    """
    if key is not None and not _FINGERPRINT.match(key):
        raise UsageError(
            f"--key {key!r} is no fingerprint",
            hint="give what rack show, or ssh-keygen -l, prints of the key: SHA256: and 43 letters",
        )
    rack = rack_at_hand(session)
    with open_target(target) as fresh:
        shown = first_mib(fresh) if repair else None
        if receipt is None:
            proof = proof_for(fresh.raw, rack)
        else:
            proof = Proof(load_receipt(receipt), receipt)
        if proof.fault:
            session.console.warn(f"{target}: {proof.fault}; using its receipt instead")
        found = verify_card(fresh, proof.held, session.console)
    fields = _fields(found, proof, rack)
    _show_findings(session, found)
    if repair and not found.sound:
        require_trusted(found.target, proof.held.stamp, rack, key)
        return repaired(
            session,
            target,
            found,
            proof,
            shown=shown,
            yes=yes,
            max_size=max_size,
            allow_fixed_disk=allow_fixed_disk,
        )
    found.require_sound(_repair_line(target, rack))
    require_trusted(found.target, proof.held.stamp, rack, key)
    session.console.verdict(_verdict(found), good=True)
    if proof.held.stamp is not None:
        session.console.lines(*stamp_lines(proof.held.stamp, rack))
    return fields


def _repair_line(target: Path, rack: Path | None) -> str:
    """The command that repairs the card; empty for an image file, which is made anew."""
    if is_image_file(target):
        return ""
    # Verifying needs no rack, repairing does.
    where = () if rack else ("--rack", "DIR")
    return command_line("verify", target, "--repair", *where)


def _show_findings(session: Session, found: Verification) -> None:
    for finding in _ranges(found)[:MAX_FINDINGS]:
        # On a card in use a range may differ because its node wrote there, so only files count.
        if finding["unreadable"] or not found.used:
            session.console.event("finding", **finding)
    if found.use is None:
        return
    for damaged in found.use.damaged[:MAX_FINDINGS]:
        session.console.event("finding", path=damaged.path, what=damaged.why)
    for what in found.use.unseen:
        session.console.warn(f"not looked at further: {what}")
    if not found.used:
        return
    for path in found.use.uncertain[:MAX_FINDINGS]:
        session.console.warn(
            f"{path} is not what was written: the node lost power while it wrote, or it is damaged"
        )
    if not found.use.listed:
        session.console.warn(
            "the stamp has no list of the release's files: only the boot partition was judged"
        )


def _ranges(found: Verification) -> list[dict[str, object]]:
    return [
        {
            "offset": mismatch.extent.offset,
            "length": mismatch.extent.length,
            "unreadable": mismatch.unreadable,
            "places": [str(place) for place in mismatch.places],
        }
        for mismatch in found.mismatches
    ]


def _fields(found: Verification, proof: Proof, rack: Path | None) -> dict[str, object]:
    ranges = _ranges(found)
    left_out = len(ranges) - MAX_FINDINGS
    return {
        "node": found.node,
        "target": found.target,
        "proof": proof.held.kind,
        "receipt": str(proof.receipt_path) if proof.receipt_path else None,
        "stamp": stamp_fields(proof.held.stamp or proof.fault, rack),
        "checked_bytes": found.checked_bytes,
        "cache_bypassed": found.cache_bypassed,
        "matches": found.matches,
        "sound": found.sound,
        "used": found.used,
        "use": _use_fields(found.use) if found.use else None,
        "boot_files": list(found.boot_files),
        "mismatches": ranges[:MAX_FINDINGS],
        **({"mismatches_left_out": left_out} if left_out > 0 else {}),
    }


def _use_fields(use: CardUse) -> dict[str, object]:
    listed = use.damaged[:MAX_FINDINGS]
    left_out = max(len(use.damaged), len(use.uncertain)) - MAX_FINDINGS
    return {
        "files_intact": use.intact,
        "files_changed": use.changed,
        "boot_files_intact": use.boot_files,
        "damaged": [{"path": damaged.path, "what": damaged.why} for damaged in listed],
        "uncertain": use.uncertain[:MAX_FINDINGS],
        "files_judged": use.listed,
        **({"not_looked_at": use.unseen} if use.unseen else {}),
        **({"left_out": left_out} if left_out > 0 else {}),
    }


def _verdict(found: Verification) -> str:
    read = (
        f"{format_size(found.checked_bytes)} read at {format_rate(found.figures.bytes_per_second)}"
    )
    if found.use is None or not found.used:
        return f"{found.target} is {found.node}, byte for byte as its {found.proof} says: {read}"
    use = found.use
    looked_at = "that was looked at " if use.unseen else ""
    return (
        f"{found.target} is {found.node}, and a Pi has run from it; "
        f"nothing {looked_at}is damaged: {use.boot_files} boot files and "
        f"{use.intact} other files are as written, "
        f"{use.changed} the node changed itself; {read}"
    )

"""``verify --repair``: put back what a card has lost, from its image made anew.

In: what verifying found, and the rack the card was written for. Out: a card that reads back right
again. A card no node has run from is restored whole; on one in use only boot files are put back.
What cannot be done is said with the command to run instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imager.base.errors import CardIOError, StampMismatch, TargetRefused
from imager.cli.choice import golden_of, open_rack, own_folders
from imager.cli.consent import consented, limits_of, refuse_early
from imager.cli.session import CommandResult, Session

if TYPE_CHECKING:
    from imager.card.diagnosis.trouble import Trouble
    from imager.card.host.refusals import AcceptedTarget
    from imager.card.inspect.verification import Verification
    from imager.card.inspect.verify import Proof
    from imager.config.rack import Rack
    from imager.disk.manifest import Reader
    from imager.node.files.card_values import Occasion
    from imager.node.image import NodeImage


@dataclass(frozen=True, slots=True)
class Patient:
    """A card to be repaired: what it should be, when it was made, and what is wrong with it.

    ``boot_files`` are damaged; ``beyond`` is damaged, too, and not to be put back while the card
    is in use (``used``).
    """

    path: Path
    node: str
    golden_key: str
    image_id: str
    size_bytes: int
    occasion: Occasion | None
    used: bool
    boot_files: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def again(self) -> str:
        """The hint where only writing the card helps."""
        return f"write it again: picloud-image write {self.path} --node {self.node}"


def patient_at(path: Path, found: Verification, proof: Proof) -> Patient:
    """Look at the card once more: has a node run from it, and when was it made?

    Raises CardIOError when the card refuses to tell.
    """
    from imager.card.inspect.card_files import CardFiles
    from imager.card.inspect.use import was_used
    from imager.card.inspect.verify import open_target
    from imager.card.medium.reopen import reader_of, remembering
    from imager.node.stamp.stamp import Stamp

    held = proof.held
    if isinstance(held, Stamp):
        layout, node, golden = held.facts.layout, held.facts.node, held.facts.golden_key
        image_id = held.facts.image_id
    else:
        layout, node, golden = held.image.layout, held.node, held.image.golden_key
        image_id = held.image.image_id
    with open_target(path) as fresh:
        read = remembering(reader_of(fresh.raw), fresh.raw.size_bytes)
        try:
            used = was_used(CardFiles(read, layout))
        except CardIOError as error:
            error.details = (*error.details, "so nobody can tell whether a Pi has run from it")
            raise
        occasion = _occasion(proof, fresh.raw.size_bytes, read)
    use = found.use
    beyond = tuple(str(d) for d in use.damaged if not d.path.startswith("/boot/")) if use else ()
    return Patient(
        path, node, golden, image_id, layout.size_bytes, occasion, used, found.boot_files, beyond
    )


def _occasion(proof: Proof, size_bytes: int, read: Reader) -> Occasion | None:
    from imager.bootcheck.partitions import read_card
    from imager.card.inspect.own_notes import read_notes
    from imager.node.files.card_values import Occasion
    from imager.node.stamp.stamp import Stamp

    if isinstance(proof.held, Stamp):
        facts = proof.held.facts
        return Occasion(facts.imaged_at, facts.tool_version)
    told = (read_notes(read_card(read, size_bytes)).node or {}).get("imaged_at")
    return Occasion(told, proof.held.tool_version) if isinstance(told, int) else None


def repair(
    session: Session,
    path: Path,
    found: Verification,
    proof: Proof,
    given: Mapping[str, object],
) -> CommandResult:
    """Repair the card at ``path``, of which ``found`` is known, after asking."""
    from imager.card.host.disks import Disk
    from imager.card.host.refusals import accept
    from imager.card.host.targets import target_at

    patient = patient_at(path, found, proof)
    rack = open_rack(session)
    ours = own_folders(session, rack)
    target, limits = target_at(path, ours), limits_of(given, ours)
    refuse_early(target, limits)
    if not isinstance(target, Disk):
        raise TargetRefused(f"{path} is a file, which is not repaired but made", hint=patient.again)
    if patient.used and not patient.boot_files:
        raise StampMismatch(
            f"{path}: a Pi has run from this card, and its boot files are whole; what is damaged "
            "can only be put back by writing the card",
            hint=f"save what you need and {patient.again}",
            details=patient.beyond,
        )
    limits = consented(
        session, target, limits, yes=bool(given["yes"]), warning=_warning(target.title, patient)
    )
    image = image_again(session, rack, patient)
    accepted = accept(target, image.layout.size_bytes, limits)
    if patient.used:
        return _boot_files_restored(session, rack, patient, image, accepted)
    return _restored(session, rack, image, accepted)


def _warning(title: str, patient: Patient) -> list[str]:
    if not patient.used:
        return [f"{title} is brought back to what was written for {patient.node}."]
    return [
        f"On {title} these boot files are put back; nothing else is touched.",
        *(f"    /boot/{name}" for name in patient.boot_files),
    ]


def image_again(session: Session, rack: Rack, patient: Patient) -> NodeImage:
    """The very image the card was given; raises StampMismatch when it is another one today."""
    from imager.node.personalise import personalise

    if patient.occasion is None:
        raise StampMismatch(
            f"{patient.path}: neither its stamp nor picloud/node.json says when it was made",
            hint=patient.again,
        )
    node = rack.node(patient.node)
    golden = golden_of(session, rack, node.model)
    if golden.key == patient.golden_key:
        image = personalise(
            golden, rack, node, patient.size_bytes, session.console, patient.occasion
        )
        if image.image_id == patient.image_id:
            return image
        changed = "the rack, its overlays or its keys have changed"
    else:
        changed = "the release or this computer's tools are others"
    raise StampMismatch(
        f"{patient.path}: {changed} since this card was written, so its bytes cannot be made again",
        hint=patient.again,
    )


def _restored(
    session: Session, rack: Rack, image: NodeImage, accepted: AcceptedTarget
) -> CommandResult:
    from imager.card.make.boot_check import boot_check
    from imager.card.make.restore import restore_card

    check = boot_check(rack.node(image.node), image)
    made = restore_card(image, accepted, rack.receipts, session.console, check=check)
    trouble = made.receipt.trouble
    session.console.event("receipt", path=str(made.receipt_path))
    session.console.lines(
        f"{accepted.target.node} is {image.node} again, byte for byte as it was written",
        *_trouble_lines(trouble),
        f"receipt {made.receipt_path}",
    )
    return {
        **_fields(image, accepted, trouble),
        "repaired": "card",
        "receipt": str(made.receipt_path),
    }


def _boot_files_restored(
    session: Session, rack: Rack, patient: Patient, image: NodeImage, accepted: AcceptedTarget
) -> CommandResult:
    from imager.card.make.boot_check import boot_check
    from imager.card.make.restore import restore_boot_files

    trouble = restore_boot_files(
        image,
        accepted,
        patient.boot_files,
        session.console,
        check=boot_check(rack.node(image.node), image),
    )
    if patient.beyond:
        raise StampMismatch(
            f"{patient.path}: the boot files are whole again; something else is still damaged",
            hint=f"save what you need and {patient.again}",
            details=patient.beyond,
        )
    session.console.lines(
        f"{accepted.target.node} is {image.node}, and its boot files are as they were written: "
        f"{', '.join(patient.boot_files)}",
        *_trouble_lines(trouble),
    )
    return {
        **_fields(image, accepted, trouble),
        "repaired": "boot files",
        "boot_files": list(patient.boot_files),
    }


def _trouble_lines(trouble: Trouble | None) -> list[str]:
    return [trouble.meaning] if trouble else []


def _fields(
    image: NodeImage, accepted: AcceptedTarget, trouble: Trouble | None
) -> dict[str, object]:
    return {
        "node": image.node,
        "target": accepted.target.node,
        "image_id": image.image_id,
        "trouble": trouble.to_json() if trouble else None,
    }

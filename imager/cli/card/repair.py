"""``verify --repair``: put back what a card has lost, from its image made anew.

In: what verifying found, and the rack the card was written for. Out: a card that reads back right
again. A card no node has run from is restored whole; on one in use only boot files are put back.
What cannot be done is said with the command to run instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import CardIOError, StampMismatch, TargetRefused
from imager.bootcheck.partitions import read_card
from imager.card.diagnosis.trouble import Trouble
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.own_notes import read_notes
from imager.card.inspect.use import was_used
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import Proof, open_target
from imager.card.make.boot_check import boot_check
from imager.card.make.order import CardOrder
from imager.card.make.restore import restore_boot_files, restore_card
from imager.card.medium.reopen import reader_of, remembering
from imager.card.write.options import options_for
from imager.cli.choice import golden_of, open_rack, own_folders
from imager.cli.consent import consented, limits_of, refuse_early
from imager.cli.session import CommandResult, Session
from imager.config.rack import Rack
from imager.disk.manifest import Reader
from imager.node.files.card_values import Occasion
from imager.node.image import NodeImage
from imager.node.personalise import personalise


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
    held = proof.held
    with open_target(path) as fresh:
        read = remembering(reader_of(fresh.raw), fresh.raw.size_bytes)
        try:
            used = was_used(CardFiles(read, held.layout))
        except CardIOError as error:
            error.details = (*error.details, "so nobody can tell whether a Pi has run from it")
            raise
        occasion = _occasion(proof, fresh.raw.size_bytes, read)
    use = found.use
    beyond = tuple(str(d) for d in use.damaged if not d.path.startswith("/boot/")) if use else ()
    return Patient(
        path,
        held.node,
        held.golden_key,
        held.image_id,
        held.layout.size_bytes,
        occasion,
        used,
        found.boot_files,
        beyond,
    )


def _occasion(proof: Proof, size_bytes: int, read: Reader) -> Occasion | None:
    told: object = proof.held.imaged_at
    if told is None:
        told = (read_notes(read_card(read, size_bytes)).node or {}).get("imaged_at")
    return Occasion(told, proof.held.tool_version) if isinstance(told, int) else None


def repair(
    session: Session,
    path: Path,
    found: Verification,
    proof: Proof,
    *,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
) -> CommandResult:
    """Repair the card at ``path``, of which ``found`` is known, after asking."""
    patient = patient_at(path, found, proof)
    rack = open_rack(session)
    ours = own_folders(session, rack)
    target = target_at(path, ours)
    limits = limits_of(ours, max_size, allow_fixed_disk=allow_fixed_disk)
    refuse_early(target, limits)
    if target.made_anew:
        raise TargetRefused(f"{path} is a file, which is not repaired but made", hint=patient.again)
    if patient.used and not patient.boot_files:
        raise StampMismatch(
            f"{path}: a Pi has run from this card, and its boot files are whole; what is damaged "
            "can only be put back by writing the card",
            hint=f"save what you need and {patient.again}",
            details=patient.beyond,
        )
    limits = consented(session, target, limits, yes=yes, warning=_warning(target.title, patient))
    image = image_again(session, rack, patient)
    accepted = accept(target, image.layout.size_bytes, limits)
    order = CardOrder(
        image,
        accepted,
        rack.receipts,
        options=options_for(target),
        check=boot_check(rack.node(image.node), image),
    )
    if patient.used:
        return _boot_files_restored(session, patient, order)
    return _restored(session, order)


def _warning(title: str, patient: Patient) -> list[str]:
    if not patient.used:
        return [f"{title} is brought back to what was written for {patient.node}."]
    return [
        f"On {title} these boot files are put back; nothing else is touched.",
        *(f"    /boot/{name}" for name in patient.boot_files),
    ]


def image_again(session: Session, rack: Rack, patient: Patient) -> NodeImage:
    """The very image the card was given; raises StampMismatch when it is another one today."""
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


def _restored(session: Session, order: CardOrder) -> CommandResult:
    target, node = order.accepted.target.node, order.image.node
    made = restore_card(order, session.console)
    trouble = made.receipt.trouble
    session.console.event("receipt", path=str(made.receipt_path))
    session.console.lines(
        f"{target} is {node} again, byte for byte as it was written",
        *_trouble_lines(trouble),
        f"receipt {made.receipt_path}",
    )
    return {
        **_fields(order, trouble),
        "repaired": "card",
        "receipt": str(made.receipt_path),
    }


def _boot_files_restored(session: Session, patient: Patient, order: CardOrder) -> CommandResult:
    target, node = order.accepted.target.node, order.image.node
    trouble = restore_boot_files(order, patient.boot_files, session.console)
    if patient.beyond:
        raise StampMismatch(
            f"{patient.path}: the boot files are whole again; something else is still damaged",
            hint=f"save what you need and {patient.again}",
            details=patient.beyond,
        )
    session.console.lines(
        f"{target} is {node}, and its boot files are as they were written: "
        f"{', '.join(patient.boot_files)}",
        *_trouble_lines(trouble),
    )
    return {
        **_fields(order, trouble),
        "repaired": "boot files",
        "boot_files": list(patient.boot_files),
    }


def _trouble_lines(trouble: Trouble | None) -> list[str]:
    return [trouble.meaning] if trouble else []


def _fields(order: CardOrder, trouble: Trouble | None) -> dict[str, object]:
    return {
        "node": order.image.node,
        "target": order.accepted.target.node,
        "image_id": order.image.image_id,
        "trouble": trouble.to_json() if trouble else None,
    }

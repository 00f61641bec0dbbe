"""``verify --repair``: put back what a card has lost, from its image, which is made again.

In: what ``verify`` found, and the rack the card was written for. Out: a card that reads back right
again. A card from which no node has run is restored whole; on a card in use only boot files are put
back. Where that cannot help, the error names the command to run instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import CardIOError, StampMismatch, TargetRefused
from imager.base.text import command_line
from imager.bootcheck.partitions import read_card
from imager.card.diagnosis.trouble import Trouble
from imager.card.host.refusals import accept
from imager.card.host.targets import target_at
from imager.card.inspect.card_files import CardFiles
from imager.card.inspect.own_notes import read_notes
from imager.card.inspect.use import was_used
from imager.card.inspect.verification import Verification
from imager.card.inspect.verify import Proof, open_target
from imager.card.make.boot_check import BootCheck
from imager.card.make.order import CardOrder
from imager.card.make.restore import restore_boot_files, restore_card
from imager.card.receipt.receipt import Receipt
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
class DamagedCard:
    """A card to be repaired: what it should hold, when it was made, and what is wrong with it.

    ``used`` says whether a node has run from it. ``boot_files`` are damaged boot files; ``beyond``
    are other damaged files, which cannot be put back on a card in use.
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
    def write_hint(self) -> str:
        """The hint for when only writing the card helps."""
        return f"write it again: {command_line('write', self.path, '--node', self.node)}"


def damaged_card(path: Path, found: Verification, proof: Proof) -> DamagedCard:
    """Read from the card whether a node has run from it and when it was made.

    Raises StampMismatch for an image that is none of ours, CardIOError when the card cannot be
    read.
    """
    held = proof.held
    if held.layout is None:
        source = held.image.source if isinstance(held, Receipt) else None
        image = source.name if source else "IMAGE"
        raise StampMismatch(
            f"{path}: it holds an image that is none of ours, which cannot be made again",
            hint=f"write it again: {command_line('write', path, '--image', image)}",
        )
    with open_target(path) as fresh:
        read = fresh.reader()
        try:
            used = was_used(CardFiles(read, held.layout))
        except CardIOError as error:
            error.details = (*error.details, "so nobody can tell whether a Pi has run from it")
            raise
        occasion = _occasion(proof, fresh.raw.size_bytes, read)
    use = found.use
    beyond = tuple(str(d) for d in use.damaged if not d.path.startswith("/boot/")) if use else ()
    return DamagedCard(
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
    shown: bytes | None,
    yes: bool,
    max_size: int | None,
    allow_fixed_disk: bool,
) -> CommandResult:
    """Ask the person, then repair the card at ``path``, on which ``verify`` found ``found`` and
    whose first MiB was ``shown``."""
    card = damaged_card(path, found, proof)
    rack = open_rack(session)
    ours = own_folders(session, rack)
    target = target_at(path, ours).shown_with(shown)
    limits = limits_of(ours, max_size, allow_fixed_disk=allow_fixed_disk)
    refuse_early(target, limits)
    if target.made_anew:
        raise TargetRefused(
            f"{path} is a file, which is not repaired but made", hint=card.write_hint
        )
    if card.used and not card.boot_files:
        raise StampMismatch(
            f"{path}: a Pi has run from this card, and its boot files are whole; what is damaged "
            "can only be put back by writing the card",
            hint=f"save what you need and {card.write_hint}",
            details=card.beyond,
        )
    limits = consented(session, target, limits, yes=yes, warning=_warning(target.title, card))
    image = image_again(session, rack, card)
    accepted = accept(target, image.layout.size_bytes, limits)
    order = CardOrder(
        image,
        accepted,
        rack.receipts,
        options=options_for(target),
        check=BootCheck(rack.node(image.node), image),
    )
    if card.used:
        return _restore_boot_files(session, card, order)
    return _restore_whole(session, order)


def _warning(title: str, card: DamagedCard) -> list[str]:
    if not card.used:
        return [f"{title} is brought back to what was written for {card.node}."]
    return [
        f"On {title} these boot files are put back; nothing else is touched.",
        *(f"    /boot/{name}" for name in card.boot_files),
    ]


def image_again(session: Session, rack: Rack, card: DamagedCard) -> NodeImage:
    """Make exactly the image again that the card was written with; raises StampMismatch when it
    would be another one today."""
    if card.occasion is None:
        raise StampMismatch(
            f"{card.path}: neither its stamp nor picloud/node.json says when it was made",
            hint=card.write_hint,
        )
    node = rack.node(card.node)
    golden = golden_of(session, rack, node)
    if golden.key == card.golden_key:
        image = personalise(golden, rack, node, card.size_bytes, session.console, card.occasion)
        if image.image_id == card.image_id:
            return image
        changed = "the rack, its overlays or its keys have changed"
    else:
        changed = "the release or this computer's tools are others"
    raise StampMismatch(
        f"{card.path}: {changed} since this card was written, so its bytes cannot be made again",
        hint=card.write_hint,
    )


def _restore_whole(session: Session, order: CardOrder) -> CommandResult:
    target, node = order.accepted.target.node, order.image.node
    made = restore_card(order, session.console)
    trouble = made.receipt.trouble
    session.console.event("receipt", path=str(made.receipt_path))
    session.console.verdict(f"{target} is {node} again, byte for byte as it was written", good=True)
    session.console.lines(
        *_trouble_lines(trouble),
        f"receipt {made.receipt_path}",
    )
    return {
        **_fields(order, trouble),
        "repaired": "card",
        "receipt": str(made.receipt_path),
    }


def _restore_boot_files(session: Session, card: DamagedCard, order: CardOrder) -> CommandResult:
    target, node = order.accepted.target.node, order.image.node
    trouble = restore_boot_files(order, card.boot_files, session.console)
    if card.beyond:
        raise StampMismatch(
            f"{card.path}: the boot files are whole again; something else is still damaged",
            hint=f"save what you need and {card.write_hint}",
            details=card.beyond,
        )
    session.console.verdict(
        f"{target} is {node}, and its boot files are as they were written: "
        f"{', '.join(card.boot_files)}",
        good=True,
    )
    session.console.lines(
        *_trouble_lines(trouble),
    )
    return {
        **_fields(order, trouble),
        "repaired": "boot files",
        "boot_files": list(card.boot_files),
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

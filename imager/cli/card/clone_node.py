"""``clone --node``: a copy of one node's card becomes another node's card.

In: an open card of this rack, and the node that the copy is for. Out: a card with that node's keys,
names and numbers, and all else as on the card that was copied; its receipt and the ledger say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imager.base.errors import StampMismatch
from imager.base.text import command_line
from imager.card.host.refusals import AcceptedTarget
from imager.card.inspect.stamp import read_stamp, signature_of
from imager.card.make.boot_check import require_bootable
from imager.card.make.order import SourceOrder
from imager.card.make.pour import make_poured_card
from imager.card.save.original import Original
from imager.card.write.options import options_for
from imager.cli.choice import open_rack
from imager.cli.session import CommandResult, Session
from imager.config.rack import Node, Rack
from imager.node.stamp.facts import StampError, StampFacts
from imager.node.stamp.stamp import Stamp
from imager.node.twin import twin_of
from imager.rack.history.recorded import Work, recorded


@dataclass(frozen=True, slots=True)
class TwinWish:
    """The node whose card is to be made of the card that says ``card`` of itself."""

    rack: Rack
    node: Node
    card: StampFacts


def stamp_of(original: Original) -> Stamp | None:
    """What one of our cards says of itself; None for any other."""
    try:
        return read_stamp(original.read_at, original.card.size_bytes)
    except StampError:
        return None


def wish_of(session: Session, original: Original, node_name: str, *, looking: bool) -> TwinWish:
    """Raises ConfigurationError for a node that is not in the rack, StampMismatch for a card that
    is not of this rack."""
    rack = open_rack(session, looking=looking)
    node = rack.node(node_name)
    stamp = stamp_of(original)
    known = stamp is not None and signature_of(stamp, rack.folder).known
    if stamp is None or not known:
        write = command_line("write", "TARGET", "--node", node.name)
        raise StampMismatch(
            f"{original.name} is no card of the rack {rack.name}, and only those become another "
            "node's",
            hint=f"name its rack with --rack DIR, or make a new card: {write}",
        )
    rack.node(stamp.facts.node)
    session.console.say(f"node      {node.name}, of a card that was made for {stamp.facts.node}")
    return TwinWish(rack, node, stamp.facts)


def made_other(
    session: Session, original: Original, accepted: AcceptedTarget, wish: TwinWish, *, probe: bool
) -> CommandResult:
    """Make the card. Raises as ``write --node`` does."""
    rack, node, console = wish.rack, wish.node, session.console
    twin = twin_of(original.name, original.read_at, wish.card, rack, node, console)
    read = twin.delta.over(original.read_at)
    require_bootable(node, twin.boot_files, read, original.card.size_bytes)
    source = replace(original, delta=twin.delta, called=f"{wish.card.node}'s card {original.name}")
    twin.require_room(original.card.size_bytes, source.extents)
    order = SourceOrder(
        source,
        accepted.need_bytes,
        accepted,
        rack.receipts,
        options=options_for(accepted.target),
        check=lambda read, size: require_bootable(node, twin.boot_files, read, size),
        node=node.name,
        boot_files=twin.boot_files,
        seal=twin.seal,
    )
    work = Work(node.name, accepted.target, wish.card.release_sha256, twin.recipe)
    made = recorded(rack, work, lambda: make_poured_card(order, console, probe=probe))
    console.verdict(
        f"{accepted.target.node} is {node.name}, made of {source.called}: written, read back, "
        "boot check passed",
        good=True,
    )
    trouble = made.receipt.trouble
    console.lines(*([trouble.meaning] if trouble else []), f"receipt {made.receipt_path}")
    return {
        "source": original.name,
        "node": node.name,
        "copy_of": wish.card.node,
        **made.receipt.brief(),
        "receipt": str(made.receipt_path),
    }

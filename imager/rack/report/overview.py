"""All that is known of a rack: its towers, and for each node the last card and whether it joined.

In: the rack, its ledger and receipts, its lock, and the master's last answer. Out: values, which
``rack show`` prints as lines and ``rack report`` as a page. Neither master nor nodes are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.trusted_folder import TrustedFolder
from imager.card.receipt.receipt import Receipt, ReceiptResult
from imager.card.receipt.store import newest_by_node, receipt_in
from imager.config.rack import Node, Rack
from imager.config.slot_labels import by_place, tower_and_place
from imager.rack.history.events import CardRestored, CardSaved, NodeState, Standing
from imager.rack.history.ledger import read_ledger
from imager.rack.master.presence import Seen, load_presence
from imager.release.catalogue import spec_for
from imager.release.lock import RackLock

OUT_OF_DATE_UNTOLD = "whether cards are out of date cannot be told"
"""Said with the reason where there are no recipes for ``overview``."""


@dataclass(frozen=True, slots=True)
class CardState:
    """The last that is known of a node's card. ``at`` is the time, UTC in ISO 8601, empty when
    there was no card; ``outcome`` is the word in the ledger or receipt; ``reason`` and ``hint``
    say what was wrong. ``recipe`` is empty where only a receipt knows of the card. ``restored``
    says from where it was put back, if it was, ``saved`` where a card of the node was saved last.
    """

    standing: Standing
    at: str = ""
    outcome: str = ""
    reason: str = ""
    hint: str = ""
    receipt: Receipt | None = None
    receipt_path: Path | None = None
    recipe: str = ""
    restored: CardRestored | None = None
    saved: CardSaved | None = None

    @property
    def is_good(self) -> bool:
        """Whether the last card was verified, even if it is of an older release."""
        return self.standing in (Standing.VERIFIED, Standing.CURRENT, Standing.STALE)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node, its card, and what the master last said about it; None when it was never asked."""

    node: Node
    card: CardState
    seen: Seen | None

    @property
    def is_joined(self) -> bool:
        """Whether it answered when the master was last asked."""
        return self.seen is not None and self.seen.is_joined


@dataclass(frozen=True, slots=True)
class Tower:
    """The nodes of one tower, in the order of their places. The tower without a name has the nodes
    that have no label."""

    name: str
    views: tuple[NodeView, ...]


def overview(
    rack: Rack,
    recipes: Mapping[str, str] | None = None,
    read: Callable[[TrustedFolder, str], Receipt] = receipt_in,
) -> tuple[NodeView, ...]:
    """Every node of ``rack``, in its order. ``recipes`` has, by node, the recipe of a card made
    now, as far as it is known (``imager.node.content``). ``read`` is as for ``newest_by_node``.

    Raises ConfigurationError for a broken rack.lock and HostStorage for a ledger that cannot be
    read."""
    ledger, receipts = read_ledger(rack.folder), newest_by_node(rack.receipts, read)
    lock, presence = RackLock.load(rack.lock_file), load_presence(rack.folder)
    views = []
    for node in rack.nodes:
        state = ledger.state_of(node.name)
        card = _aged(
            _card(state, receipts.get(node.name)),
            pinned(rack, node, lock),
            (recipes or {}).get(node.name),
        )
        card = replace(card, saved=state.saved)
        views.append(NodeView(node, card, presence.get(node.name)))
    return tuple(views)


def pinned(rack: Rack, node: Node, lock: RackLock) -> str | None:
    """The SHA-256 of the release that a card of ``node`` would be made from now; None when no
    release is pinned yet."""
    source, packages = rack.release, node.packages.names
    pin = lock.pin(spec_for(source.source, source.signing_key, node.model, packages).name)
    return pin.sha256 if pin else None


def towers(views: Iterable[NodeView]) -> tuple[Tower, ...]:
    """The towers, sorted by name; the nodes without a label come last."""
    found: dict[str, list[NodeView]] = {}
    for view in views:
        name = tower_and_place(view.node.slot)[0] if view.node.slot else ""
        found.setdefault(name, []).append(view)
    for name, members in found.items():
        if name:
            members.sort(key=lambda view: by_place(view.node.slot or ""))
    return tuple(Tower(name, tuple(found[name])) for name in sorted(found, key=_unnamed_last))


def _unnamed_last(name: str) -> tuple[bool, str]:
    return not name, name


def _card(state: NodeState, newest: tuple[Path, Receipt] | None) -> CardState:
    """The newer of what the ledger and the receipts say: the command ``write`` makes a receipt but
    no line in the ledger."""
    path, receipt = newest or (None, None)
    written = receipt.finished_at if receipt else ""
    if state.begun is not None and state.begun.at > written:
        reason = f"work on {state.begun.target} was begun and did not end"
        hint = "run it again: a card that was cut short is blank or whole"
        standing = state.standing()
        if standing is Standing.UNKNOWN:
            reason = f"begun in {state.begun.where}, and its end is not known"
            hint = "look at that card; the next run asks the station"
        return CardState(standing, state.begun.at, "", reason, hint, receipt, path)
    last = state.last
    if last is not None and (last.at >= written or receipt is None):
        standing = Standing.VERIFIED if last.is_verified else Standing.FAILED
        return CardState(
            standing,
            last.at,
            last.outcome,
            last.reason,
            last.hint,
            receipt,
            path,
            last.recipe,
            state.restored,
        )
    if receipt is None:
        return CardState(Standing.NEVER)
    standing = Standing.VERIFIED if receipt.result is ReceiptResult.VERIFIED else Standing.FAILED
    return CardState(standing, written, receipt.result.value, receipt.failure, "", receipt, path)


def _aged(card: CardState, pin: str | None, recipe: str | None) -> CardState:
    """``card``, marked as stale when it was verified but a card made now would be different. Where
    the recipe is not known, it is stale when rack.lock pins another release."""
    if card.standing is not Standing.VERIFIED:
        return card
    # A card that was restored, or made of another one, has a receipt that names no release.
    release = card.receipt.image.release_sha256 if card.receipt else ""
    if release and pin is not None and release != pin:
        reason = f"made of release {release[:12]}…, and rack.lock pins {pin[:12]}…"
    elif recipe and card.recipe and recipe != card.recipe:
        reason = "rack.toml, an overlay, a key or this program is another one since"
    else:
        known = bool(recipe and card.recipe)
        return replace(card, standing=Standing.CURRENT) if known else card
    return replace(card, standing=Standing.STALE, reason=reason, hint="write the card again")

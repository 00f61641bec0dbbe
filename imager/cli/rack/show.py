"""``rack show``: the nodes of a rack, and what is known of their cards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.cli.choice import address_of, open_rack, recipes_at_hand
from imager.cli.packages import nodes_on_trial, trial_line
from imager.cli.session import CommandResult, Session, command
from imager.cli.views.plan import made_from
from imager.cli.views.rack_drawing import drawing
from imager.config.nodeset import fold
from imager.config.rack import Rack
from imager.node.keys.signing import fingerprint, known_public_key
from imager.rack.report.overview import NodeView, overview, towers


@command("show", uses=("rack", "cache"))
def show(session: Session) -> CommandResult:
    """Draw the rack: places, nodes, addresses, roles, the last card of each, who joined.

    Examples:
        picloud-image rack show
            The rack in this folder or above.
        picloud-image rack show --rack ~/rack
            The rack in ~/rack.
    """
    rack = open_rack(session, looking=True)
    public = known_public_key(rack.folder)
    signs = fingerprint(public) if public else None
    console = session.console
    views = overview(rack, recipes_at_hand(session, rack))
    trial, on_trial = _trial(session, rack)
    console.lines(*_head(rack, signs), *trial, "")
    if any(view.node.slot for view in views):
        console.lines(*drawing(towers(views), console.width), "")
    _table(session, views)
    console.lines(*_reasons(views), *_saves(views))
    return {
        "rack": rack.name,
        "folder": str(rack.folder),
        "release": rack.release.source,
        "salt": rack.salt_version,
        "master": rack.master.name,
        "key": signs,
        "on_trial": on_trial,
        "nodes": [_fields(view) for view in views],
    }


def _trial(session: Session, rack: Rack) -> tuple[list[str], list[str]]:
    """Lines about packages on trial, and the nodes that try them. A rack that forgot its canary can
    still be looked at."""
    try:
        line = trial_line(rack)
        return [line] if line else [], nodes_on_trial(rack)
    except ConfigurationError as error:
        session.console.warn(f"{error.what}: {error.hint}")
        return [], []


def _head(rack: Rack, signs: str | None) -> list[str]:
    made = made_from(rack.release.source, rack.salt_version)
    return [
        f"rack {rack.name} in {rack.folder}",
        f"{made} · Salt master {rack.master.name}",
        f"cards signed by key {signs or '(made with the first card)'}",
    ]


def _table(session: Session, views: tuple[NodeView, ...]) -> None:
    """A row for each node. A column that is empty, or the same for all nodes, is left out."""
    columns = {
        "slot": [view.node.slot or "-" for view in views],
        "node": [view.node.name for view in views],
        "model": [view.node.model for view in views],
        "address": [address_of(view.node) for view in views],
        "roles": ["+".join(_short(role) for role in view.node.roles) or "-" for view in views],
        "last card": [_last_card(view) for view in views],
        "master says": [view.seen.presence if view.seen else "-" for view in views],
    }
    if not any(view.node.slot for view in views):
        del columns["slot"]
    if len(set(columns["model"])) == 1:
        session.console.lines(f"{len(views)} nodes, model {views[0].node.model}")
        del columns["model"]
    rows = zip(*columns.values(), strict=True)
    session.console.table(list(columns), [list(row) for row in rows])


def _reasons(views: tuple[NodeView, ...]) -> Iterator[str]:
    """What is wrong with cards: a line for each reason, with all nodes it holds for."""
    reasons: dict[str, list[str]] = {}
    for view in views:
        if view.card.reason:
            reasons.setdefault(view.card.reason, []).append(view.node.name)
    for reason, nodes in reasons.items():
        yield f"{fold(nodes)}: {reason}"


def _saves(views: tuple[NodeView, ...]) -> Iterator[str]:
    """Which cards are saved ones, and where cards were saved to: a line for each folder and day."""
    said: dict[str, list[str]] = {}
    for view in views:
        restored, saved = view.card.restored, view.card.saved
        if restored is not None:
            line = f"restored from {Path(restored.file).parent}, saved on {restored.saved_at[:10]}"
            said.setdefault(line, []).append(view.node.name)
        if saved is not None:
            line = f"saved to {Path(saved.file).parent} on {saved.at[:10]}"
            said.setdefault(line, []).append(view.node.name)
    for line, nodes in said.items():
        yield f"{fold(nodes)}: {line}"


def _short(role: str) -> str:
    return role.removeprefix("salt-")


def _last_card(view: NodeView) -> str:
    card = view.card
    if not card.at:
        return "none yet"
    word = card.standing if card.is_good or not card.outcome else card.outcome
    return f"{word} {card.at[:10]}"


def _fields(view: NodeView) -> dict[str, object]:
    node, card, seen = view.node, view.card, view.seen
    return {
        "node": node.name,
        "model": node.model,
        "address": str(node.address) if node.address else None,
        "roles": list(node.roles),
        "slot": node.slot,
        "last_card": f"{card.outcome or card.standing} {card.at}" if card.at else None,
        "card": {
            "standing": card.standing,
            "at": card.at or None,
            "outcome": card.outcome or None,
            "reason": card.reason or None,
            "receipt": str(card.receipt_path) if card.receipt_path else None,
            "restored_from": card.restored.file if card.restored else None,
            "restored_saved_at": card.restored.saved_at if card.restored else None,
        },
        "saved_to": card.saved.file if card.saved else None,
        "saved_at": card.saved.at if card.saved else None,
        "joined": view.is_joined,
        "presence": seen.presence if seen else None,
        "asked_at": seen.asked_at if seen else None,
        "answered_at": (seen.answered_at or None) if seen else None,
    }

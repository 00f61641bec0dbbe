"""What a node's card holds besides the golden image; nothing is written here.

In: a golden image's filesystems, a rack, one of its nodes, the imaging time. Out: every file with
its content, and a recipe: one hash of all that the card would be made from, without the time. When
a card's recipe is the same as the recipe of today, the card need not be written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Protocol

from imager.config.rack import Node, Rack
from imager.config.shipped_trees import trees_folder
from imager.node.edit.edit import CardContent, Filesystems, OpenGolden
from imager.node.files.boot import Released, boot_files, node_file
from imager.node.files.card_values import card_values
from imager.node.files.identity_files import can_log_in, node_files
from imager.node.files.templates import Allowance, Renderer, Templates
from imager.node.files.tree import CardEntry, CardFile, CardFolder, CardLink, merge
from imager.node.keys.identity import Identity, identity_at_hand, identity_of
from imager.node.overlays import Overlays

_NO_TIME = 315_532_800
"""The imaging time that is used for a recipe: 1980, in which no card is made."""

CONTENT_STEPS = 2
"""How long it takes to find it, in steps of ``EDIT_STEPS``."""


@dataclass(frozen=True, slots=True)
class NodeContent:
    """``card`` is what makes this card different; ``can_log_in`` is whether anybody can log in on
    the node."""

    card: CardContent
    can_log_in: bool


class Foundation(Protocol):
    """What a node's card is made on: a golden image, or another card."""

    @property
    def image(self) -> Released:
        """What its boot partition was filled from."""

    @property
    def filesystems(self) -> Filesystems:
        """Both filesystems as they are."""

    @property
    def renderer(self) -> Renderer:
        """The process that renders templates."""


def node_content(golden: Foundation, rack: Rack, node: Node, time: int) -> NodeContent:
    """The content of ``node``'s card made at ``time``; its keys are made where it has none.

    Raises ConfigurationError for what is wrong with the overlays or the keys.
    """
    return _content(golden, rack, node, identity_of(rack, node), _overlays(rack), time)


def _overlays(rack: Rack) -> Overlays:
    return Overlays(trees_folder() / "overlays", rack.overlays)


def _content(
    golden: Foundation,
    rack: Rack,
    node: Node,
    identity: Identity,
    overlays: Overlays,
    time: int,
    together: Allowance | None = None,
) -> NodeContent:
    old = golden.filesystems
    card = card_values(identity, time)
    given = overlays.tree(node, Templates(golden.renderer, rack, node, card, together))
    files = merge(given, node_files(rack, node, identity, old.root, given))
    about = node_file(golden.image, rack, node, card)
    boot = boot_files(golden.image, old.boot, files, about, card)
    content = CardContent(replace(files, boot=boot), identity.numbers, time)
    return NodeContent(content, can_log_in(node, given))


def recipe_of(golden: OpenGolden, rack: Rack, node: Node) -> str:
    """SHA-256 (hex) of the golden image's key, the node's numbers and every file with its owner
    and mode, as if made at a time that is always the same; raises as ``node_content`` does."""
    return _recipe(golden, node_content(golden, rack, node, _NO_TIME))


def recipes_at_hand(
    golden: OpenGolden, rack: Rack, nodes: Iterable[Node], together: Allowance | None = None
) -> Iterator[tuple[Node, str | None]]:
    """As ``recipe_of`` for each of ``nodes``, whose overlays are read once for all; None for a
    node that has not all of its keys yet: none is made. Their templates take from ``together``.
    Raises as ``node_content``."""
    overlays = _overlays(rack)
    for node in nodes:
        identity = identity_at_hand(rack, node)
        if identity is None:
            yield node, None
        else:
            content = _content(golden, rack, node, identity, overlays, _NO_TIME, together)
            yield node, _recipe(golden, content)


def _recipe(golden: OpenGolden, content: NodeContent) -> str:
    card = content.card
    digest = hashlib.sha256()
    for part in (golden.image.key, *astuple(card.numbers)):
        _feed(digest, part)
    for entry in (*card.files.root, *card.files.boot):
        _feed(digest, type(entry).__name__, *_parts(entry))
    _feed(digest, *card.files.enable)
    return digest.hexdigest()


def _parts(entry: CardEntry) -> Iterable[object]:
    """Everything of ``entry`` that is written to the card, so not where it came from."""
    match entry:
        case CardFile():
            return (entry.path, entry.content, entry.mode, entry.owner)
        case CardLink():
            return (entry.path, entry.target)
        case CardFolder():
            return (entry.path, entry.mode, entry.owner)


def _feed(digest: hashlib._Hash, *parts: object) -> None:
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)

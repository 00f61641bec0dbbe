"""What a node's card holds besides the golden image; nothing is written here.

In: a golden image's filesystems, a rack, one of its nodes, the imaging time. Out: every file with
its content, and a recipe: one hash of all that the card would be made from, without the time. When
a card's recipe is the same as the recipe of today, the card need not be written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

from imager.config.rack import Node, Rack
from imager.config.shipped_trees import trees_folder
from imager.node.edit.edit import CardContent, OpenGolden
from imager.node.files.boot import boot_files, node_file
from imager.node.files.card_values import card_values
from imager.node.files.identity_files import can_log_in, node_files
from imager.node.files.overlay import load_overlays
from imager.node.files.templates import Templates
from imager.node.files.tree import CardEntry, CardFile, merge
from imager.node.keys.identity import identity_of

_NO_TIME = 315_532_800
"""The imaging time that is used for a recipe: 1980, in which no card is made."""


@dataclass(frozen=True, slots=True)
class NodeContent:
    """``card`` is what makes this card different; ``can_log_in`` is whether anybody can log in on
    the node."""

    card: CardContent
    can_log_in: bool


def node_content(golden: OpenGolden, rack: Rack, node: Node, time: int) -> NodeContent:
    """The content of ``node``'s card made at ``time``; its keys are made where it has none.

    Raises ConfigurationError for what is wrong with the overlays or the keys.
    """
    old = golden.filesystems
    identity = identity_of(rack, node)
    card = card_values(identity, time)
    templates = Templates(golden.renderer, rack, node, card)
    overlays = load_overlays(trees_folder() / "overlays", rack.overlays, node, templates)
    files = merge(overlays, node_files(rack, node, identity, old.root, overlays))
    about = node_file(golden.image, rack, node, card)
    boot = boot_files(golden.image, old.boot, files, about, card)
    content = CardContent(replace(files, boot=boot), identity.numbers, time)
    return NodeContent(content, can_log_in(node, overlays))


def recipe_of(golden: OpenGolden, rack: Rack, node: Node) -> str:
    """SHA-256 (hex) of the golden image's key, the node's numbers and every file with its owner
    and mode, as if made at a time that is always the same; raises as ``node_content`` does."""
    card = node_content(golden, rack, node, _NO_TIME).card
    digest = hashlib.sha256()
    for part in (golden.image.key, *astuple(card.numbers)):
        _feed(digest, part)
    for entry in (*card.files.root, *card.files.boot):
        _feed(digest, type(entry).__name__, *_parts(entry))
    _feed(digest, *card.files.enable)
    return digest.hexdigest()


def _parts(entry: CardEntry) -> Iterable[object]:
    """Everything of ``entry`` that is written to the card, so not where it came from."""
    if isinstance(entry, CardFile):
        return (entry.path, entry.content, entry.mode, entry.owner)
    values = astuple(entry)
    return values[:-1]


def _feed(digest: hashlib._Hash, *parts: object) -> None:
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)

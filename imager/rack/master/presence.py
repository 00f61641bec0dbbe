"""What the master last said about each node: ``.picloud/presence.json``.

In: the answers of a master, with the time. Out: the same answers later, so that the rack can be
shown without asking the master again. Only ``rack status`` writes the file. A node whose entry
cannot be read counts as never asked about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.config.folder import ensure_state
from imager.config.rack import state_folder

PRESENCE_FILE = "presence.json"
_FORMAT = "picloud-image presence"
_LIMIT_BYTES = 4 << 20


class Presence(StrEnum):
    """A node's state, as its Salt master sees it."""

    JOINED = "joined"
    """It answers."""
    SILENT = "silent"
    """Its key is accepted, and it does not answer."""
    PENDING = "pending"
    """It asks to join: its key waits for somebody to accept it."""
    DENIED = "denied"
    """It asks with another key than the one that was accepted for it."""
    REJECTED = "rejected"
    """Somebody rejected its key."""
    UNKNOWN = "unknown"
    """The master does not know it."""


ADVICE = {
    Presence.SILENT: "see that it is switched on and on the network; its first boot takes minutes",
    Presence.PENDING: "its key is not the one this rack made, or the master was never given it: "
    "picloud-image rack keys export --pki DIR",
    Presence.DENIED: "the master knows another key for it: put this rack's there, or its card is "
    "not this rack's",
    Presence.REJECTED: "its key was rejected by hand on the master: accept it there again",
    Presence.UNKNOWN: "switch it on, with a card of this rack in it",
}
"""What to do about a node that has not joined."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One node as the master saw it. Times are UTC, ISO 8601, empty for never; ``asked_at`` is
    when the master was asked, ``answered_at`` when the node last answered.

    What follows the node said of itself: ``firstboot`` is its state, ``step``, ``note`` and
    ``hint`` where it stands and what to do; ``release_sha256`` and ``imaged_at`` are of the card it
    runs from. All are empty where it did not say.
    """

    presence: Presence
    asked_at: str
    answered_at: str = ""
    firstboot: str = ""
    step: str = ""
    note: str = ""
    hint: str = ""
    release_sha256: str = ""
    imaged_at: str = ""

    @property
    def is_joined(self) -> bool:
        """Whether it answered when last asked."""
        return self.presence is Presence.JOINED

    @property
    def advice(self) -> str:
        """What to do about it; empty where there is nothing to do."""
        return ADVICE.get(self.presence, "")


def load_presence(rack: Path) -> dict[str, Seen]:
    """What the master last said about the nodes of the rack in the folder ``rack``, by name."""
    try:
        return parse_presence(state_folder(rack).read(PRESENCE_FILE, _LIMIT_BYTES))
    except FileNotFoundError:
        return {}


def parse_presence(data: bytes) -> dict[str, Seen]:
    """The nodes in the bytes of a file, which may be damaged."""
    try:
        document = read_object(data)
        nodes = document.child("nodes")
    except JsonFault:
        return {}
    if document.values.get("format") != _FORMAT:
        return {}
    found = {name: _seen(nodes, name) for name in nodes.values}
    return {name: seen for name, seen in found.items() if seen is not None}


def save_presence(rack: Path, nodes: Mapping[str, Seen]) -> None:
    """Write what is known of ``nodes``; entries of other nodes in the file stay as they are."""
    known = {**load_presence(rack), **nodes}
    document = {"format": _FORMAT, "nodes": {name: asdict(seen) for name, seen in known.items()}}
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    data = text.encode(errors="backslashreplace")  # as JSON's escape of half a character
    ensure_state(rack).write(PRESENCE_FILE, data, mode=0o600)


def _seen(nodes: JsonObject, name: str) -> Seen | None:
    try:
        read = nodes.child(name)
        presence = read.choice("presence", Presence)
        names = [field.name for field in fields(Seen) if field.name != "presence"]
        texts = {key: read.text(key) if key in read else "" for key in names}
    except JsonFault:
        return None
    return Seen(presence, **texts)

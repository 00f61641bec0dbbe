"""The rack's ledger, ``.picloud/ledger.jsonl``: one line for each thing that began or ended.

In: events, one at a time. Out: the same events again, and for each node the last that is known. A
line is on the disk before the next step begins, so after a ``kill -9`` or a power cut the ledger
says which card was being written. Its last line may then be incomplete: it is ignored, and removed
when the next one is written. ``docs/rack.md`` describes the format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path

from imager.base.durable import host_storage, require_free, write_all
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.timestamps import timestamp
from imager.base.units import MiB
from imager.config.folder import ensure_state
from imager.config.rack import state_folder
from imager.rack.history.outcome import Outcome

VERSION = 1
LEDGER_FILE = "ledger.jsonl"
_LIMIT_BYTES = 256 * MiB
ROOM_PER_CARD = 2 * MiB
"""More bytes than any receipt, with its lines in the ledger, takes."""


@dataclass(frozen=True, slots=True)
class BatchBegun:
    """A run over several nodes has begun; all its lines have the same ``batch``."""

    at: str
    batch: str
    nodes: tuple[str, ...]
    process: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """Work on a node's card begins now. ``card_size_bytes`` and the fields after it describe the
    card, as far as this computer can see. ``slot`` is the label of the card reader, or empty.
    Outside a batch ``batch`` is empty. ``station`` is the computer that makes the card where that
    is another one, else empty; a line from before there were stations has none."""

    at: str
    batch: str
    node: str
    target: str
    slot: str
    card_size_bytes: int
    model: str
    serial: str
    cid: str
    diskseq: int
    station: str = ""

    @property
    def where(self) -> str:
        """See ``reader_said``."""
        return reader_said(self.target, self.slot, self.station)


def reader_said(target: str, slot: str, station: str) -> str:
    """Where to look for a card: ``desk2's slot A3``. ``slot`` and ``station`` may be empty, as for
    an Assigned."""
    place = f"slot {slot}" if slot else target.removeprefix(f"{station}:")
    return f"{station}'s {place}" if station else place


@dataclass(frozen=True, slots=True)
class CardFinished:
    """It is over. ``reason`` and ``hint`` are empty when it ended well. ``receipt`` is a file name
    in the folder of receipts; ``recipe`` says what the card was made from
    (``imager.node.content``); each is empty where there is none."""

    at: str
    batch: str
    node: str
    target: str
    slot: str
    outcome: str
    reason: str
    hint: str
    receipt: str
    image_id: str
    recipe: str
    release_sha256: str

    @property
    def is_verified(self) -> bool:
        """Whether the card is good."""
        return self.outcome == Outcome.VERIFIED


@dataclass(frozen=True, slots=True)
class CardSaved:
    """A node's card was read into ``file``, an absolute path. ``reason`` is empty when all of it
    was. ``image_id`` is what the card's stamp says, ``map_sha256`` that of the block map beside
    the file; each is empty where there is none."""

    at: str
    node: str
    target: str
    slot: str
    file: str
    outcome: str
    reason: str
    image_id: str
    map_sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether all of the card is in the file."""
        return self.outcome == Outcome.SAVED


@dataclass(frozen=True, slots=True)
class CardRestored:
    """What was written and read back is the ``file`` of a card that was ``saved_at`` that time.
    It stands between the ``Assigned`` and the ``CardFinished`` of that card."""

    at: str
    batch: str
    node: str
    target: str
    file: str
    saved_at: str


@dataclass(frozen=True, slots=True)
class BatchEnded:
    """The run ended with this exit code; it was not killed."""

    at: str
    batch: str
    exit_code: int


Event = BatchBegun | Assigned | CardFinished | CardSaved | CardRestored | BatchEnded
_KINDS: Mapping[str, type[Event]] = {
    "begun": BatchBegun,
    "assigned": Assigned,
    "finished": CardFinished,
    "saved": CardSaved,
    "restored": CardRestored,
    "ended": BatchEnded,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Standing(StrEnum):
    """What is known of a node's card."""

    NEVER = "never"
    """No card was ever begun."""
    CURRENT = "current"
    """Verified, and a card made now would be the same."""
    STALE = "stale"
    """Verified, but a card made now would be different: the release, rack.toml, an overlay or a key
    has changed."""
    VERIFIED = "verified"
    """Verified; whether a card made now would be the same is not known."""
    FAILED = "failed"
    """The last card failed."""
    CUT_SHORT = "cut short"
    """Work on a card was begun and its end is not in the ledger: killed, or going on now."""
    UNKNOWN = "unknown"
    """The same, on a station: what became of the card is known there, and by looking at it."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """The last that is known of a node: ``begun`` is work whose end is not in the ledger, ``last``
    what ended last, ``verified`` the last good card. ``restored`` says where the last card is from
    if it was a saved one, ``saved`` where a card of the node was last saved whole."""

    begun: Assigned | None = None
    last: CardFinished | None = None
    verified: CardFinished | None = None
    restored: CardRestored | None = None
    saved: CardSaved | None = None

    def after(self, event: Assigned | CardFinished | CardSaved | CardRestored) -> NodeState:
        """What is known when ``event`` has happened too."""
        match event:
            case Assigned():
                return replace(self, begun=event, restored=None)
            case CardFinished():
                verified = event if event.is_verified else self.verified
                return replace(self, begun=None, last=event, verified=verified)
            case CardRestored():
                return replace(self, restored=event)
            case CardSaved():
                return replace(self, saved=event) if event.is_whole else self

    def standing(self, recipe: str | None = None) -> Standing:
        """The state in one word. ``recipe`` is that of a card made now, None where it is not
        known."""
        if self.begun is not None:
            return Standing.UNKNOWN if self.begun.station else Standing.CUT_SHORT
        if self.last is None:
            return Standing.NEVER
        if not self.last.is_verified:
            return Standing.FAILED
        if recipe is None:
            return Standing.VERIFIED
        return Standing.CURRENT if self.last.recipe == recipe else Standing.STALE


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that could be read. ``unread`` counts lines that are damaged or of a later
    version of this program."""

    events: tuple[Event, ...] = ()
    unread: int = 0
    _states: Mapping[str, NodeState] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        states: dict[str, NodeState] = {}
        for event in self.events:
            if not isinstance(event, (BatchBegun, BatchEnded)):
                states[event.node] = states.get(event.node, NodeState()).after(event)
        # Once for all: a large rack asks for each of its nodes.
        object.__setattr__(self, "_states", states)

    def made(self, node: str, image_id: str) -> CardFinished | None:
        """The last good card of ``node`` that had this image; None where no line says so."""
        return next(
            (
                event
                for event in reversed(self.events)
                if isinstance(event, CardFinished)
                and event.is_verified
                and (event.node, event.image_id) == (node, image_id)
            ),
            None,
        )

    def state_of(self, node: str) -> NodeState:
        """What is known of ``node``."""
        return self._states.get(node, NodeState())


def now() -> str:
    """The time as the ledger writes it: UTC, ISO 8601."""
    return timestamp(precise=True)


def read_ledger(rack: Path) -> Ledger:
    """The ledger of the rack in the folder ``rack``; an empty one when there is none yet.

    Raises HostStorage when the file is there and cannot be read.
    """
    try:
        return parse_ledger(state_folder(rack).read(LEDGER_FILE, _LIMIT_BYTES))
    except FileNotFoundError:
        return Ledger()


def parse_ledger(data: bytes) -> Ledger:
    """The ledger in the bytes of a file, which may be damaged anywhere. A last line without a line
    break does not count."""
    events, unread = [], 0
    for line in data.split(b"\n")[:-1]:
        event = _decode(line)
        if event is not None:
            events.append(event)
        elif line.strip(b" \t\r\0"):
            unread += 1
    return Ledger(tuple(events), unread)


def append(rack: Path, event: Event) -> None:
    """Write ``event`` to the disk; an incomplete last line of a killed run is removed first.

    Raises HostStorage, and leaves the file as it was, when there is no room.
    """
    state = ensure_state(rack)
    with state.locked(LEDGER_FILE) as descriptor, host_storage(state.path / LEDGER_FILE):
        end = _whole_lines(descriptor)
        try:
            os.ftruncate(descriptor, end)
            os.fchmod(descriptor, 0o600)
            os.lseek(descriptor, end, os.SEEK_SET)
            write_all(descriptor, encode_event(event))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
        if end == 0:
            state.sync()


def encode_event(event: Event) -> bytes:
    """The line of an event, with its line break."""
    document = {"v": VERSION, "event": _NAMES[type(event)], **asdict(event)}
    if document.get("station") == "":
        del document["station"]
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def require_room(rack: Path, cards: int) -> None:
    """Raise HostStorage when there is no room for the receipts of ``cards`` cards; to be called
    before any card is written."""
    require_free(
        ensure_state(rack).path,
        cards * ROOM_PER_CARD,
        f"the receipts of {cards} cards may take",
        "free some space first; no card was touched",
    )


def _whole_lines(descriptor: int) -> int:
    """The byte at which the next line begins: the end of the last complete line."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 4096)
        piece = os.pread(descriptor, end - start, start)
        newline = piece.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _decode(line: bytes) -> Event | None:
    try:
        read = read_object(line)
        kind = _KINDS.get(str(read.values.get("event")))
        if kind is None or read.values.get("v") != VERSION:
            return None
        values = {
            field.name: _READ[str(field.type)](read, field.name)
            for field in fields(kind)
            if field.name in read or field.default is MISSING
        }
    except JsonFault:
        return None
    return kind(**values)  # type: ignore[arg-type]


_READ: Mapping[str, Callable[[JsonObject, str], object]] = {
    "str": JsonObject.text,
    "int": JsonObject.integer,
    "tuple[str, ...]": JsonObject.texts,
}

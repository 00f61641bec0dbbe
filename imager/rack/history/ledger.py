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
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from imager.base.durable import host_storage, require_free, write_all
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.units import MiB
from imager.config.folder import ensure_state
from imager.config.rack import state_folder
from imager.rack.history.events import (
    Assigned,
    BatchBegun,
    BatchEnded,
    CardFinished,
    CardRestored,
    CardSaved,
    Event,
    NodeState,
)

VERSION = 1
LEDGER_FILE = "ledger.jsonl"
_LIMIT_BYTES = 128 * MiB
_MOST_LINES = 200_000
"""The newest are read. 70 nodes have as many after 1,400 batches. One takes some 20 µs, whatever it
says, and so a stranger's ledger a few seconds."""
_LONGEST_LINE_BYTES = MiB
ROOM_PER_CARD = 2 * MiB
"""More bytes than any receipt, with its lines in the ledger, takes."""
_KINDS: Mapping[str, type[Event]] = {
    "begun": BatchBegun,
    "assigned": Assigned,
    "finished": CardFinished,
    "saved": CardSaved,
    "restored": CardRestored,
    "ended": BatchEnded,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that could be read. ``unread`` counts lines that are damaged, of a later version
    of this program, or more than are read."""

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
    lines = data.rsplit(b"\n", _MOST_LINES + 1)[:-1]
    if len(lines) > _MOST_LINES:  # then the first is all that is older
        unread = lines.pop(0).count(b"\n") + 1
    for line in lines:
        if not line.strip(b" \t\r\0"):
            continue
        event = _decode(line) if len(line) <= _LONGEST_LINE_BYTES else None
        if event is not None:
            events.append(event)
        else:
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
    # What is as its default is left out: such a line is as an older version wrote it.
    said = {
        field.name: value
        for field in fields(event)
        if (value := getattr(event, field.name)) != field.default
    }
    document = {"v": VERSION, "event": _NAMES[type(event)], **said}
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

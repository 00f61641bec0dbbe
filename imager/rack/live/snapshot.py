"""What a run is doing now: ``.picloud/live.json``, for whoever wants to look at it meanwhile.

In: the cards of the run that is at work. Out: the same, read by another process. The file is
replaced once a second and removed when the run ends; a killed run leaves it behind, so it counts
only while that run holds the rack's batch lock. ``docs/serve.md`` describes the format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.config.folder import ensure_state
from imager.config.rack import state_folder
from imager.rack.batch.card_progress import Moment
from imager.rack.history.lock import is_batch_at_work
from imager.rack.history.outcome import Outcome

_FILE = "live.json"
_FORMAT, _VERSION = "picloud-image live", 1
_LIMIT_BYTES = 8 << 20
MOST_CARDS = 4096
"""No run has more; what a damaged file has beyond that is not looked at."""
_LONGEST_TEXT = 4096
_LONGEST_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class LiveEnding:
    """How a card ended, after so many ``seconds``; ``reason`` and ``hint`` are empty when it ended
    well."""

    outcome: str
    seconds: int
    reason: str = ""
    hint: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is proven, or was saved whole."""
        return self.outcome in (Outcome.VERIFIED, Outcome.SAVED)


@dataclass(frozen=True, slots=True)
class LiveCard:
    """The card of a ``node``, in the reader ``target`` of this computer, or of the ``station`` that
    is named. It has a ``moment`` while it is being made, an ``ending`` afterwards, and neither
    before. ``slot`` is a label or empty."""

    node: str
    target: str
    slot: str = ""
    station: str = ""
    moment: Moment | None = None
    ending: LiveEnding | None = None

    @property
    def is_good(self) -> bool | None:
        """Whether it ended well; None until it has ended."""
        return None if self.ending is None else self.ending.is_good


@dataclass(frozen=True, slots=True)
class LiveRun:
    """The run at work. ``began_at`` is UTC, ISO 8601; ``cardless`` is how many nodes wait for a
    card that nobody has put in yet; ``offers`` say which cards are in and not begun, ``said`` are
    its last warnings."""

    command: str
    process: int
    began_at: str
    cardless: int = 0
    cards: tuple[LiveCard, ...] = ()
    offers: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def encode_live(run: LiveRun) -> bytes:
    """The bytes of the file."""
    document = {"format": _FORMAT, "v": _VERSION, **_fields(run)}
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), default=_fields)
    return text.encode() + b"\n"


def _fields(value: LiveRun | LiveCard | LiveEnding | Moment) -> dict[str, object]:
    """As ``asdict``, which copies all that is below as well: 20 ms for 1000 cards each second, of
    which this leaves 8."""
    return {name: getattr(value, name) for name in value.__slots__}


def decode_live(data: bytes) -> LiveRun:
    """The run in the bytes of a file. Raises JsonFault for what is not one."""
    read = read_object(data)
    if read.text("format") != _FORMAT or read.integer("v") != _VERSION:
        raise JsonFault("not the state of a run, or that of another version")
    return LiveRun(
        _text(read, "command"),
        read.integer("process"),
        _text(read, "began_at"),
        read.integer("cardless"),
        tuple(_card(child) for child in read.children("cards")[:MOST_CARDS]),
        _texts(read, "offers"),
        _texts(read, "said"),
    )


def write_live(rack: Path, run: LiveRun) -> None:
    """Show ``run`` from now on. Raises as ``TrustedFolder.write``."""
    # Nobody needs it after a power cut, and a busy disk would hold up the run.
    ensure_state(rack).write(_FILE, encode_live(run), mode=0o600, durable=False)


def remove_live(rack: Path) -> None:
    """Nothing is at work any more."""
    ensure_state(rack).remove(_FILE)


def read_live(rack: Path) -> LiveRun | None:
    """The run that is at work in the rack of the folder ``rack``; None when there is none, or none
    that says what it does. Raises ConfigurationError for a file that is a link or a stranger's."""
    try:
        data = state_folder(rack).read(_FILE, _LIMIT_BYTES)
        run = decode_live(data)
    except (FileNotFoundError, JsonFault):
        return None
    return run if is_batch_at_work(rack, run.process) else None


def _card(read: JsonObject) -> LiveCard:
    moment, ending = (read.optional(name, read.child) for name in ("moment", "ending"))
    return LiveCard(
        _text(read, "node"),
        _text(read, "target"),
        _text(read, "slot"),
        _text(read, "station"),
        None if moment is None else _moment(moment),
        None if ending is None else _ending(ending),
    )


def _moment(read: JsonObject) -> Moment:
    return Moment(
        _text(read, "phase"),
        read.integer("done_bytes"),
        read.optional("total_bytes", read.integer),
        read.number("phase_seconds", _LONGEST_SECONDS),
        read.integer("moved_bytes"),
        read.integer("expected_bytes"),
        read.integer("done_steps"),
        read.integer("total_steps"),
    )


def _ending(read: JsonObject) -> LiveEnding:
    reason, hint = _text(read, "reason"), _text(read, "hint")
    return LiveEnding(_text(read, "outcome"), read.integer("seconds"), reason, hint)


def _texts(read: JsonObject, name: str) -> tuple[str, ...]:
    return tuple(text[:_LONGEST_TEXT] for text in read.texts(name)[:MOST_CARDS])


def _text(read: JsonObject, name: str) -> str:
    return read.text(name)[:_LONGEST_TEXT]

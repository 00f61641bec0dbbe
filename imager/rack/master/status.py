"""Which nodes have joined: asks the rack's master, once or until all have.

In: a rack and a Door to its master. Out: for each node what the master says; it is also written
down for ``rack show`` and ``rack report``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from imager.base.errors import MissingTool, NetworkError
from imager.base.text import as_counted
from imager.base.timestamps import timestamp
from imager.config.rack import Node, Rack
from imager.rack.history.events import now
from imager.rack.master.answers import (
    CardSaid,
    NoAnswer,
    Who,
    cards,
    question_cards,
    question_who,
    who,
)
from imager.rack.master.connection import Door
from imager.rack.master.presence import Presence, Seen, load_presence, save_presence

_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """``nodes`` are the nodes that were asked about; ``strangers`` are minions that the master
    knows but rack.toml does not name."""

    nodes: Mapping[str, Seen]
    strangers: Mapping[str, Presence]

    @property
    def missing(self) -> tuple[str, ...]:
        """The nodes that did not answer."""
        return tuple(name for name, seen in self.nodes.items() if not seen.is_joined)


@contextmanager
def salt_at(door: Door) -> Iterator[None]:
    """Where a program of Salt gives NoAnswer within the block, raise what a person is told of that:
    MissingTool where it is not installed, else NetworkError."""
    try:
        yield
    except NoAnswer as error:
        if "not installed" in str(error):
            raise MissingTool(
                f"{door.name}: {error}", hint="see [salt] in rack.toml: the master needs Salt"
            ) from error
        raise NetworkError(
            f"{door.name}: {error}",
            hint="look at the master itself: systemctl status salt-master",
        ) from error


def ask_who(door: Door) -> Who:
    """Ask the master which minions it knows. Raises as ``Door.run`` and ``salt_at``."""
    with salt_at(door):
        return who(door.run(question_who()))


def ask_status(rack: Rack, nodes: Iterable[Node], door: Door) -> Status:
    """Ask the master about ``nodes`` once, and write down what it says.

    Raises as ``Door.run``, and MissingTool or NetworkError when no Salt answers there.
    """
    return _status(rack, nodes, door, ask_who(door))


def wait_for_all(
    rack: Rack,
    nodes: Sequence[Node],
    door: Door,
    seconds: float,
    watch: Callable[[Sequence[str], int, float], None],
) -> Status:
    """Ask until every one of ``nodes`` answers, at most for ``seconds``; returns the last status.

    After each time ``watch`` is called with the names that are missing, the number of nodes, and
    the seconds that are left. It also waits for a master that cannot be reached yet, because it may
    have been switched on with the nodes. Raises as ``ask_status``; NetworkError only when the time
    is over.
    """
    names, end = [node.name for node in nodes], time.monotonic() + seconds
    while True:
        heard: Who | None = None
        try:
            heard = ask_who(door)
        except NetworkError:
            if time.monotonic() + _PAUSE_SECONDS >= end:
                raise
        missing = [name for name in names if not _answers(heard, name)]
        watch(missing, len(names), max(0.0, end - time.monotonic()))
        if heard is not None and (not missing or time.monotonic() + _PAUSE_SECONDS >= end):
            return _status(rack, nodes, door, heard)
        time.sleep(max(0.0, min(_PAUSE_SECONDS, end - time.monotonic())))


def _answers(heard: Who | None, name: str) -> bool:
    return heard is not None and heard.standing.get(name) is Presence.JOINED


def _status(rack: Rack, nodes: Iterable[Node], door: Door, heard: Who) -> Status:
    names = [node.name for node in nodes]
    up = [name for name in names if _answers(heard, name)]
    said: dict[str, CardSaid] = {}
    if up:
        with salt_at(door):
            said = cards(door.run(question_cards(up)))
    known, at = load_presence(rack.folder), now()
    seen = {
        name: _seen(heard.standing.get(name, Presence.UNKNOWN), at, said.get(name), known.get(name))
        for name in names
    }
    save_presence(rack.folder, seen)
    strangers = heard.standing.keys() - {node.name for node in rack.nodes}
    return Status(seen, {name: heard.standing[name] for name in sorted(strangers, key=as_counted)})


def _seen(presence: Presence, at: str, said: CardSaid | None, before: Seen | None) -> Seen:
    """What is known of a node now. One that does not answer keeps what it said before."""
    seen = replace(before or Seen(presence, at), presence=presence, asked_at=at)
    if seen.is_joined:
        seen = replace(seen, answered_at=at)
    if said is None:
        return seen
    seen = replace(seen, release_sha256=said.release_sha256, imaged_at=_utc(said.imaged_at))
    boot = said.firstboot
    if boot is None:
        return replace(seen, firstboot="", step="", note="", hint="")
    return replace(seen, firstboot=boot.state.value, step=boot.step, note=boot.note, hint=boot.hint)


def _utc(seconds: int) -> str:
    if not seconds:
        return ""
    return timestamp(seconds)

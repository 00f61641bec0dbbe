"""How the head speaks to stations: one small interface, which Salt carries.

In: nothing. Out: ``StationBus``, and what is heard on one.

A station runs ``picloud-image --json station ACTION``. Its standard input is one line of JSON, the
arguments, then a line for each secret, ``{"secret": NAME, "base64": BYTES}``, and an empty line;
what
it asks for of what was published follows later (``imager.stations.salt``). What it prints
is one JSON object a line: each is an event, and the last one, the result, is the answer. Whoever
carries them limits their size; whoever reads them takes every value for a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

Document = Mapping[str, object]
"""A JSON object that was decoded; nothing in it is checked yet."""


NOTHING_OWN: Mapping[str, Document] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StationAnswer:
    """What came of asking one station: its ``document``, or a ``fault`` in words."""

    document: Document | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class StationSaid:
    """A line that a station printed while it works. ``station`` is who sent it, as Salt
    authenticated it, whatever the document says."""

    station: str
    document: Document


class StationBus(Protocol):
    """Stations are called by the names of their minions. Only one thread calls ``heard``; the rest
    may be called by several threads at once."""

    def ask(
        self,
        stations: Sequence[str],
        action: str,
        arguments: Document,
        *,
        seconds: float,
        own: Mapping[str, Document] = NOTHING_OWN,
    ) -> Mapping[str, StationAnswer]:
        """Ask all at once, wait for ``seconds`` at most, and return what each answered; a station
        that did not answer has a fault that says so. ``own`` are more arguments for single
        stations. No secret is handed to them."""

    def begin(
        self, station: str, action: str, arguments: Document, secrets: Sequence[str] = ()
    ) -> None:
        """Have the station begin, with the ``secrets`` of these names that were handed to it; what
        it prints is heard. Does not wait. Raises PicloudError where it cannot even be asked."""

    def heard(self, seconds: float) -> Sequence[StationSaid]:
        """What has come in, in the order of arrival; waits for ``seconds`` at most for the first,
        and takes no longer, however much comes. Raises NetworkError, once, when nothing is heard
        for a while. Where something that a station said was lost, ``{"event": "missed"}`` stands in
        its place. Where a program has ended otherwise than well, ``{"event": "ended", "job": …,
        "fault": …}`` says so, with the ``job`` of the arguments that it was begun with."""

    def hand(self, station: str, name: str, secret: bytes) -> None:
        """Make the secret readable for this station alone, under ``name``, until it is taken
        back."""

    def take_back(self, station: str, name: str) -> None:
        """Remove a secret that was handed; none of that name is fine."""

    def publish(self, name: str, folder: Path) -> None:
        """Make each file of ``folder`` readable for every minion, as ``name/FILE``: no secret. The
        folder stays as it is until the bus is closed."""

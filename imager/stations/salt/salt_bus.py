"""The stations as the head reaches them: through the programs ``salt`` and ``salt-run`` of the
rack's master.

In: a Door to the master. Out: a ``StationBus`` (``imager/stations/wire/bus.py``).

Every bus is a session of its own. Each station that is spoken to gets a token into its pillar, by
which it proves what it says (``proof.py``), and the secrets that are handed to it, sealed
(``sealing.py``). All of it is removed when the bus is closed.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from imager.base.errors import NetworkError, PicloudError, UsageError
from imager.base.json_fields import JsonFault, JsonObject
from imager.base.run import TooMuch
from imager.base.text import command_line, printable
from imager.rack.master.answers import parts_of
from imager.rack.master.connection import Door
from imager.stations.salt import scripts
from imager.stations.salt.answers import LONGEST_FAULT, SILENT, answers_in, is_silent
from imager.stations.salt.hearing import Hearing, hearing
from imager.stations.salt.listening import Listener, listener
from imager.stations.salt.offering import offer
from imager.stations.salt.proof import Proven, proven
from imager.stations.salt.sealing import seal
from imager.stations.wire.bus import NOTHING_OWN, Document, StationAnswer, StationSaid

_KEY_LETTERS = 64
_MOST_AT_ONCE = 8
"""Scripts on the master: an sshd turns away who comes while ten are logging in (MaxStartups), and
each program of Salt takes some 60 MB there."""


class SaltBus:
    """See ``StationBus``. ``opened_bus`` makes one."""

    def __init__(self, door: Door, closing: ExitStack) -> None:
        self._door = door
        self._closing = closing
        self._session = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._few = threading.Semaphore(_MOST_AT_ONCE)
        self._tokens: dict[str, str] = {}
        self._handed: set[str] = set()
        self._keys: dict[str, bytes] = {}
        self._begun: dict[tuple[str, str], int] = {}
        self._jobs: dict[tuple[str, str], object] = {}
        self._hearing: Hearing | None = None
        closing.callback(self._forget)

    def ask(
        self,
        stations: Sequence[str],
        action: str,
        arguments: Document,
        *,
        seconds: float,
        own: Mapping[str, Document] = NOTHING_OWN,
    ) -> Mapping[str, StationAnswer]:
        """See StationBus."""
        if not stations:
            return {}
        request, word = self._asked(action, arguments, (), own)
        try:
            asking = scripts.asking(stations, word, max(1, int(seconds)))
            printed = self._run_for(stations, asking)
        except NetworkError as error:
            if isinstance(error.__cause__, TooMuch) and len(stations) > 1:
                return self._one_by_one(stations, action, arguments, seconds, own)
            raise
        found = answers_in(self._door, printed, int(seconds) + 60)
        return {name: self._answer(name, request, found) for name in stations}

    def begin(
        self, station: str, action: str, arguments: Document, secrets: Sequence[str] = ()
    ) -> None:
        """See StationBus."""
        with self._lock:
            if self._hearing is None:
                self._hearing = self._closing.enter_context(
                    hearing(self._listener, lambda: bool(self._begun))
                )
        request, word = self._asked(action, arguments, secrets, streams=True)
        self._begun[station, request] = 0
        self._jobs[station, request] = arguments.get("job")
        printed = self._run_for([station], scripts.beginning(station, word))
        begun = parts_of(printed).get("begun")
        if begun is None or begun.status:
            said = printable(begun.text.strip())[:LONGEST_FAULT] if begun else "nothing"
            raise NetworkError(
                f"{station} was not told to begin: salt said {said}",
                hint="look at the master itself: systemctl status salt-master",
            )

    def heard(self, seconds: float) -> Sequence[StationSaid]:
        """See StationBus."""
        found: list[StationSaid] = []
        if self._hearing is None:
            return found
        until = time.monotonic() + seconds
        event = self._hearing.next(seconds)
        while event is not None:
            found += self._heard_in(event)
            # One that never falls silent is not to hold up who listens.
            event = self._hearing.next(0.0) if time.monotonic() < until else None
        return found

    def hand(self, station: str, name: str, secret: bytes) -> None:
        """See StationBus. Raises UsageError for a station that was never asked anything."""
        if station not in self._keys:
            raise UsageError(
                f"{station} told no key to seal a secret to", hint="it has to be asked first"
            )
        sealed = base64.b64encode(seal(self._keys[station], secret)).decode()
        self._run(scripts.handing(station, self._session, name, sealed))

    def take_back(self, station: str, name: str) -> None:
        """See StationBus."""
        self._run(scripts.taking_back(station, self._session, name))

    def publish(self, name: str, folder: Path) -> None:
        """See StationBus."""
        offer(self._door, name, folder)

    def _listener(self, given_up: threading.Event) -> AbstractContextManager[Listener]:
        return listener(
            self._door, self._session, lambda event: self._said_in(event) is not None, given_up
        )

    def _asked(
        self,
        action: str,
        arguments: Document,
        secrets_: Sequence[str],
        own: Mapping[str, Document] = NOTHING_OWN,
        *,
        streams: bool = False,
    ) -> tuple[str, str]:
        request = secrets.token_hex(8)
        asked = {
            "session": self._session,
            "request": request,
            "action": action,
            "arguments": arguments,
            "own": dict(own),
            "secrets": list(secrets_),
            "streams": streams,
        }
        return request, scripts.word_of(asked)

    def _run_for(self, stations: Sequence[str], script: str) -> str:
        """What ``script`` prints; before, each of ``stations`` is handed its token where it has
        none. One that failed may have handed none, and the same one twice does no harm."""
        with self._lock:
            before = "" if self._handed else scripts.forgetting_old()
            for name in stations:
                token = self._tokens.setdefault(name, secrets.token_hex(32))
                if name not in self._handed:
                    before += scripts.handing(name, self._session, "token", token)
        printed = self._run(before + script)
        self._handed.update(stations)
        return printed

    def _run(self, script: str) -> str:
        with self._few:
            return self._door.run(script)

    def _one_by_one(
        self,
        stations: Sequence[str],
        action: str,
        arguments: Document,
        seconds: float,
        own: Mapping[str, Document],
    ) -> Mapping[str, StationAnswer]:
        """One station said more than it may, and is not to silence the others."""
        found: dict[str, StationAnswer] = {}
        for name in stations:
            try:
                found |= self.ask([name], action, arguments, seconds=seconds, own=own)
            except NetworkError as error:
                found[name] = StationAnswer(None, str(error))
        return found

    def _answer(self, name: str, request: str, found: JsonObject) -> StationAnswer:
        if name not in found:
            return StationAnswer(None, SILENT)
        value = found.values[name]
        if not isinstance(value, dict):
            return StationAnswer(None, _fault_in(name, value))
        signed = JsonObject(value)
        if "fault" in signed:
            fault = printable(str(signed.values["fault"]))[:LONGEST_FAULT]
            since = f"was salt-master started again since {_install(name)}?"
            return StationAnswer(None, f"{fault}: {since}")
        said = proven(signed, self._tokens)
        if said is None or said.station != name or said.request != request:
            return StationAnswer(None, "what came in its name was not said by it")
        lines = self._without_key(said)
        if said.fault or not lines:
            return StationAnswer(None, said.fault or "it said nothing")
        return StationAnswer(lines[-1].values)

    def _heard_in(self, event: JsonObject) -> list[StationSaid]:
        said = self._said_in(event)
        if said is None or said.number <= self._begun.get((said.station, said.request), 1 << 62):
            return []
        is_gap = said.number > self._begun[said.station, said.request] + 1
        self._begun[said.station, said.request] = said.number
        lines = [StationSaid(said.station, {"event": "missed"})] if is_gap else []
        lines += [StationSaid(said.station, line.values) for line in self._without_key(said)]
        if said.is_last:
            del self._begun[said.station, said.request]
            job = self._jobs.pop((said.station, said.request))
            if said.fault:
                ended = {"event": "ended", "job": job, "fault": said.fault}
                lines.append(StationSaid(said.station, ended))
        return lines

    def _said_in(self, event: JsonObject) -> Proven | None:
        try:
            return proven(event.child("data"), self._tokens)
        except JsonFault:
            return None

    def _without_key(self, said: Proven) -> list[JsonObject]:
        """The lines but for the one that tells the station's key, which is remembered."""
        lines = list(said.lines)
        if lines and lines[0].values.get("event") == "key":
            with suppress(JsonFault, ValueError):
                key = bytes.fromhex(lines[0].text("key")[:_KEY_LETTERS])
                if 2 * len(key) == _KEY_LETTERS:
                    self._keys[said.station] = key
            del lines[0]
        return lines

    def _forget(self) -> None:
        script = "".join(scripts.taking_back(name, self._session) for name in self._tokens)
        if script:
            with suppress(PicloudError):  # the day after, the next run removes it
                self._door.run(script)


@contextmanager
def opened_bus(door: Door) -> Iterator[SaltBus]:
    """A bus until the block ends; then nothing is left of what was handed."""
    with ExitStack() as closing:
        yield SaltBus(door, closing)


def _install(station: str) -> str:
    return command_line("rack", "stations", "install", station)


def _fault_in(station: str, value: object) -> str:
    """Why there is no answer, from what Salt says in its place."""
    text = printable(str(value).strip())
    if "is not available" in text:
        return f"it has nothing of picloud-image yet: {_install(station)}"
    if is_silent(value):
        return SILENT
    return text[:LONGEST_FAULT] or "it said nothing"

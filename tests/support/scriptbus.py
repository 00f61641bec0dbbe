"""A StationBus in memory, whose stations say what a test lets them say.

In: answers by station and action. Out: a ``ScriptBus`` that remembers what a head did with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from imager.base.errors import NetworkError
from imager.stations.wire.bus import NOTHING_OWN, Document, StationAnswer, StationSaid

Answer = StationAnswer | Callable[[Document], StationAnswer]


@dataclass
class ScriptBus:
    """``answers`` are by station, of whatever is asked; of those that have none it is said that
    the master is away. ``asked`` came in so many ``questions``. ``broken`` names what fails:
    ``begin``, ``hand``, ``take_back``, ``heard`` (once). ``beginning`` is called when a station
    begins."""

    answers: dict[str, Answer] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    beginning: Callable[[str], None] = lambda _: None
    saying: list[StationSaid] = field(default_factory=list)
    asked: list[tuple[str, str, Document]] = field(default_factory=list)
    questions: int = 0
    begun: list[tuple[str, str, Document, tuple[str, ...]]] = field(default_factory=list)
    handed: dict[tuple[str, str], bytes] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    published: dict[str, Path] = field(default_factory=dict)

    def ask(
        self,
        stations: Sequence[str],
        action: str,
        arguments: Document,
        *,
        seconds: float,
        own: Mapping[str, Document] = NOTHING_OWN,
    ) -> Mapping[str, StationAnswer]:
        assert seconds > 0
        self.questions += 1
        asked = {name: {**arguments, **own.get(name, {})} for name in stations}
        self.asked += [(name, action, its) for name, its in asked.items()]
        if not set(stations) & set(self.answers):
            raise NetworkError("the master is away", hint="wait")
        answers = {name: self.answers[name] for name in stations if name in self.answers}
        return {
            name: _carried(answer(asked[name]) if callable(answer) else answer)
            for name, answer in answers.items()
        }

    def begin(
        self, station: str, action: str, arguments: Document, secrets: Sequence[str] = ()
    ) -> None:
        self._require("begin")
        self.beginning(station)
        self.begun.append((station, action, json.loads(json.dumps(arguments)), tuple(secrets)))

    def heard(self, seconds: float) -> Sequence[StationSaid]:
        if "heard" in self.broken:
            self.broken.remove("heard")
            raise NetworkError("the master was started anew", hint="wait")
        said, self.saying = self.saying, []
        if not said:
            time.sleep(min(seconds, 0.002))
        return [replace(one, document=json.loads(json.dumps(one.document))) for one in said]

    def hand(self, station: str, name: str, secret: bytes) -> None:
        self._require("hand")
        self.handed[station, name] = secret

    def take_back(self, station: str, name: str) -> None:
        self._require("take_back")
        self.taken.append((station, name))
        self.handed.pop((station, name), None)

    def publish(self, name: str, folder: Path) -> None:
        self.published[name] = folder

    def _require(self, what: str) -> None:
        if what in self.broken:
            raise NetworkError(f"{what} fails", hint="wait")


def _carried(answer: StationAnswer) -> StationAnswer:
    """As it comes out of JSON at the other end."""
    return replace(answer, document=json.loads(json.dumps(answer.document)))

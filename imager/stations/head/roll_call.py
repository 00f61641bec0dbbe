"""Asks every station what is there, and who cannot take part is named, before anything is planned.

In: names of stations, the rack, its golden images as far as they are composed. Out: a RollCall.
Nothing is changed anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from imager.base.errors import TargetRefused
from imager.base.json_fields import JsonFault, JsonObject
from imager.base.programs import tool_version
from imager.base.text import printable
from imager.card.host.swap_room import swap_refusals
from imager.card.host.target import Limits, TargetFacts
from imager.config.rack import Rack
from imager.image.compose.golden import GoldenImage
from imager.node.keys.signing import known_public_key
from imager.rack.plan.candidates import Candidate, Holds, Unfit
from imager.rack.plan.survey import GoldenImages, different
from imager.stations.head.remote import RemoteCard, candidate_of
from imager.stations.wire.bus import StationAnswer, StationBus
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.made_of import made_of
from imager.stations.wire.order import CLOCK_SECONDS
from imager.stations.wire.survey import MOST_CARDS, NO_KEY, Survey, SurveyedCard, survey_from

ASK_SECONDS = 60.0
"""A station reads the first MiB of each of its cards meanwhile."""
_MOST_TOLD_BYTES = 32 << 10
"""Of what all images are made of: a question has 128 KiB."""


@dataclass(frozen=True, slots=True)
class RollCall:
    """The cards of all stations that may take part; ``absent`` says of the others why not."""

    surveys: Mapping[str, Survey]
    absent: Mapping[str, str]
    candidates: tuple[Candidate, ...]
    cards: Mapping[str, RemoteCard]
    unfit: tuple[Unfit, ...]

    @property
    def crowded(self) -> tuple[str, ...]:
        """What to say of stations that have more cards than one answer takes."""
        return tuple(
            f"{name}: it offers {MOST_CARDS} cards at a time, and leaves out {one.more}"
            for name, one in self.surveys.items()
            if one.more
        )


def call_roll(
    bus: StationBus, stations: Sequence[str], rack: Rack, images: GoldenImages, limits: Limits
) -> RollCall:
    """Survey ``stations``. Raises TargetRefused where none of them can take part."""
    found = looked_round(bus, stations, rack, images, limits)
    if not found.surveys:
        raise TargetRefused(
            "no station can take part" if len(stations) > 1 else f"{stations[0]} cannot take part",
            hint="mend what is said of each, or name other stations",
            details=[f"{name}: {why}" for name, why in found.absent.items()],
        )
    return found


def looked_round(
    bus: StationBus, stations: Sequence[str], rack: Rack, images: GoldenImages, limits: Limits
) -> RollCall:
    """Survey ``stations``, also where none of them can take part."""
    goldens = different(images)
    asked = {
        "rack": (known_public_key(rack.folder) or b"").hex() or NO_KEY,
        "need_bytes": max((golden.layout.size_bytes for golden in goldens), default=0),
        "goldens": list(_told(goldens)),
        "max_size_bytes": limits.max_size_bytes,
    }
    before = time.time()
    answers = bus.ask(stations, "survey", asked, seconds=ASK_SECONDS)
    now = time.time()
    surveys: dict[str, Survey] = {}
    absent: dict[str, str] = {}
    for name in stations:
        found = _judged(answers.get(name, StationAnswer(None, "it was not asked")), before, now)
        if isinstance(found, str):
            absent[name] = found
        else:
            surveys[name] = found
    cards = [RemoteCard(name, seen) for name, one in surveys.items() for seen in one.cards]
    unfit = [
        Unfit(_unfit_card(name, card.path), card.slot, card.reasons)
        for name, one in surveys.items()
        for card in one.unfit
    ]
    fit: dict[str, RemoteCard] = {}
    for card in cards:
        reasons = swap_refusals(card, goldens, rack)
        if reasons:
            unfit.append(Unfit(card, card.seen.slot, tuple(map(str, reasons))))
        else:
            fit[card.node] = card
    candidates = tuple(map(candidate_of, fit.values()))
    return RollCall(surveys, absent, candidates, fit, tuple(unfit))


def _told(goldens: Sequence[GoldenImage]) -> Iterator[dict[str, object]]:
    """How the images are named to the stations, and what they are made of as far as one question
    has room for it."""
    room = _MOST_TOLD_BYTES
    for golden in goldens:
        its = made_of(golden)
        room -= its.size_bytes if its is not None else 0
        told = its.to_json() if its is not None and room >= 0 else None
        yield asdict(wanted_golden(golden)) | {"made_of": told}


def _judged(answer: StationAnswer, before: float, now: float) -> Survey | str:
    """The survey, or why its station cannot take part."""
    if answer.document is None:
        return answer.fault
    try:
        found = survey_from(JsonObject(answer.document))
    except JsonFault as error:
        return printable(f"its answer cannot be understood: {error}")
    if found.version != tool_version():
        return printable(
            f"it has picloud-image {found.version}, and this is {tool_version()}; "
            "install this one there (rack stations install)"
        )
    if not before - CLOCK_SECONDS <= found.clock <= now + CLOCK_SECONDS:
        off = found.clock - (before + now) / 2
        return (
            f"its clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this one; "
            "let it keep time (timedatectl set-ntp true)"
        )
    return found


def _unfit_card(station: str, path: str) -> RemoteCard:
    facts = TargetFacts(path=path, size_bytes=0, bus="")
    return RemoteCard(station, SurveyedCard(facts, path, Holds.FOREIGN, "", None, None, None))

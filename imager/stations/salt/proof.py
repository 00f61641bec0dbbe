"""Which station said it: what a master passes on is believed only with the proof beside it.

In: objects as the module on a minion signs them (``on_minion.py``). Out: what was said, or None for
what proves nothing. A master passes events and answers on as any of its minions sends them, in
whatever name; the token that proves the name lies in the pillar of that one minion. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.text import printable
from imager.stations.salt.answers import LONGEST_FAULT

_MOST_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Proven:
    """What a station said at once. ``request`` is what it was asked, ``number`` counts from 1 what
    it says of it. ``fault`` is why it did not do it, empty where it did or goes on."""

    station: str
    request: str
    number: int
    lines: tuple[JsonObject, ...]
    is_last: bool
    fault: str


def proven(signed: JsonObject, tokens: Mapping[str, str]) -> Proven | None:
    """What ``signed`` says; None unless the station whose name it bears has signed it.

    ``tokens`` has the token of each station, by its name.
    """
    try:
        text, mac = signed.text("text"), signed.text("mac")
        said = read_object(text)
        station = said.text("station")
        token = tokens.get(station)
        if token is None or not mac.isascii() or not hmac.compare_digest(mac, _mac(token, text)):
            return None
        lines = said.texts("lines")
        return Proven(
            station,
            said.text("request"),
            said.integer("number"),
            tuple(_objects(lines[:_MOST_LINES])),
            "status" in said,
            printable(said.text("fault") if "fault" in said else "")[:LONGEST_FAULT],
        )
    except JsonFault:
        return None


def _mac(token: str, text: str) -> str:
    return hmac.new(token.encode(), text.encode(errors="replace"), hashlib.sha256).hexdigest()


def _objects(lines: tuple[str, ...]) -> list[JsonObject]:
    """The lines that are JSON objects; a program may say something else in between."""
    found = []
    for line in lines:
        try:
            found.append(read_object(line))
        except JsonFault:
            continue
    return found

"""The scripts that ask a Salt master, and the meaning of its answers.

In: the output of the programs ``salt-key``, ``salt-run`` and ``salt`` on the master. Out: who is
accepted, who answers, and what each node says about its card. All of it comes from other computers,
some of it from any node that was accepted, so each value is checked and cut short. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from imager.base.json_fields import JsonFault, JsonObject
from imager.bootcheck.own_files import FIRSTBOOT_PATH, NODE_PATH
from imager.card.inspect.firstboot import FirstBoot, firstboot_in
from imager.rack.master.presence import Presence

_MARK = "==picloud=="
_LIMIT_SECONDS = 180
"""salt-run alone takes ten seconds to start on a Raspberry Pi 2, and waits for silent nodes."""

PATIENCE_SECONDS = 10
"""How many seconds a node may take to answer: both it and the master may be slow Pis."""

_KEY_LISTS = {
    "minions": Presence.SILENT,
    "minions_pre": Presence.PENDING,
    "minions_denied": Presence.DENIED,
    "minions_rejected": Presence.REJECTED,
}
"""The lists of salt-key. A node can be in several, accepted and denied for example; then the later
list here counts."""

NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_BOOT = "/boot/"
_TEXT_LIMIT = 300
_MOST_FAILURES = 20

PRELUDE = f"""\
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
limit={_LIMIT_SECONDS}
ask() {{
    name=$1; shift
    echo; echo "{_MARK} begin $name"
    timeout $limit "$@" </dev/null
    status=$?
    echo; echo "{_MARK} end $name $status"
}}
"""
"""How a script begins: ``ask NAME PROGRAM …`` prints what the program says, so that ``parts_of``
finds it. ``limit=SECONDS`` before it gives the programs more time."""


def question_who() -> str:
    """A script that prints which nodes' keys the master has and which nodes answer."""
    return (
        PRELUDE
        + "ask keys salt-key --list-all --out=json --log-level=quiet\n"
        + f"ask up salt-run manage.status timeout={PATIENCE_SECONDS} "
        + f"gather_job_timeout={PATIENCE_SECONDS} --out=json --log-level=quiet\n"
    )


def question_cards(nodes: Iterable[str]) -> str:
    """A script that prints what ``nodes`` say about their cards; ask only nodes that answer."""
    names = ",".join(name for name in nodes if NODE_ID.match(name))
    files = f"{_BOOT}{NODE_PATH} {_BOOT}{FIRSTBOOT_PATH}"
    return (
        PRELUDE
        + f"ask cards salt --out=json --static --log-level=quiet --timeout={PATIENCE_SECONDS} "
        + f"-L {names} cmd.run 'cat {files}' ignore_retcode=True\n"
    )


@dataclass(frozen=True, slots=True)
class ProgramOutput:
    """What one program printed, and its exit status: 127 when it is not there, 124 when it took
    too long."""

    text: str
    status: int


@dataclass(frozen=True, slots=True)
class Who:
    """Every minion that the master knows, and its state there."""

    standing: Mapping[str, Presence]


@dataclass(frozen=True, slots=True)
class CardSaid:
    """What a node says about its card; empty or None where it said nothing."""

    release_sha256: str = ""
    imaged_at: int = 0
    firstboot: FirstBoot | None = None


class NoAnswer(ValueError):
    """A program on the master did not answer as Salt does; the message says which one, and its
    answer."""


def parts_of(text: str) -> dict[str, ProgramOutput]:
    """The output of each program, from the text that a script of this module printed."""
    found: dict[str, ProgramOutput] = {}
    name, lines = "", list[str]()
    # Only a line feed ends a line here: JSON cannot hold one, but what a node says may hold the
    # other signs that splitlines() knows, with a mark after one of them.
    for line in text.split("\n"):
        words = line.split()
        if words[:2] == [_MARK, "begin"] and len(words) == 3:
            name, lines = words[2], []
        elif words[:2] == [_MARK, "end"] and len(words) == 4 and words[2] == name:
            status = int(words[3]) if words[3].isdecimal() and len(words[3]) < 5 else 1
            found[name] = ProgramOutput("\n".join(lines), status)
            name = ""
        elif name:
            lines.append(line)
    return found


def who(text: str) -> Who:
    """The answer to ``question_who``; raises NoAnswer."""
    parts = parts_of(text)
    keys, up = (
        object_in(parts, "keys", "salt-key"),
        object_in(parts, "up", "salt-run manage.status"),
    )
    standing: dict[str, Presence] = {}
    for key_list, presence in _KEY_LISTS.items():
        standing |= dict.fromkeys(_names(keys, key_list), presence)
    standing |= dict.fromkeys(_names(up, "up"), Presence.JOINED)
    return Who(standing)


def cards(text: str) -> dict[str, CardSaid]:
    """The answer to ``question_cards`` by node; raises NoAnswer."""
    found = object_in(parts_of(text), "cards", "salt")
    return {name: card_said(said) for name, said in found.values.items() if isinstance(said, str)}


def card_said(text: str) -> CardSaid:
    """What the two files of a card say, whichever of them are in ``text``."""
    about = JsonObject({})
    firstboot: FirstBoot | None = None
    for found in _objects_in(text):
        if "release_sha256" in found:
            about = found
        elif "steps" in found:
            with suppress(ValueError):  # a file that is no report says nothing
                firstboot = firstboot_in(found)
    release, imaged_at = "", 0
    with suppress(JsonFault):
        release = one_line(about.text("release_sha256"))
    with suppress(JsonFault):
        imaged_at = about.integer("imaged_at", high=(1 << 33) - 1)
    return CardSaid(release, imaged_at, firstboot)


def object_in(
    parts: Mapping[str, ProgramOutput], name: str, program: str, seconds: int = _LIMIT_SECONDS
) -> JsonObject:
    """The JSON that ``program`` printed as the part ``name``; raises NoAnswer. ``seconds`` is how
    long it was let run."""
    part = parts.get(name)
    if part is None:
        raise NoAnswer(f"{program} did not come to its end")
    if part.status == 127:
        raise NoAnswer(f"{program.split()[0]} is not installed there")
    if part.status == 124:
        raise NoAnswer(f"{program} did not end within {seconds} s")
    found = next(iter(_objects_in(part.text)), None)
    if found is not None:
        return found
    last = one_line(part.text.strip().rpartition("\n")[2]) or "nothing"
    raise NoAnswer(f"{program} ended with status {part.status} and said: {last}")


def _objects_in(text: str) -> Iterable[JsonObject]:
    """Every JSON object that begins a line of ``text``; what stands between is passed over."""
    decoder, offset, failed = json.JSONDecoder(), 0, 0
    while (start := text.find("{", offset)) >= 0:
        try:
            value, offset = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            failed += 1
            if failed > _MOST_FAILURES:  # each may have taken all of the text
                return
            newline = text.find("\n", start)
            offset = newline if newline >= 0 else len(text)
            continue
        if isinstance(value, dict):
            yield JsonObject(value)


def _names(found: JsonObject, key: str) -> list[str]:
    try:
        listed = found.items(key)
    except JsonFault:
        return []
    return [name for name in listed if isinstance(name, str) and NODE_ID.match(name)]


def one_line(value: str) -> str:
    """Text of a stranger in one line, short and without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in value)[:_TEXT_LIMIT]

"""What is asked of a Salt master, and what its answers mean.

In: the text of the programs ``salt-key``, ``salt-run`` and ``salt`` on the master. Out: who is
accepted, who answers, and what each node says of its card. All of it comes from other computers,
some of it from any node that was let in, so nothing is believed beyond its shape. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from imager.bootcheck.own_files import FIRSTBOOT_PATH, NODE_PATH
from imager.card.inspect.firstboot import FirstBoot, parse_firstboot
from imager.rack.master.presence import Presence

_MARK = "==picloud=="
_LIMIT_SECONDS = 180
"""salt-run alone takes ten seconds to start on a Raspberry Pi 2, and waits for silent nodes."""

_PATIENCE_SECONDS = 10
"""How long a node may take to answer; a Pi that is being asked by a Pi is not quick."""

_KEY_LISTS = {
    "minions": Presence.SILENT,
    "minions_pre": Presence.PENDING,
    "minions_denied": Presence.DENIED,
    "minions_rejected": Presence.REJECTED,
}
"""salt-key's lists, the later ones weighing more: a node may be accepted and denied at once."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_BOOT = "/boot/"
_TEXT_LIMIT = 300
_MOST_FAILURES = 20

_PRELUDE = f"""\
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ask() {{
    name=$1; shift
    echo; echo "{_MARK} begin $name"
    timeout {_LIMIT_SECONDS} "$@" </dev/null
    status=$?
    echo; echo "{_MARK} end $name $status"
}}
"""


def question_who() -> str:
    """A script that prints whose keys the master has and who answers."""
    return (
        _PRELUDE
        + "ask keys salt-key --list-all --out=json --log-level=quiet\n"
        + f"ask up salt-run manage.status timeout={_PATIENCE_SECONDS} "
        + f"gather_job_timeout={_PATIENCE_SECONDS} --out=json --log-level=quiet\n"
    )


def question_cards(nodes: Iterable[str]) -> str:
    """A script that prints what ``nodes`` (which answer) say of their cards."""
    names = ",".join(name for name in nodes if _ID.match(name))
    files = f"{_BOOT}{NODE_PATH} {_BOOT}{FIRSTBOOT_PATH}"
    return (
        _PRELUDE
        + f"ask cards salt --out=json --static --log-level=quiet --timeout={_PATIENCE_SECONDS} "
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
    """Every minion the master knows of, and how it stands."""

    standing: Mapping[str, Presence]


@dataclass(frozen=True, slots=True)
class CardSaid:
    """What a node says of its card; empty or None where it did not say."""

    release_sha256: str = ""
    imaged_at: int = 0
    firstboot: FirstBoot | None = None


class NoAnswer(ValueError):
    """The master's programs did not answer as Salt does; the message says which and how."""


def parts_of(text: str) -> dict[str, ProgramOutput]:
    """The output of each program in what a script of this module printed."""
    found: dict[str, ProgramOutput] = {}
    name, lines = "", list[str]()
    for line in text.splitlines():
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
    keys, up = _object(parts, "keys", "salt-key"), _object(parts, "up", "salt-run manage.status")
    standing: dict[str, Presence] = {}
    for key_list, presence in _KEY_LISTS.items():
        standing |= dict.fromkeys(_names(keys.get(key_list)), presence)
    standing |= dict.fromkeys(_names(up.get("up")), Presence.JOINED)
    return Who(standing)


def cards(text: str) -> dict[str, CardSaid]:
    """The answer to ``question_cards`` by node; raises NoAnswer."""
    found = _object(parts_of(text), "cards", "salt")
    return {name: card_said(said) for name, said in found.items() if isinstance(said, str)}


def card_said(text: str) -> CardSaid:
    """What the two files of a card say, whichever of them are in ``text``."""
    about: dict[str, object] = {}
    firstboot: FirstBoot | None = None
    for found in _objects_in(text):
        if "release_sha256" in found:
            about = found
        elif "steps" in found:
            with suppress(ValueError):  # a file that is no report says nothing
                firstboot = parse_firstboot(json.dumps(found).encode())
    imaged = about.get("imaged_at")
    return CardSaid(
        release_sha256=_text(about.get("release_sha256")),
        imaged_at=imaged if type(imaged) is int and 0 < imaged < 1 << 33 else 0,
        firstboot=firstboot,
    )


def _object(parts: Mapping[str, ProgramOutput], name: str, program: str) -> dict[str, object]:
    part = parts.get(name)
    if part is None:
        raise NoAnswer(f"{program} did not come to its end")
    if part.status == 127:
        raise NoAnswer(f"{program.split()[0]} is not installed there")
    if part.status == 124:
        raise NoAnswer(f"{program} did not end within {_LIMIT_SECONDS} s")
    found = next(iter(_objects_in(part.text)), None)
    if found is not None:
        return found
    last = _text(part.text.strip().rpartition("\n")[2]) or "nothing"
    raise NoAnswer(f"{program} ended with status {part.status} and said: {last}")


def _objects_in(text: str) -> Iterable[dict[str, object]]:
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
            yield value


def _names(value: object) -> list[str]:
    listed = value if isinstance(value, list) else []
    return [name for name in listed if isinstance(name, str) and _ID.match(name)]


def _text(value: object) -> str:
    """Text of a stranger in one line, short and without control characters."""
    if not isinstance(value, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in value)[:_TEXT_LIMIT]

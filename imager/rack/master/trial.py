"""Whether canary nodes are well with packages that moved: the master asks each of them.

In: a Door to the master, nodes that answer, and a command to run there. Out: for each node which
packages it has, and how the command ended. What comes back is a stranger's text until it is checked
and cut short.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from imager.base.json_fields import JsonFault, JsonObject
from imager.rack.master.answers import (
    NODE_ID,
    PATIENCE_SECONDS,
    PRELUDE,
    object_in,
    one_line,
    parts_of,
)
from imager.rack.master.connection import Door
from imager.rack.master.status import salt_at

_CHECK_SECONDS = 300
"""How long the command may take on a node: it may have to fetch an image of a container."""
_SALT_SECONDS = _CHECK_SECONDS + 60
_TOOK_TOO_LONG = 124
"""What timeout(1) ends with."""
_MOST_PACKAGES = 5000
_LINES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one node. ``installed`` has the version of each package on it, None where it did
    not say. ``status`` is how the command ended, None where none was to be run or it did not end;
    ``said`` are its last lines, or why there are none."""

    installed: Mapping[str, str] | None
    status: int | None = None
    said: tuple[str, ...] = ()


def question_trial(nodes: Iterable[str], check: str | None) -> str:
    """A script that prints which packages ``nodes`` have, and what ``check`` says there."""
    names = ",".join(name for name in nodes if NODE_ID.match(name))
    salt = f"salt --out=json --static --log-level=quiet --timeout={PATIENCE_SECONDS} -L {names}"
    script = PRELUDE + f"ask packages {salt} cmd.run_all 'pacman -Q' ignore_retcode=True\n"
    if check is None:
        return script
    return script + (
        f"limit={_SALT_SECONDS}\n"
        f"ask check {salt} cmd.run_all '{run_on_node(check, _CHECK_SECONDS)}' "
        f"python_shell=True timeout={_CHECK_SECONDS + 30} ignore_retcode=True\n"
    )


def run_on_node(check: str, seconds: int) -> str:
    """Words for a shell that end as ``check`` ends, or with 124 after ``seconds``, when all that it
    started is ended, too: Salt would end the outermost shell alone. Only the last 4,000 bytes of
    what it says leave the node, or the master would have to bear the rest."""
    # Salt takes words for YAML and for name=value. No letter of base64 means anything to it, nor
    # to the two shells on the way.
    word = base64.b64encode(check.encode()).decode()
    return (
        "exec 3>&1; status=$({ { "
        f'timeout -k 5 {seconds} sh -c "$(echo {word} | base64 -d)" </dev/null 2>&1 3>&- 4>&-; '
        "echo $? >&4; } | tail -c 4000 >&3; } 4>&1); exit $status"
    )


def trials(text: str, nodes: Iterable[str], check: str | None) -> dict[str, Trial]:
    """The answer to ``question_trial`` by node; raises NoAnswer."""
    parts = parts_of(text)
    packages = object_in(parts, "packages", "salt")
    checked = None if check is None else object_in(parts, "check", "salt", _SALT_SECONDS)
    found = {}
    for name in nodes:
        status, said = (None, ()) if checked is None else _end_of(checked, name)
        found[name] = Trial(_installed(packages, name), status, said)
    return found


def ask_trials(door: Door, nodes: Iterable[str], check: str | None) -> dict[str, Trial]:
    """Ask ``nodes``, which answer. Raises as ``Door.run``, and MissingTool or NetworkError when no
    Salt answers there."""
    names = tuple(nodes)
    with salt_at(door):
        return trials(door.run(question_trial(names, check)), names, check)


def _installed(packages: JsonObject, node: str) -> dict[str, str] | None:
    try:
        answer = packages.child(node)
        status, text = answer.integer("retcode", high=1 << 31), answer.text("stdout")
    except JsonFault:
        return None
    if status:
        return None
    lines = (line.split(" ") for line in islice(text.split("\n"), _MOST_PACKAGES))
    return {words[0]: one_line(words[1]) for words in lines if len(words) == 2}


def _end_of(checked: JsonObject, node: str) -> tuple[int | None, tuple[str, ...]]:
    """How the command ended on ``node``, and its last lines."""
    try:
        answer = checked.child(node)
        status = answer.integer("retcode", low=-(1 << 31), high=1 << 31)
        text = f"{answer.text('stdout')}\n{answer.text('stderr')}"
    except JsonFault:
        said = checked.values.get(node)
        return None, (one_line(said) if isinstance(said, str) else "it did not answer",)
    lines = [line for line in text.split("\n") if line.strip()]
    said = tuple(one_line(line) for line in lines[-_LINES_SHOWN:])
    return (None if status == _TOOK_TOO_LONG else status), said

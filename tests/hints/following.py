"""A hint is followed: the situation is made, the words are read off the screen, and typed.

In: a row of a table, and a place in which lines can be typed. Out: nothing, or a failed assertion.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.starter import run_command
from tests.support.workplace import Said

PROGRAM = "picloud-image"
_TO_SHELL = "$ "

Step = str | Callable[[Any], object]
"""A line for the program; one for a shell, after ``$``; or a function of the place."""


@dataclass(frozen=True, slots=True)
class Row:
    """``line`` ends with ``code`` and prints what the pattern ``said`` finds, in which the words
    of ``fill`` are replaced by what a person means. ``then`` is typed with it, and ends with
    ``ends``. Where ``section`` is given, what was said is a setting, and is written there. Where
    ``again`` is given, ``line`` itself is typed once more, and ends with it.

    ``before`` makes the situation, ``between`` is what the words say beside what is typed.
    ``rack`` is what PICLOUD_RACK names; without one the folder ``empty`` is the current one.
    """

    line: str
    said: str
    then: str = "{said}"
    code: int = 2
    ends: int = 0
    fill: dict[str, str] = field(default_factory=dict)
    before: tuple[Step, ...] = ()
    between: tuple[Step, ...] = ()
    again: int | None = None
    rack: str = "rack"
    section: str = ""


def follow(row: Row, place: object, folder: Path, run: Callable[[str], Said]) -> None:
    """Follow ``row``; ``folder`` has its files, ``run`` types a line for the program."""

    def do(step: Step, said: str = "") -> None:
        if callable(step):
            step(place)
        elif step.startswith(_TO_SHELL):
            line = step.removeprefix(_TO_SHELL).replace("{said}", said)
            subprocess.run(line, shell=True, cwd=folder, check=True)
        else:
            done = run(step.replace("{said}", said))
            assert done.code == 0, done.err

    for step in row.before:
        do(step)
    told = run(row.line)
    assert told.code == row.code, told.err + told.out
    found = re.search(row.said, told.out + told.err)
    assert found is not None, told.out + told.err
    said = found[0]
    for word, meant in row.fill.items():
        assert word in said
        said = said.replace(word, meant)
    if row.section:
        toml, head = folder / row.rack / "rack.toml", f"[{row.section}]\n"
        before_it, after_it = toml.read_text().split(head)
        toml.write_text(f"{before_it}{head}{said}\n{after_it}")
    for step in row.between:
        do(step, said)
    done = run(row.then.replace("{said}", said))
    assert done.code == row.ends, done.err + done.out
    if row.again is not None:
        done = run(row.line)
        assert done.code == row.again, done.err + done.out


def words_of(line: str) -> tuple[dict[str, str], list[str]]:
    """The variables that ``line`` sets first, as in a shell, and the words behind the program's
    name, which may be left out."""
    words = shlex.split(line)
    given = [word for word in words if re.match("[A-Za-z_]+=", word)]
    count = next((n for n, word in enumerate(words) if word not in given), len(words))
    named = words[count : count + 1] == [PROGRAM]
    return dict(word.split("=", 1) for word in words[:count]), words[count + named :]


def typed(folder: Path, line: str, rack: str) -> Said:
    given, words = words_of(line)
    environment = {
        "PATH": f"{folder}/programs:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "PICLOUD_CACHE": str(folder / "cache"),
    }
    if rack:
        environment["PICLOUD_RACK"] = str(folder / rack)
    where = folder if rack or "--rack" in line else folder / "empty"
    return Said(*run_command(words, cwd=where, env=environment | given, stdin="", seconds=60))


def small_disk(folder: Path, held: ExitStack, options: str) -> None:
    """Have ``folder`` on a disk of its own, in which there is little room, until ``held`` ends."""
    if os.geteuid():
        pytest.skip("needs root to mount")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    def unmount() -> None:
        subprocess.run(["umount", folder], check=True)

    held.callback(unmount)

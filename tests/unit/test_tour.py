"""README's tour: what a test types in a clean Debian, and docs/tour.cast, say the same."""

from __future__ import annotations

import json

import pytest

from tests.support.screen import screen
from tests.support.tour import CARDS, README, Step, difference, install_line, renamed, steps_of
from tests.support.typing import COLUMNS, PROMPT

CAST = README.parent / "docs/tour.cast"
STEPS = steps_of(README.read_text())
SAME = {name: name for name in CARDS}
WRITE = next(step for step in STEPS if " write " in step.typed)


def recorded() -> list[tuple[str, str]]:
    """What was typed in docs/tour.cast, and what came then."""
    head, *events = map(json.loads, CAST.read_text().splitlines())
    assert head["width"] == COLUMNS
    _, *pieces = PROMPT.split("".join(text for _, _, text in events))
    typed = (piece.partition("\r\n") for piece in pieces[1::2])
    return [(line.rstrip(), came) for line, _, came in typed if line]


def test_the_recording_is_of_the_tour() -> None:
    recording = recorded()
    words = [word for line, _ in recording for word in line.split()]
    seen = dict.fromkeys(word for word in words if word.startswith("/dev/"))
    names = dict(zip(seen, CARDS, strict=True))
    assert len(recording) == len(STEPS)
    for step, (typed, came) in zip(STEPS, recording, strict=True):
        assert renamed(typed, names) == step.typed
        assert difference(step, came, names) == ""


def came_of(step: Step, *changes: tuple[str, str]) -> str:
    text = "\r\n".join(step.shown) + "\r\n"
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    "change",
    [
        ("write: 445.3 MB in 0.7 s, 623.0 MB/s", "write: 451 MB in less than 0.1 s"),
        ("compile Salt: 17.6 MB in 1.9 s, 9.3 MB/s", "compile Salt: 17.6 MB in 21 s, 0.8 MB/s"),
        ("will be\r\n    lost.", "will\r\n        be lost."),
        ("20261129T071236.783Z", "20271231T000000.000Z"),
    ],
)
def test_what_may_differ(change: tuple[str, str]) -> None:
    assert difference(WRITE, came_of(WRITE, change), SAME) == ""


@pytest.mark.parametrize(
    "change",
    [
        ("boot check passed", "boot check failed"),
        ("6.4 GB", "6.5 GB"),
        ("to be fetched from PyPI", "to be fetched"),
        ("/home/me/rack/.picloud", "/home/you/rack/.picloud"),
        ("hash: 443.7 MB in", "hash: 443.7 GB in"),
        ("table: 1 MB in less than 0.1 s\r\n", ""),
        ("783Z-pi7.json\r\n", "783Z-pi7.json\r\nTraceback\r\n"),
        ("/dev/loop1", "/dev/loop2"),
    ],
)
def test_what_may_not(change: tuple[str, str]) -> None:
    assert difference(WRITE, came_of(WRITE, change), SAME)


def test_other_disks_of_the_computer_are_passed_over() -> None:
    step = next(step for step in STEPS if step.typed == "picloud-image devices")
    came = [line for line in step.shown if "loop" in line]
    assert len(came) == len(CARDS)
    other = "/dev/loop9: another, 1 GB, loop: ready\r\n    on it: something"
    assert difference(step, "\r\n".join([*came, other]), SAME) == ""
    assert difference(step, "\r\n".join([other, *came[:-1]]), SAME)


def test_disks_are_renamed_all_at_once() -> None:
    line = " ".join(CARDS)
    other = dict(zip(CARDS, (*CARDS[1:], "/dev/loop12"), strict=True))
    assert renamed(line, other) == " ".join(other.values())
    assert renamed(renamed(line, other), {new: old for old, new in other.items()}) == line


def test_a_line_to_install_each_package() -> None:
    assert install_line(README.read_text(), "Install", "+deb12").startswith("sudo apt install ./")


def test_bars_are_gone_from_a_screen() -> None:
    came = "a 1%\r    \ra: done\r\n\r\nb\033[A\rc 9%\033[K\033]2;0\a\r\n"
    came += "\033[1A\033[J\033[31md\033[0m\r\n"
    assert screen(came) == ["a: done", "d", ""]


def test_every_step_is_short_enough_for_the_terminal() -> None:
    assert [line for step in STEPS for line in step.shown if len(line) > COLUMNS] == []

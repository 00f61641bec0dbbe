"""What is drawn over itself is drawn only where that can be, and as wide as that terminal is."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imager.card.host.image_file import ImageFile
from imager.cli.console import Console
from imager.cli.terminal import phases
from imager.cli.views.batch_screen import Screen
from imager.config.rack import Node
from imager.rack.batch.crew import CardJob, Crew

_LAST = "the last word"


@contextmanager
def terminal(*, columns: int = 60, lines: int = 20, term: str = "xterm") -> Iterator[int]:
    """Standard error is a terminal, of which this is the person's end; standard output is not."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with pytest.MonkeyPatch.context() as patch, os.fdopen(theirs, "w") as stream:
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", term)
        patch.delenv("COLUMNS", raising=False)
        yield ours
    os.close(ours)


def seen(person: int) -> str:
    """All that was written so far; the kernel brings it over in its own time."""
    sys.stderr.write(_LAST)
    sys.stderr.flush()
    return seen_until(person, _LAST).partition(_LAST)[0]


def seen_until(person: int, words: str) -> str:
    """What comes until ``words`` did."""
    said = ""
    while words not in said:
        assert select.select([person], [], [], 60)[0], said
        said += os.read(person, 1 << 16).decode()
    return said


class Idle(Crew):
    """A crew that has nothing under way."""

    def __init__(self) -> None:
        self._threads = {}


def job(name: str) -> CardJob:
    target = ImageFile(Path(f"/img/{name}.img"), False, 0, True)
    return CardJob(Node(name, "pi2", (), None, ()), target, 1 << 30, "A1")


def test_bars_are_as_wide_as_the_terminal_they_are_on() -> None:
    with terminal() as person:
        with Screen(Console()) as screen:
            screen.expect(job("pi0"))
            screen.turn(Idle())
        drawn = seen(person)
    lines = [line for line in drawn.replace("\033[K", "").splitlines() if "rack: " in line]
    assert len(lines) == 1
    assert 50 < len(lines[0]) < 60


@pytest.mark.parametrize(("term", "draws"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_dumb_terminal_gets_lines(term: str, draws: bool) -> None:
    with terminal(term=term) as person:
        console = Console()
        assert console.on_terminal is draws
        with console.phase("write", 100) as phase:
            phase.advance(100)
        with Screen(console) as screen:
            screen.expect(job("pi0"))
            screen.turn(Idle())
        said = seen(person)
    assert "write: 100 B in" in said
    assert ("\033" in said) is draws
    assert ("\r" in said.replace("\r\n", "\n")) is draws


def test_a_phase_without_bytes_shows_how_long_it_has_been_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phases, "_TICK_SECONDS", 0.05)
    with terminal() as person:
        with Console().phase("compile Salt"):
            said = seen_until(person, "compile Salt … 00:01")
        assert "compile Salt … 00:00" in said
        assert re.search(r"compile Salt: [1-9]\d*\.\d s", seen(person))


@pytest.mark.parametrize(("columns", "sizes"), [(60, False), (80, True)])
def test_a_bar_has_the_time_left_and_no_more_than_fits(columns: int, sizes: bool) -> None:
    with terminal(columns=columns) as person:
        with Console().phase("read back", 800_000_000) as phase:
            time.sleep(0.2)
            phase.advance(400_000_000)
        said = seen(person)
    drawn = [line for line in said.replace("\033[A", "").split("\r") if "left" in line]
    assert "50% |" in drawn[-1]
    assert ("400 MB/800 MB" in drawn[-1]) is sizes
    assert "MB/s" in drawn[-1]
    assert all(len(line) <= columns for line in drawn)


def test_a_terminal_that_does_not_know_its_size_is_taken_for_a_usual_one() -> None:
    with terminal(columns=0, lines=0):
        assert Console().screen.columns >= 80


def test_what_a_card_says_cannot_draw_on_the_picture() -> None:
    with terminal(columns=60) as person:
        with Screen(
            Console(), standing=lambda: ["a card: \033[2J\x9b1m\nforged" + "x" * 99]
        ) as screen:
            screen.expect(job("pi0"))
            screen.turn(Idle())
        drawn = seen(person)
    assert "\033[2J" not in drawn
    assert "\x9b" not in drawn
    (line,) = [line for line in drawn.replace("\033[K", "").splitlines() if "a card: " in line]
    assert line.partition("a card: ")[2] == (r"\x1b[2J\x9b1m\nforged" + "x" * 99)[: 59 - 8]

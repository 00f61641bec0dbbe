"""A listener that ends, or falls silent, is replaced; no event is lost and each is in order.

``salt-run`` is a small script here, whose bus is a file; the real one is in tests/salt.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from imager.base.errors import NetworkError
from imager.rack.master.connection import Door
from imager.stations.salt import hearing as hearing_module
from imager.stations.salt import listening as listening_module
from imager.stations.salt.hearing import Hearing, hearing
from imager.stations.salt.listening import Listener, listener

_SALT_RUN = """#!/bin/sh
case $2 in
    state.event) echo $$ >>{folder}/listeners; exec tail -qn 0 -f {folder}/bus ;;
    event.send) [ -e {folder}/off ] || printf '%s\\t{{}}\\n' "$3" >>{folder}/bus ;;
esac
"""


class Master:
    """What is said on the bus of the master in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = folder / "bus"
        self.bus.touch()
        program = folder / "salt-run"
        program.write_text(_SALT_RUN.format(folder=folder))
        program.chmod(0o755)
        path = f"PATH={folder}:{os.environ['PATH']}"
        self.door = Door("this computer", ("env", path, "sh", "-s"), is_local=True)
        self.said = 0

    def listener(self, given_up: threading.Event) -> AbstractContextManager[Listener]:
        return listener(self.door, "s", lambda _: True, given_up)

    def say(self, times: int = 1, letters: int = 0) -> None:
        with self.bus.open("a") as bus:
            for _ in range(times):
                self.said += 1
                more = f', "more": "{"x" * letters}"' if letters else ""
                bus.write(f'picloud-image/s\t{{"number": {self.said}{more}}}\n')

    def strike(self, how: signal.Signals) -> None:
        os.kill(self.listeners()[-1], how)

    def listeners(self) -> list[int]:
        return [int(line) for line in (self.folder / "listeners").read_text().split()]

    def wait_for(self, listeners: int) -> None:
        until = time.monotonic() + 30
        while len(self.listeners()) < listeners:
            assert time.monotonic() < until
            time.sleep(0.02)


def heard(hears: Hearing, last: int) -> tuple[list[int], int]:
    """The numbers of all events up to the ``last``, each once, and how often nothing was heard."""
    numbers: list[int] = []
    broken = 0
    until = time.monotonic() + 30
    while not numbers or numbers[-1] < last:
        assert time.monotonic() < until, numbers
        try:
            event = hears.next(0.05)
        except NetworkError:
            broken += 1
            continue
        if event is not None and (number := event.integer("number")) > max(numbers, default=0):
            numbers.append(number)
    return numbers, broken


def test_a_listener_that_ended_is_replaced(tmp_path: Path) -> None:
    master = Master(tmp_path)
    with hearing(master.listener, lambda: False) as hears:
        master.say(3)
        assert heard(hears, 3) == ([1, 2, 3], 0)
        master.say(2)
        master.strike(signal.SIGKILL)
        with pytest.raises(NetworkError, match="events are not heard any more"):
            while True:
                event = hears.next(60)
                assert event is not None and event.integer("number") in (4, 5)
        master.wait_for(2)
        while len(hears._listeners) < 2:
            assert hears.next(0.05) is None, "it says so once"
        master.say(2)
        assert heard(hears, 7)[0][-2:] == [6, 7]


def test_what_nobody_takes_waits_on_the_master(tmp_path: Path) -> None:
    """Some MiB wait here; the rest is not read, and not lost."""
    master = Master(tmp_path)
    with master.listener(threading.Event()) as hears:
        before = time.monotonic()
        master.say(200, letters=100_000)
        while hears._waiting._bytes < listening_module._MOST_WAITING_BYTES - 200_000:
            assert time.monotonic() < before + 30
            time.sleep(0.02)
        time.sleep(0.3)
        assert hears._waiting._bytes <= 4 << 20
        for number in range(1, 201):
            event = hears.next(10)
            assert event is not None
            assert event.integer("number") == number
        assert hears.next(0) is None
        master.say(1, letters=5 << 18)
        master.say()
        assert [event.integer("number") for _ in range(2) if (event := hears.next(10))] == [
            201,
            202,
        ]


def test_a_listener_closes_whatever_waits_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "_GRACE_SECONDS", 0.2)
    master = Master(tmp_path)
    with master.listener(threading.Event()) as hears:
        master.say(100, letters=100_000)
        assert hears.next(10) is not None
    hears._thread.join(10)
    assert not hears._thread.is_alive()


def test_a_silent_listener_is_replaced_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing_module, "SILENT_SECONDS", 0.3)
    # The one that is stopped may be just being opened: it is given up then, and another one tried.
    monkeypatch.setattr(hearing_module, "_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(listening_module, "_READY_SECONDS", 5.0)
    master, is_expected = Master(tmp_path), threading.Event()
    with hearing(master.listener, is_expected.is_set) as hears:
        time.sleep(0.5)
        assert len(master.listeners()) == 1, "nobody has anything to say"
        is_expected.set()
        said = threading.Thread(target=_speak, args=(master, is_expected.is_set))
        said.start()
        try:
            # It is not stuck, so what came while the other one was opened is heard by both.
            numbers, broken = heard(hears, 15)
            assert (numbers, broken) == ([*range(1, numbers[-1] + 1)], 0)
        finally:
            is_expected.clear()
            said.join()
        stuck = master.listeners()[-1]
        os.kill(stuck, signal.SIGSTOP)
        is_expected.set()
        master.wait_for(len(master.listeners()) + 1)
        while is_alive(stuck):
            time.sleep(0.02)
        master.say()
        assert heard(hears, master.said)[0][-1] == master.said
    until = time.monotonic() + 60
    while any(map(is_alive, master.listeners())):
        assert time.monotonic() < until, "a listener stays on the master"
        time.sleep(0.02)


def _speak(master: Master, is_on: Callable[[], bool]) -> None:
    """With pauses that are longer than what counts as silence."""
    while is_on():
        master.say()
        time.sleep(0.1 if master.said % 5 else 0.7)


def is_alive(pid: int) -> bool:
    """Whether that listener is there, and not only waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_master_that_is_away_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing_module, "_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(listening_module, "_READY_SECONDS", 2.0)
    master = Master(tmp_path)
    with hearing(master.listener, lambda: False) as hears:
        (tmp_path / "off").touch()
        master.strike(signal.SIGKILL)
        master.wait_for(3)
        (tmp_path / "off").unlink()
        while len(hears._listeners) < 2:
            time.sleep(0.02)
        master.say()
        assert heard(hears, 1)[0] == [1]

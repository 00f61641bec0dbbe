"""Stations are asked seldom while each says by itself what is new in its readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from imager.cli.stations import watch
from imager.cli.stations.head import Stations
from imager.cli.stations.watch import StationReaders
from imager.rack.batch.crew import Orders
from imager.stations.head import lookouts as head_lookouts
from imager.stations.head.lookouts import Lookouts
from imager.stations.head.roll_call import RollCall
from tests.support.scriptbus import ScriptBus

NAMES = ("desk1", "desk2")
PATIENCE_SECONDS = 60.0


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def took(theirs: Lookouts) -> bool:
    """Whether there was news, which there is no more."""
    had, theirs.has_news = theirs.has_news, False
    return had


@pytest.fixture
def bus() -> ScriptBus:
    return ScriptBus()


@pytest.fixture
def theirs(bus: ScriptBus) -> Iterator[Lookouts]:
    found = Lookouts(bus, NAMES)
    yield found
    found.close()


def test_a_lookout_is_begun_at_each_and_again_before_it_ends(
    bus: ScriptBus, theirs: Lookouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        theirs.keep()
    until(lambda: len(bus.begun) == 2)
    assert [(name, action, dict(asked)) for name, action, asked, _ in bus.begun] == [
        (name, "lookout", {"seconds": 300}) for name in NAMES
    ]
    monkeypatch.setattr(head_lookouts, "_AGAIN_SECONDS", 0.0)
    theirs.hear("desk1", changed=False)
    theirs.keep()
    until(lambda: len(bus.begun) == 3)
    assert bus.begun[2][0] == "desk2", "of which nothing is heard"
    monkeypatch.setattr(head_lookouts, "_EARLIER_SECONDS", 300.0)
    theirs.hear("desk2", changed=False)
    theirs.keep()
    until(lambda: len(bus.begun) == 5)


def test_who_is_heard_covers_its_readers(theirs: Lookouts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not theirs.cover(())
    theirs.hear("desk1", changed=False)
    assert took(theirs), "what was there before it looked"
    theirs.hear("desk1", changed=False)
    assert not took(theirs)
    assert not theirs.cover(())
    assert theirs.cover(("desk2",)), "who is absent is tried again by a lookout"
    theirs.hear("desk2", changed=True)
    assert took(theirs)
    assert theirs.cover(())
    monkeypatch.setattr(head_lookouts, "_STALE_SECONDS", 0.0)
    assert not theirs.cover(())


def test_readers_are_asked_when_there_is_news_and_else_seldom(
    bus: ScriptBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    rolls = []

    def roll(*_: object) -> RollCall:
        rolls.append(time.monotonic())
        return RollCall({}, {}, (), {}, ())

    monkeypatch.setattr(Stations, "roll", roll)
    nothing = cast(Any, None)
    orders = cast(Orders, type("Nothing", (), {"rack": None, "limits": None}))
    readers = StationReaders(Stations(NAMES, bus), orders, nothing)

    def turn() -> bool:
        readers.tell(nothing, nothing, 0.0)
        time.sleep(0.002)
        return False

    try:
        until(lambda: turn() or len(rolls) > 3)
        for name in NAMES:
            readers.lookouts.hear(name, changed=False)
        until(lambda: turn() or (readers._asking is None and not readers.lookouts.has_news))
        count = len(rolls)
        for _ in range(30):
            turn()
        assert len(rolls) == count, "nobody has news"
        readers.lookouts.hear("desk2", changed=True)
        until(lambda: turn() or len(rolls) == count + 1)
    finally:
        readers.close()

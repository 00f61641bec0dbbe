"""How far a run is, and when it will be done, from how far its cards are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from imager.rack.batch.card_progress import Moment
from imager.rack.batch.outlook import outlook


@dataclass(frozen=True)
class Card:
    moment: Moment | None = None
    is_good: bool | None = None


def moment(moved: int, expected: int = 1000, *, done: int = 50, seconds: float = 5.0) -> Moment:
    return Moment("write", done, None, seconds, moved, expected)


def test_how_far_one_card_is() -> None:
    assert (moment(250).share, moment(250).seconds_left) == (0.25, 75.0)
    assert moment(2000).share == 0.99, "what is read again was not expected"
    assert moment(2000).seconds_left == 0.0
    assert moment(5, 0).share == 0.0
    assert moment(5, done=0).seconds_left is None
    slow = moment(0, done=1, seconds=100.0)
    assert (slow.bytes_per_second, slow.seconds_left) == (0.01, 1000.0)
    assert moment(0, seconds=0).bytes_per_second == 0.0


def test_a_run_without_cards_is_done() -> None:
    found = outlook([])
    assert (found.cards, found.share, found.seconds_left) == (0, 1.0, None)


def test_cards_that_ended_are_work_done_however_they_ended() -> None:
    ended = [Card(is_good=good) for good in (True, False, False)]
    found = outlook([*ended, Card(moment(500)), Card()], 1)
    assert (found.cards, found.good, found.failed) == (6, 1, 2)
    assert found.share == pytest.approx(3.5 / 6)
    assert found.bytes_per_second == 10.0


def test_the_slowest_card_and_those_that_wait_say_how_long_it_takes() -> None:
    half, begun = Card(moment(500)), Card(moment(0, done=0))
    assert outlook([half]).seconds_left == 50.0
    assert outlook([half, Card(moment(800))]).seconds_left == 50.0
    assert outlook([begun]).seconds_left is None
    assert outlook([half, begun]).seconds_left == 50.0
    # A whole card takes 100 s; two are made at a time.
    two = [half, Card(moment(500))]
    for waiting, seconds in ((0, 50.0), (1, 150.0), (2, 150.0), (3, 250.0)):
        assert outlook([*two, *[Card()] * waiting]).seconds_left == pytest.approx(seconds)

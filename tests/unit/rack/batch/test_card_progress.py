"""What the workers say of their cards reaches the one who shows it, whole and in order."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from imager.rack.batch.card_progress import (
    CardBoard,
    CardEvent,
    FindingReported,
    Moment,
    PhaseBegan,
    PhaseEnded,
    Said,
)


@dataclass(frozen=True)
class Hole:
    """A finding."""

    def to_json(self) -> dict[str, object]:
        return {"code": "hole"}


class Heard:
    """A board, what it said, and the event that stops it."""

    def __init__(self) -> None:
        self.events: list[CardEvent] = []
        self.stop = threading.Event()
        self.board = CardBoard(self.events.append, self.stop)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_a_card_is_between_two_phases_or_in_the_innermost(heard: Heard) -> None:
    board = heard.board
    assert board.moment() == Moment("", 0, None, 0.0, 0, 0)
    board.expect(700)
    with board.phase("write", 500) as outer:
        outer.advance(300)
        with board.phase("look") as inner:
            inner.advance(20)
            now = board.moment()
            assert (now.phase, now.done_bytes, now.total_bytes) == ("look", 20, None)
        now = board.moment()
        assert (now.phase, now.done_bytes, now.total_bytes) == ("write", 300, 500)
        assert 0 <= now.phase_seconds < 60
        outer.advance(1)
    assert board.moment() == Moment("", 0, None, 0.0, 321, 700)


def test_every_phase_is_told_with_its_end(heard: Heard) -> None:
    with heard.board.phase("write", 500) as phase:
        phase.advance(300)
        phase.advance(200)
    with pytest.raises(ZeroDivisionError), heard.board.phase("look"):
        raise ZeroDivisionError
    assert heard.events[0] == PhaseBegan("write", 500)
    assert heard.events[2] == PhaseBegan("look", None)
    good, bad = heard.events[1], heard.events[3]
    assert isinstance(good, PhaseEnded)
    assert isinstance(bad, PhaseEnded)
    assert (good.phase, good.done_bytes, good.total_bytes) == ("write", 500, 500)
    assert (good.failed, bad.failed, bad.done_bytes) == (False, True, 0)
    assert 0 <= good.seconds < 60


def test_what_is_said_and_found_is_passed_on(heard: Heard) -> None:
    heard.board.note("cached")
    heard.board.warn("slow")
    heard.board.finding(Hole())
    assert heard.events == [Said("cached", False), Said("slow", True), FindingReported(Hole())]


def test_a_stopped_card_ends_at_its_next_report_which_still_counts(heard: Heard) -> None:
    heard.board.require_going_on()
    with pytest.raises(KeyboardInterrupt), heard.board.phase("write") as phase:
        heard.stop.set()
        phase.advance(5)
    assert heard.board.moment().moved_bytes == 5
    with pytest.raises(KeyboardInterrupt), heard.board.phase("read back"):
        pass
    with pytest.raises(KeyboardInterrupt):
        heard.board.require_going_on()
    assert len(heard.events) == 2, "the second phase never began"


def test_steps_are_no_bytes_of_the_card(heard: Heard) -> None:
    with heard.board.steps("prepare pi7", 9) as phase:
        phase.advance(4)
        now = heard.board.moment()
        assert (now.phase, now.done_bytes, now.moved_bytes) == ("prepare pi7", 0, 0)
        assert (now.done_steps, now.total_steps, now.phase_share) == (4, 9, 4 / 9)
        phase.advance(7)
        assert heard.board.moment().phase_share == 1.0, "their number was an estimate"
        heard.stop.set()
        with pytest.raises(KeyboardInterrupt):
            phase.advance(1)
    assert [type(event) for event in heard.events] == [PhaseBegan, PhaseEnded]


def test_what_is_left_of_a_phase_is_told_where_nothing_tells_what_is_left_of_all() -> None:
    preparing = Moment("prepare pi7", 0, None, 3.0, 0, 0, 3, 9)
    assert (preparing.seconds_left, preparing.known_seconds_left) == (None, 6.0)
    fetching = Moment("fetch golden image", 100, 400, 5.0, 0, 0)
    assert (fetching.seconds_left, fetching.known_seconds_left) == (None, 15.0)
    writing = Moment("write", 100, 400, 5.0, 100, 800)
    assert (writing.seconds_left, writing.known_seconds_left) == (35.0, 35.0)
    assert Moment("table", 0, None, 5.0, 100, 800).known_seconds_left is None


@pytest.mark.parametrize(("seconds", "rate"), [(4.0, 250.0), (0.5, 2000.0), (0.0, 0.0)])
def test_the_rate_is_the_mean_of_the_phase(seconds: float, rate: float) -> None:
    assert Moment("write", 1000, None, seconds, 0, 0).bytes_per_second == rate

"""How many cards at a time, on buses that bear this or that much."""

from __future__ import annotations

import pytest

from imager.rack.batch.limiter import FIRST, Limiter

CARD = 20e6
STEP = 0.1


def run(limiter: Limiter, cards: int, bears: float, card_bytes: float = 800e6) -> tuple[int, float]:
    """Write ``cards`` cards behind one port that bears ``bears`` bytes per second; the most at a
    time and the seconds it took."""
    left = {f"pi{n}": card_bytes for n in range(cards)}
    waiting, at_work = list(left), set[str]()
    now, most = 0.0, 0
    while left:
        while waiting and limiter.may_begin("usb1/1-1"):
            limiter.began(waiting[0], "usb1/1-1")
            at_work.add(waiting.pop(0))
        most = max(most, len(at_work))
        rate = min(CARD, bears / len(at_work))
        for card in list(at_work):
            limiter.moved(card, int(rate * STEP))
            left[card] -= rate * STEP
            if left[card] <= 0:
                limiter.ended(card)
                at_work.remove(card)
                del left[card]
        now += STEP
        limiter.look(now)
    return most, now


def test_a_bus_with_room_takes_all_of_them() -> None:
    most, seconds = run(Limiter(), 14, 400e6)
    assert most == 14
    assert seconds < 1.25 * 800e6 / CARD


@pytest.mark.parametrize("bears", [30e6, 60e6, 80e6])
def test_a_full_bus_is_not_given_more(bears: float) -> None:
    limiter = Limiter()
    most, seconds = run(limiter, 14, bears)
    assert most <= 2 * FIRST
    assert limiter.allowed("usb1/1-1") == FIRST
    assert seconds < 1.2 * 14 * 800e6 / bears, "but for the last ones, the wire is full"


def test_a_bus_in_between_settles_in_between() -> None:
    limiter = Limiter()
    run(limiter, 40, 170e6)
    assert limiter.allowed("usb1/1-1") == 8


def test_ports_do_not_count_for_each_other() -> None:
    limiter = Limiter()
    for n in range(FIRST):
        limiter.began(f"a{n}", "usb1/1-1")
    assert not limiter.may_begin("usb1/1-1")
    assert limiter.may_begin("usb1/1-2")
    assert limiter.may_begin(None), "what shares no wire is not held back"
    limiter.ended("a0")
    assert limiter.may_begin("usb1/1-1")
    for n in range(3 * FIRST):
        limiter.began(f"b{n}", None)
    assert limiter.may_begin(None)


@pytest.mark.parametrize("port", ["usb1/1-1", None])
def test_a_person_s_limit_holds_everywhere(port: str | None) -> None:
    limiter = Limiter(2)
    for name in ("a", "b"):
        assert limiter.may_begin(port)
        limiter.began(name, port)
    assert not limiter.may_begin("usb9/9-9")
    assert not limiter.may_begin(None)
    limiter.ended("a")
    assert limiter.may_begin(None)


def test_a_failing_card_leaves_its_place() -> None:
    limiter = Limiter()
    for n in range(FIRST):
        limiter.began(f"a{n}", "usb1/1-1")
        limiter.moved(f"a{n}", 1)
    limiter.look(0)
    limiter.ended("a1")
    limiter.ended("a1")
    limiter.look(100)
    assert limiter.allowed("usb1/1-1") == FIRST, "three cards say nothing about four"


@pytest.mark.parametrize(
    ("first", "second", "allowed"), [(60, 69, 4 * FIRST), (60, 68, FIRST), (7, 8, FIRST)]
)
def test_twice_as_many_stay_allowed_for_15_percent_more(
    first: int, second: int, allowed: int
) -> None:
    """In windows of three seconds, in which the bytes of before and after do not count."""
    limiter, port = Limiter(), "usb1/1-1"

    def window(cards: int, now: float, size_bytes: int) -> None:
        for n in range(cards):
            limiter.began(f"a{n}", port)
            limiter.moved(f"a{n}", 1)
        limiter.look(now)
        limiter.moved("a0", size_bytes)
        limiter.look(now + 2.9)
        limiter.look(now + 3.0)

    window(FIRST, 0.0, first)
    assert limiter.allowed(port) == 2 * FIRST
    window(2 * FIRST, 10.0, second)
    assert limiter.allowed(port) == allowed
    window(2 * FIRST, 20.0, 1000)
    assert limiter.allowed(port) == allowed, "settled, or too few cards to say more"


def test_a_card_that_moved_nothing_is_not_counted() -> None:
    limiter, port = Limiter(), "usb1/1-1"
    for n in range(FIRST):
        limiter.began(f"a{n}", port)
        limiter.moved(f"a{n}", n)
    limiter.began("elsewhere", None)
    limiter.moved("elsewhere", 1)
    limiter.look(0.0)
    limiter.look(3.0)
    assert limiter.allowed(port) == FIRST
    limiter.moved("a0", 1)
    limiter.look(10.0)
    limiter.look(12.9)
    assert limiter.allowed(port) == FIRST
    limiter.look(13.0)
    assert limiter.allowed(port) == 2 * FIRST

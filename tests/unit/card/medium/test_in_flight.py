"""Transfers in flight: in order, bounded, and all stopped when it is over."""

from __future__ import annotations

import threading
import time

import pytest

from imager.card.medium.in_flight import in_flight
from tests.support.cards import press_ctrl_c


def test_every_job_is_done_once_and_begun_in_order() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def jobs() -> list[int]:
        return list(range(500))

    def work(job: int, _: None) -> None:
        with lock:
            begun.append(job)

    in_flight(jobs(), work, depth=1, tools=lambda: None)
    assert begun == jobs()
    begun.clear()
    in_flight(jobs(), work, depth=4, tools=lambda: None)
    assert sorted(begun) == jobs()


def test_no_more_than_depth_at_a_time_each_with_its_own_tools() -> None:
    busy, most, made = 0, 0, 0
    lock = threading.Lock()

    def tools() -> list[int]:
        nonlocal made
        with lock:
            made += 1
        return []

    def work(job: int, own: list[int]) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        own.append(job)
        time.sleep(0.001)
        with lock:
            busy -= 1

    in_flight(range(60), work, depth=3, tools=tools)
    assert (most, made) == (3, 3)


def test_an_error_stops_the_others_at_their_next_job() -> None:
    done: list[int] = []

    def work(job: int, _: None) -> None:
        if job == 5:
            raise ValueError(job)
        done.append(job)
        time.sleep(0.001)

    with pytest.raises(ValueError, match="5"):
        in_flight(range(2000), work, depth=3, tools=lambda: None)
    assert len(done) < 100
    count = len(done)
    time.sleep(0.02)
    assert len(done) == count, "somebody still works after the return"


def test_ctrl_c_stops_all_and_waits_for_what_is_in_flight() -> None:
    running, finished = [], []

    def work(job: int, _: None) -> None:
        running.append(job)
        if job == 3:
            press_ctrl_c()
        time.sleep(0.01)
        finished.append(job)

    with pytest.raises(KeyboardInterrupt):
        in_flight(range(2000), work, depth=2, tools=lambda: None)
    assert sorted(running) == sorted(finished)
    assert len(running) < 100


def test_an_error_while_jobs_are_counted_out_is_raised() -> None:
    def jobs() -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_flight((job for job in jobs()), lambda job, _: None, depth=2, tools=lambda: None)


def test_nothing_to_do_is_done() -> None:
    in_flight([], lambda job, _: None, depth=2, tools=lambda: None)


# Where Ctrl-C comes within Thread.start, Python's own bookkeeping of that thread can go wrong; it
# says so when the thread, which did nothing, ends.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_leaves_nobody_at_work() -> None:
    """Also while a thread is being started, which is when an executor forgets it."""
    busy, left = 0, []
    lock = threading.Lock()

    def work(job: int, _: None) -> None:
        nonlocal busy
        with lock:
            busy += 1
        time.sleep(0.0002)
        with lock:
            busy -= 1

    for number in range(300):
        presser = threading.Timer(number % 60 * 0.00005, press_ctrl_c)
        try:
            presser.start()
            try:
                in_flight(range(30), work, depth=2, tools=lambda: None)
            finally:
                left.append(busy)
            while presser.is_alive():
                time.sleep(0.0001)
            time.sleep(0.001)
        except KeyboardInterrupt:
            pass
    assert not any(left)

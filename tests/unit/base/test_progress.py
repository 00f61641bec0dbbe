"""What does not say how far it is, is looked at from beside it."""

from __future__ import annotations

import threading
import time

import pytest

from imager.base.progress import followed


class Counted:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def advance(self, done: int) -> None:
        self.steps.append(done)


def test_what_grows_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imager.base.progress._LOOK_SECONDS", 0.001)
    phase, size = Counted(), 0
    with followed(phase, lambda: size):
        for size in (3, 7, 5):
            end = time.monotonic() + 60
            while sum(phase.steps) < min(size, 7) and time.monotonic() < end:
                time.sleep(0.001)
        size = 9
    assert phase.steps == [3, 4, 2], "never back, and the end is not missed"


def test_an_error_ends_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, phase = threading.active_count(), Counted()
    with pytest.raises(ValueError, match="broken"), followed(phase, lambda: 1):
        raise ValueError("broken")
    assert threading.active_count() == threads
    assert phase.steps == []

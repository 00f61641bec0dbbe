"""Which tests call which function, and so can notice that it changed.

In: a run of pytest with the plugin ``Calls``. Out: for a Mutant, the tests that call its function.
What a test calls in another process is not seen.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from mutants import Mutant

MOST_SECONDS = 20
"""Of work by the tests for one change; those with the most are left out."""
Place = tuple[str, int]
"""A file and the line where a function begins."""
Took = tuple[float, float]
"""Seconds of a processor, which are the same on a busy computer, and seconds by the clock."""
Found = dict[str, tuple[Took, set[Place]]]
"""For each test what it takes, and the functions that it calls."""


class Calls:
    """A pytest plugin: which functions of the named files each test calls, how long it takes."""

    def __init__(self, tree: Path, files: set[Path]) -> None:
        self.files = {os.fspath(tree / path): os.fspath(path) for path in files}
        self.calls: set[Place] = set()
        self.shared: dict[str, set[Place]] = {}
        self.tests: dict[str, tuple[Took, list[Place]]] = {}
        self.failed: set[str] = set()

    def _profile(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_filename in self.files:
            name = self.files[frame.f_code.co_filename]
            self.calls.add((name, frame.f_code.co_firstlineno))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """What a fixture for several tests calls is called for each of them."""
        if fixturedef.scope == "function":
            yield
            return
        before, self.calls = self.calls, set()
        yield
        self.shared.setdefault(fixturedef.argname, set()).update(self.calls)
        self.calls |= before

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        self.calls, began, worked = set(), time.monotonic(), _work()
        sys.setprofile(self._profile)
        threading.setprofile(self._profile)
        yield
        sys.setprofile(None)
        for name in item.fixturenames:
            self.calls |= self.shared.get(name, set())
        took = _work() - worked, time.monotonic() - began
        self.tests[item.nodeid] = took, sorted(self.calls)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @property
    def known(self) -> Found:
        """What was seen; tests that fail without any change are left out."""
        return {
            name: (took, set(called))
            for name, (took, called) in self.tests.items()
            if name not in self.failed
        }


def _work() -> float:
    """The seconds of a processor that this process had, and those it started that have ended."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def meeting(mutant: Mutant, found: Found) -> tuple[list[str], float]:
    """The tests that call the mutant's function (what stands outside of functions: its module),
    those with the least work first, and the seconds by the clock that they take."""
    module, first = os.fspath(mutant.path), mutant.span[0]
    names: list[str] = []
    total = seconds = 0.0
    for name, ((work, took), called) in sorted(found.items(), key=lambda item: item[1][0]):
        meets = (module, first) in called or (not first and any(at[0] == module for at in called))
        if meets and (not names or total + work < MOST_SECONDS):
            names.append(name)
            total += work
            seconds += took
    return names, seconds

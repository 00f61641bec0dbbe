"""Readers of strangers' bytes: inputs that broke one once, and a minute of new ones each.

``python -m tests.fuzz NAME`` looks for more; what it finds goes into ``kept/NAME``, called by what
it did, when the reader is mended.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import ROOT, kept, run
from tests.fuzz.child import TooSlowError, try_input
from tests.fuzz.targets import TARGETS, Target
from tests.support.telling import Tell

pytestmark = pytest.mark.image

WITH_KEPT = [name for name in TARGETS if kept(name)]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, *words), cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", WITH_KEPT)
def test_what_broke_a_reader_once_breaks_it_no_more(name: str) -> None:
    done = python("-m", "tests.fuzz.child", "try", name, *map(str, kept(name)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", TARGETS)
def test_what_real_tools_made_is_not_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    assert all([try_input(target, data) for data in target.seeds(tmp_path)])


def test_every_kept_input_has_a_reader() -> None:
    folders = {path.name for path in (ROOT / "tests/fuzz/kept").iterdir()}
    assert folders <= set(TARGETS)


def test_an_error_that_no_reader_may_raise_is_a_finding() -> None:
    def read(data: bytes) -> None:
        raise IndexError if data else KeyError

    target = Target(read, lambda _: (), (IndexError,))
    assert not try_input(target, b"x")
    with pytest.raises(KeyError):
        try_input(target, b"")


def test_more_than_a_second_is_a_finding() -> None:
    def read(_: bytes) -> None:
        while time.process_time() < end:
            pass

    end = time.process_time() + 1.1
    with pytest.raises(TooSlowError):
        try_input(Target(read, lambda _: ()), b"")


@pytest.mark.parametrize(("size_mib", "status"), [(200, 0), (310, 1)])
def test_much_memory_is_a_finding(size_mib: int, status: int) -> None:
    takes = f"limit_memory(); bytearray({size_mib} << 20)"
    done = python("-c", f"from tests.fuzz.child import limit_memory; {takes}")
    assert done.returncode == status
    assert ("MemoryError" in done.stderr) == bool(status)


@pytest.mark.timeout(900)
@pytest.mark.long(minutes=25)  # all of them together
@pytest.mark.parametrize("name", TARGETS)
def test_a_minute_of_new_inputs_finds_nothing(name: str, tell: Tell) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this computer")
    seed = random.randrange(1, 1 << 31)
    outcome = run(name, 60, seed)
    tell(f"seed {seed}: {outcome}")
    assert not outcome.found, outcome.found
    assert outcome.inputs

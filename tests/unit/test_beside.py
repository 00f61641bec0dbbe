"""Which tests run beside which, and that what they measured is read at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.innerpytest import pytest_in

TELLS_ITS_PROCESS = """
import os
def test_first(tell): tell(os.getpid())
def test_second(tell): tell(os.getpid())
"""
TELLS_WHEN = """
import time
def test_when(tell): tell(time.monotonic_ns())
"""
DEVICE, UNIT = (f"tests/{name}/test_it.py::test_when" for name in ("device", "unit"))
FAILS = """
def test_that_fails(tell):
    tell("it took 3 s")
    assert not "this time"
"""


def told_in(output: str) -> dict[str, str]:
    """What each test told, by its id."""
    _, _, measured = output.partition("= measured =")
    told = (line.partition(": ") for line in measured.splitlines() if line.startswith("tests/"))
    return {test: words for test, _, words in told}


def told_by(folder: Path, *words: str, **texts: str) -> dict[str, str]:
    """What the tests told in a run of these files, tests/a/test_it.py of the text of ``a``."""
    for name, text in texts.items():
        path = folder / "tests" / name / "test_it.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plugins = ("-p", "tests.support.telling", "--import-mode=importlib")
    done = pytest_in(folder, "tests.support.beside", *plugins, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return told_in(done.stdout)


def test_each_file_is_in_one_process_and_files_are_beside_each_other(tmp_path: Path) -> None:
    names = ("unit", "device", "boot")
    told = told_by(tmp_path, "-n", "3", **dict.fromkeys(names, TELLS_ITS_PROCESS))
    processes = [
        {told[f"tests/{name}/test_it.py::{test}"] for test in ("test_first", "test_second")}
        for name in names
    ]
    assert [len(those) for those in processes] == [1, 1, 1], told
    assert len(set.union(*processes)) == 3, told


def test_those_who_wait_longest_begin_first(tmp_path: Path) -> None:
    names = ("unit", "device", "fault", "salt")
    told = told_by(tmp_path, "-n", "1", **dict.fromkeys(names, TELLS_WHEN))
    began = sorted(told, key=lambda test: int(told[test]))
    assert [test.split("/")[1] for test in began] == ["salt", "fault", "device", "unit"]


def test_what_is_queued_behind_an_emulated_computer_is_needed_least(tmp_path: Path) -> None:
    """It has one test of minutes, whose process must know what is next before it begins it."""
    told = told_by(
        tmp_path,
        *("-n", "2"),
        boot="import time\ndef test_boot(tell): time.sleep(3); tell('')\n",
        salt=TELLS_ITS_PROCESS,
        device=TELLS_WHEN,
        unit=TELLS_WHEN,
    )
    assert int(told[DEVICE]) < int(told[UNIT])


def test_the_fifth_process_begins_with_what_waits_least(tmp_path: Path) -> None:
    waits = "import time\ndef test_when(tell): tell(0); time.sleep(2)\n"
    told = told_by(
        tmp_path,
        *("-n", "5"),
        **dict.fromkeys(("boot", "salt", "fault", "firstboot"), waits),
        device=TELLS_WHEN,
        unit=TELLS_WHEN,
    )
    assert int(told[UNIT]) < int(told[DEVICE])


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_failed_test_still_tells_what_it_measured(processes: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(FAILS)
    done = pytest_in(tmp_path, "tests.support.telling", "-n", processes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert told_in(done.stdout) == {"tests/test_it.py::test_that_fails": "it took 3 s"}

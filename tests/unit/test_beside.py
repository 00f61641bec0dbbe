"""Which tests run beside which, and that what they measured is read at the end."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.innerpytest import pytest_in

TELLS_ITS_PROCESS = """
import os
def test_first(tell): tell(os.getpid())
def test_second(tell): tell(os.getpid())
"""
FAILS = """
def test_that_fails(tell):
    tell("it took 3 s")
    assert not "this time"
"""
FILES = ("unit/test_a.py", "device/test_b.py", "salt/test_c.py", "boot/test_d.py", "usb/test_e.py")
OTHERS = ("tests/unit", "tests/device", "tests/salt")


def told_in(output: str) -> dict[str, str]:
    """What each test told, by its id."""
    _, _, measured = output.partition("= measured =")
    told = (line.partition(": ") for line in measured.splitlines() if line.startswith("tests/"))
    return {test: words for test, _, words in told}


def test_files_with_emulators_are_beside_all_others_which_share_one_process(tmp_path: Path) -> None:
    for name in FILES:
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TELLS_ITS_PROCESS)
    plugins = ("-p", "tests.support.telling", "--import-mode=importlib", "-n", "3")
    done = pytest_in(tmp_path, "tests.support.beside", *plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    processes = defaultdict(set)
    for test, process in told_in(done.stdout).items():
        file = test.partition("::")[0]
        processes["others" if file.startswith(OTHERS) else file].add(process)
    assert [len(those) for those in processes.values()] == [1, 1, 1], processes
    assert len(set.union(*processes.values())) == 3, processes


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_failed_test_still_tells_what_it_measured(processes: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(FAILS)
    done = pytest_in(tmp_path, "tests.support.telling", "-n", processes)
    assert done.returncode == 1, done.stdout + done.stderr
    assert told_in(done.stdout) == {"tests/test_it.py::test_that_fails": "it took 3 s"}

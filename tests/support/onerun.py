"""One run of the tests: all it makes lies in one folder, all it starts knows its name.

So what a run left that was killed (``kill -9``, no memory, no power) can be told from everything
else on the computer, and the next run of the same checkout begins with ending it. A run that goes
on is left alone: it holds a lock on its record, a file in ``build/runs`` that names its folder.
What a failed run has in its folder is there to be looked at until the next run begins.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.ending import end_processes, take_down
from tests.support.loop import end_unused_udevd
from tests.support.record import MARK, read_record

_ENDED = pytest.StashKey[str]()
_RUN = pytest.StashKey["Run"]()


class Run:
    """This run, whose record is one of ``records``."""

    def __init__(self, records: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="picloud-"))
        self.folder.chmod(0o755)
        self.record = records / self.folder.name
        self.failed = True
        self._lock = _locked(self.record.open("x"))
        self._lock.write(f"{self.folder}\n")
        self._lock.flush()

    def end(self) -> None:
        if not self.failed:
            take_down(read_record(self.record.read_text()))
            self.record.unlink()
        self._lock.close()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    records = config.rootpath / "build" / "runs"
    records.mkdir(parents=True, exist_ok=True)
    entrance = os.open(records, os.O_RDONLY)
    try:
        fcntl.flock(entrance, fcntl.LOCK_EX)
        config.stash[_ENDED] = "\n".join(_end_killed(records))
        run = config.stash[_RUN] = Run(records)
    finally:
        os.close(entrance)
    around = os.environ.get(MARK)
    os.environ[MARK] = f"{around}:{run.record}" if around else str(run.record)
    os.environ["TMPDIR"] = tempfile.tempdir = str(run.folder)
    if config.option.basetemp is None:
        config.option.basetemp = str(run.folder / "t")


def pytest_report_header(config: pytest.Config) -> str:
    """Say what was ended."""
    return config.stash.get(_ENDED, "")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if run := session.config.stash.get(_RUN, None):
        run.failed = exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if run := config.stash.get(_RUN, None):
        run.end()


def _locked(file: IO[str]) -> IO[str]:
    """``file``, locked for as long as it is open; raises BlockingIOError where another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def _end_killed(records: Path) -> Iterator[str]:
    """End what is left of the runs of which only the record is left; says what was there."""
    for record in sorted(records.iterdir()):
        try:
            file = _locked(record.open("r+"))
        except BlockingIOError:
            continue  # it goes on
        except PermissionError:
            yield f"{record} is another user's: what that run left is left"
            continue
        with file:
            noted = read_record(file.read())
            left = end_processes(str(record))
            # An empty record is of a run that was killed before it had noted its folder.
            left += take_down(noted) if noted.folder.name == record.name else []
            record.unlink()
        if left:
            yield f"ended what {record.name} left, which was killed: {', '.join(left)}"
    if os.geteuid() == 0:
        end_unused_udevd()

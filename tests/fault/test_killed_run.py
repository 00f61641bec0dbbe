"""A run of the tests that was killed leaves nothing that the next one does not end.

Both are runs of a checkout of their own, whose tests start what the real ones start.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faultcard import why_not
from tests.support.innerpytest import pytest_in, started_pytest
from tests.support.loop import loop_over, shown_by, sized_file
from tests.support.record import MARK
from tests.support.salt import SaltPrograms

pytestmark = [
    pytest.mark.fault,
    pytest.mark.salt,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

PATIENCE = 300
PLUGINS = ("-p", "tests.support.salt", "-n", "0")
WITH_EVERYTHING = """
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.faultcard import fault_card
from tests.support.headnode import head_node
from tests.support.loop import call, loop_over, mounted, sized_file
from tests.support.qemu import emulating
from tests.support.record import times_attached

HERE = Path(__file__).parent

def test_until_it_is_told_to_end(tmp_path, salt_programs):
    with ExitStack() as up:
        up.enter_context(head_node(tmp_path / "head", salt_programs))
        card = up.enter_context(fault_card(tmp_path / "card", 16 << 20))
        call("mkfs.ext4", "-q", str(card.node))
        up.enter_context(mounted(card.node, tmp_path / "mounted"))
        (tmp_path / "mounted" / "file").write_text("x")
        plain = up.enter_context(loop_over(sized_file(tmp_path / "plain", 1 << 20)))
        console = up.enter_context((tmp_path / "console").open("wb"))
        up.enter_context(emulating(["sh", "-c", "sleep 1000 & wait"], console))
        names = (card.loop.name, plain.name)
        (HERE / "loops").write_text("".join(f"{name} {times_attached(name)}\\n" for name in names))
        (HERE / "up.new").write_text(tempfile.gettempdir())
        (HERE / "up.new").rename(HERE / "up")
        while not (HERE / "end").exists():
            time.sleep(0.1)
"""
NEXT = "def test_nothing(): pass"


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.05)


@contextmanager
def running(checkout: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run in which everything is up, and its folder."""
    words = ("test_everything.py", *PLUGINS)
    (checkout / "up").unlink(missing_ok=True)
    with started_pytest(checkout, "tests.support.onerun", *words) as process:
        try:
            wait_until((checkout / "up").exists, process)
            yield process, Path((checkout / "up").read_text())
        finally:
            (checkout / "end").touch()


def processes_of(folder: Path) -> list[str]:
    """The names of those of the run."""
    return [
        _text(process / "comm").strip()
        for process in Path("/proc").glob("[0-9]*")
        if folder.name in _text(process / "environ").partition(f"{MARK}=")[2].partition("\0")[0]
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def loops_of(checkout: Path) -> list[str]:
    """Those that are attached as they were in the test: the kernel counts how often each was."""
    named = (line.split() for line in (checkout / "loops").read_text().splitlines())
    return [
        name
        for name, number in named
        if _text(Path(f"/sys/block/{name}/diskseq")).strip() == number
        and Path(f"/sys/block/{name}/loop").exists()
    ]


def mounts_of(folder: Path) -> list[str]:
    return [
        line for line in _text(Path("/proc/self/mountinfo")).splitlines() if f"{folder}/" in line
    ]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "test_everything.py").write_text(WITH_EVERYTHING)
    (tmp_path / "test_next.py").write_text(NEXT)
    return tmp_path


def test_the_next_run_ends_what_a_killed_one_left_and_nothing_else(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, salt_programs: SaltPrograms
) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(checkout, other, dirs_exist_ok=True)
    with running(other) as (_, elsewhere), running(checkout) as (killed, left):
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert {"salt-master", "sleep"} <= set(processes_of(left))
        assert len(loops_of(checkout)) == 2
        assert mounts_of(left)

        following = pytest_in(checkout, "tests.support.onerun", "test_next.py", "-v")
        assert following.returncode == 0, following.stdout + following.stderr
        assert processes_of(left) == loops_of(checkout) == mounts_of(left) == []
        assert not left.exists()
        assert list((checkout / "build/runs").iterdir()) == []
        assert f"ended what {left.name} left" in following.stdout

        assert "salt-master" in processes_of(elsewhere)
        assert len(loops_of(other)) == len(mounts_of(elsewhere)) == 2


def test_a_run_of_the_same_checkout_that_goes_on_is_left_alone(
    checkout: Path, salt_programs: SaltPrograms
) -> None:
    with running(checkout) as (process, folder):
        beside = pytest_in(checkout, "tests.support.onerun", "test_next.py")
        assert beside.returncode == 0, beside.stdout + beside.stderr
        assert "salt-master" in processes_of(folder)
        assert len(loops_of(checkout)) == len(mounts_of(folder)) == 2
        (checkout / "end").touch()
        said, errors = process.communicate()
        assert process.returncode == 0, said + errors
    assert processes_of(folder) == loops_of(checkout) == mounts_of(folder) == []
    assert not folder.exists()
    assert list((checkout / "build/runs").iterdir()) == []


def test_a_device_is_let_go_of_when_its_file_has_another_name_by_then(tmp_path: Path) -> None:
    """As a file in FUSE has when that is unmounted a moment earlier."""
    backing = sized_file(tmp_path / "card.raw", 1 << 20)
    with loop_over(backing) as loop:
        backing.rename(tmp_path / "other.raw")
        assert shown_by(loop) == str(tmp_path / "other.raw")
    assert not shown_by(loop)

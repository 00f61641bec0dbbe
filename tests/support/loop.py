"""Loop devices that the tests made themselves, and udevd when they need it.

Nothing here opens or detaches a device it did not attach: every path is checked against the
backing file the kernel reports for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tests.support.record import note_loop, times_attached

UDEVD = Path("/lib/systemd/systemd-udevd")
RULES = Path("/run/udev/rules.d")
_UDEVD_CONTROL = Path("/run/udev/control")
# What all tests on this computer share, whichever checkout they are of. Each has a lock.
_UDEVD_USERS = Path("/run/picloud-test-udevd")
_NUMBERS = Path("/run/picloud-test-loops")
_SOCKETS = Path("/run/picloud-test-sockets")
_UNHEARD = 10
"""Times a stranger comes and goes before it waits until udevd knows; some ten events each."""


def missing_abilities() -> str:
    """Why device tests cannot run here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    absent = [name for name in ("losetup", "partx", "blkid") if shutil.which(name) is None]
    return f"needs {', '.join(absent)}" if absent else ""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device over a file of ours; ``attached`` is the number it got then (``record``)."""

    node: Path
    backing: Path
    attached: str

    @property
    def name(self) -> str:
        return self.node.name

    def require_ours(self) -> None:
        """Refuse to go on when the node shows anything but our file."""
        shown = Path(f"/sys/block/{self.name}/loop/backing_file").read_text().strip()
        assert self.node.name.startswith("loop"), self.node
        assert shown == str(self.backing), f"{self.node} shows {shown}"

    def partition_nodes(self) -> list[Path]:
        """Tell the kernel of the partitions, as a kernel with MBR support does by itself."""
        self.require_ours()
        call("partx", "-a", str(self.node))
        found = sorted(Path("/sys/block", self.name).glob(f"{self.name}p*"))
        assert found
        return [Path("/dev") / folder.name for folder in found]


def call(*words: str) -> str:
    """Run a tool that must succeed; its output."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@contextmanager
def loop_over(backing: Path, *, sector_bytes: int = 512, read_only: bool = False) -> Iterator[Loop]:
    """Attach ``backing`` and detach it again, whatever happens in between."""
    words = ["--sector-size", str(sector_bytes), *(["--read-only"] if read_only else [])]
    node = attach(*words, str(backing))
    loop = Loop(node, backing.resolve(), times_attached(node.name))
    try:
        loop.require_ours()
        yield loop
    finally:
        detach(loop)


@contextmanager
def strangers(folder: Path, count: int) -> Iterator[None]:
    """So many loop devices that come and go all the while, as fast as they can, some of them with
    partitions. Now and then they wait for udevd: on a busy computer it would lie minutes behind,
    and whatever comes after this test with it."""
    stop = threading.Event()

    def come_and_go(number: int) -> int:
        backing = sized_file(folder / f"stranger{number}.raw", 8 * 2**20)
        with backing.open("r+b") as file:
            # Two partitions of 2 MiB, of the type of Linux.
            file.seek(446)
            for start in (2048, 6144):
                entry = b"\0\0\0\0\x83\0\0\0" + start.to_bytes(4, "little")
                file.write(entry + (4096).to_bytes(4, "little"))
            file.seek(510)
            file.write(b"\x55\xaa")
        times = 0
        while not stop.is_set():
            with loop_over(backing) as loop:
                if times % 2:
                    subprocess.run(["partx", "-a", loop.node], capture_output=True, check=False)
            times += 1
            if times % _UNHEARD == 0:
                subprocess.run(["udevadm", "settle", "--timeout=60"], check=False)
        return times

    with ThreadPoolExecutor(count) as threads:
        at_work = [threads.submit(come_and_go, number) for number in range(count)]
        try:
            yield
        finally:
            stop.set()
    assert all(work.result() > 2 for work in at_work)


@contextmanager
def _numbers(how: int) -> Iterator[None]:
    """Hold the numbers of the loop devices: LOCK_SH to take a free one, LOCK_EX to keep one that
    is free for a moment, so that no other test of this computer takes it."""
    with open(_NUMBERS, "a") as lock:
        fcntl.flock(lock, how)
        yield


@contextmanager
def free_device() -> Iterator[Path]:
    """The node of a loop device that has no file, and gets none from another test meanwhile."""
    with _numbers(fcntl.LOCK_EX):
        yield Path(call("losetup", "--find"))


def attach(*words: str) -> Path:
    """The node of a free device, made by losetup with these ``words``."""
    with _numbers(fcntl.LOCK_SH):
        node = Path(call("losetup", "--find", "--show", *words))
    note_loop(node.name)
    return node


def detach(loop: Loop) -> None:
    """Detach our device if it is still ours, and wait until the kernel let go."""

    def is_ours() -> bool:
        # By its number: the name of the file is another one when what it lay on is unmounted.
        return bool(shown_by(loop)) and times_attached(loop.name) == loop.attached

    if not is_ours():
        return
    deadline = time.monotonic() + 60
    # udevd looks at new ones for a moment. One that is left is there when the number is next used.
    while list(Path("/sys/block", loop.name).glob(f"{loop.name}p*")):
        assert time.monotonic() < deadline, f"{loop.node} keeps its partitions"
        subprocess.run(["partx", "-d", str(loop.node)], capture_output=True, check=False)
    subprocess.run(["losetup", "--detach", str(loop.node)], capture_output=True, check=False)
    while is_ours():
        assert time.monotonic() < deadline, f"{loop.node} is still attached"
        time.sleep(0.02)


def shown_by(loop: Loop) -> str:
    """The backing file the kernel reports; empty when there is none."""
    try:
        return Path(f"/sys/block/{loop.name}/loop/backing_file").read_text().strip()
    except OSError:
        return ""


def _holders(loop: Loop) -> list[str]:
    """What its node shows, and the processes that have it open."""
    found = [shown_by(loop)]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(fd.readlink() == loop.node for fd in process.glob("fd/*")):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{process.name} {words}")
    return found


@contextmanager
def exchanged(loop: Loop, other: Path) -> Iterator[Loop]:
    """The same device node over another file, as when somebody swaps the card in a reader."""
    deadline = time.monotonic() + 60
    with _numbers(fcntl.LOCK_EX):
        detach(loop)
        # udevd looks at the emptied device, and then it is busy: for a moment, or for seconds where
        # the computer is.
        while subprocess.run(
            ["losetup", str(loop.node), str(other)], capture_output=True, check=False
        ).returncode:
            assert time.monotonic() < deadline, f"{loop.node} stays busy: {_holders(loop)}"
            time.sleep(0.05)
    note_loop(loop.name)
    swapped = Loop(loop.node, other.resolve(), times_attached(loop.name))
    try:
        swapped.require_ours()
        yield swapped
    finally:
        detach(swapped)


def sized_file(path: Path, size_bytes: int, fill: bytes = b"") -> Path:
    """A file of ``size_bytes``: a hole, or full of ``fill``."""
    with path.open("wb") as file:
        if fill:
            file.write(fill * (size_bytes // len(fill)))
        file.truncate(size_bytes)
    return path


def _listens(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        try:
            door.connect(str(control))
        except OSError:
            return False
    return True


@contextmanager
def udevd_running() -> Iterator[None]:
    """Have udevd run for as long as the block lasts: the computer's own, or one that all who need
    it share. The first of them starts it, and the last ends it."""
    if not UDEVD.exists():
        yield
        return
    try:
        with open(_UDEVD_USERS, "a+") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            while not _listens(_UDEVD_CONTROL):
                fcntl.flock(users, fcntl.LOCK_EX)  # nobody uses it, and now nobody can begin to
                _start_udevd(users)
                fcntl.flock(users, fcntl.LOCK_SH)
            yield
    finally:
        end_unused_udevd()


def _start_udevd(users: TextIO) -> None:
    if _listens(_UDEVD_CONTROL):
        return
    _UDEVD_CONTROL.unlink(missing_ok=True)  # of one that was killed
    # It may outlive this run, where another uses it: so it has nothing of this one, not even its
    # environment.
    starting = 'cd / && setsid "$0" >/dev/null 2>&1 & echo $!'
    words = ["env", "-i", f"PATH={os.environ['PATH']}", "sh", "-c", starting, str(UDEVD)]
    users.truncate(0)
    users.write(call(*words))
    users.flush()
    deadline = time.monotonic() + 60
    while not _listens(_UDEVD_CONTROL) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _listens(_UDEVD_CONTROL), "udevd did not come up"


def end_unused_udevd() -> None:
    """End the udevd that tests started, unless a test uses it."""
    if not _UDEVD_USERS.exists():
        return
    with open(_UDEVD_USERS, "r+") as users, suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = users.read()
        users.truncate(0)
        if not pid or not _is_udevd(pid):
            return
        os.kill(int(pid), signal.SIGTERM)
        deadline = time.monotonic() + 60
        while _listens(_UDEVD_CONTROL) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not _listens(_UDEVD_CONTROL), "udevd does not end"
        _UDEVD_CONTROL.unlink(missing_ok=True)


def _is_udevd(pid: str) -> bool:
    """Whether that number is still udevd's: after a restart of the computer it is nobody's, or
    another process's."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("systemd-udevd")
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def udev_rules(*rules: str) -> Iterator[None]:
    """Have udevd, if one runs, go by these rules before its own."""
    RULES.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix="00-picloud-", suffix=".rules", dir=RULES)
    with open(descriptor, "w") as file:
        file.write("".join(f"{rule}\n" for rule in rules))
    try:
        _reload_rules()
        yield
    finally:
        Path(name).unlink()
        _reload_rules()


def _reload_rules() -> None:
    words = ["udevadm", "control", "--reload"]
    while _listens(_UDEVD_CONTROL):  # one that has just been ended need not know
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.02)


@contextmanager
def socket_links(sockets: Mapping[Path, str]) -> Iterator[None]:
    """Have udevd give a loop device over one of these files a link of that name in
    /dev/disk/by-path, as a reader's slot has one; only devices over these files, of all there are.

    One test at a time: whoever learns slots takes any card that appears in one for the next.
    """
    with open(_SOCKETS, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with named_by_udevd(sockets):
            yield


@contextmanager
def named_by_udevd(sockets: Mapping[Path, str]) -> Iterator[None]:
    """The same for more of them, in a test that has ``socket_links`` already."""
    rules = (
        f'SUBSYSTEM=="block", KERNEL=="loop*", ATTR{{loop/backing_file}}=="{backing.resolve()}", '
        f'SYMLINK+="disk/by-path/{name}"'
        for backing, name in sockets.items()
    )
    with udev_rules(*rules):
        yield


@contextmanager
def unseen_by_udevd(backing: Path) -> Iterator[None]:
    """Have udevd not read what is on a loop device over ``backing``, as it does to know it."""
    with udev_rules(
        f'SUBSYSTEM=="block", ATTRS{{loop/backing_file}}=="{backing.resolve()}", '
        'ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", OPTIONS:="nowatch"'
    ):
        yield


@contextmanager
def mounted(source: Path, where: Path, *options: str) -> Iterator[None]:
    """Mount ``source`` on ``where`` and unmount it again."""
    where.mkdir(exist_ok=True)
    call("mount", *options, str(source), str(where))
    try:
        yield
    finally:
        call("umount", str(where))

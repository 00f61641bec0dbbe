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
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UDEVD = Path("/lib/systemd/systemd-udevd")
_CONTROL = Path("/run/udev/control")
_USERS = Path("/run/udev/picloud-tests.lock")


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
    """A loop device over a file of ours."""

    node: Path
    backing: Path

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
    words = ["losetup", "--find", "--show", "--sector-size", str(sector_bytes)]
    node = call(*words, *(["--read-only"] if read_only else []), str(backing))
    loop = Loop(Path(node), backing.resolve())
    try:
        loop.require_ours()
        yield loop
    finally:
        detach(loop)


@contextmanager
def strangers(folder: Path, count: int) -> Iterator[None]:
    """So many loop devices that come and go all the while, as fast as they can, some of them with
    partitions."""
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
        return times

    with ThreadPoolExecutor(count) as threads:
        at_work = [threads.submit(come_and_go, number) for number in range(count)]
        try:
            yield
        finally:
            stop.set()
    assert all(work.result() > 2 for work in at_work)


def detach(loop: Loop) -> None:
    """Detach our device if it is still ours, and wait until the kernel let go."""
    if shown_by(loop) != str(loop.backing):
        return
    subprocess.run(["partx", "-d", str(loop.node)], capture_output=True, check=False)
    subprocess.run(["losetup", "--detach", str(loop.node)], capture_output=True, check=False)
    deadline = time.monotonic() + 10
    while shown_by(loop) == str(loop.backing) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert shown_by(loop) != str(loop.backing), f"{loop.node} is still attached"


def shown_by(loop: Loop) -> str:
    """The backing file the kernel reports; empty when there is none."""
    try:
        return Path(f"/sys/block/{loop.name}/loop/backing_file").read_text().strip()
    except OSError:
        return ""


@contextmanager
def exchanged(loop: Loop, other: Path) -> Iterator[Loop]:
    """The same device node over another file, as when somebody swaps the card in a reader."""
    detach(loop)
    swapped = Loop(loop.node, other.resolve())
    deadline = time.monotonic() + 10
    # udevd looks at the emptied device for a moment, and then it is busy.
    while subprocess.run(
        ["losetup", str(loop.node), str(other)], capture_output=True, check=False
    ).returncode:
        assert time.monotonic() < deadline, f"{loop.node} stays busy"
        time.sleep(0.05)
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
    """Run udevd for as long as the block lasts, unless one runs already.

    Several test runs on one computer share it. Whoever started it ends it when none of them needs
    it any more: the others would wait in vain to hear of their disks.
    """
    _USERS.parent.mkdir(exist_ok=True)
    with _USERS.open("w") as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(users, fcntl.LOCK_SH)  # when whoever starts or ends it is through
        if _listens(_CONTROL) or not UDEVD.exists():
            fcntl.flock(users, fcntl.LOCK_SH)
            yield
            return
        process = _start_udevd()
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            yield
        finally:
            fcntl.flock(users, fcntl.LOCK_EX)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
            _CONTROL.unlink(missing_ok=True)


def _start_udevd() -> subprocess.Popen[bytes]:
    _CONTROL.unlink(missing_ok=True)  # of one that was killed
    process = subprocess.Popen([str(UDEVD)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not _listens(_CONTROL) and time.monotonic() < deadline:
        time.sleep(0.02)
    if not _listens(_CONTROL):
        process.kill()
        process.wait()
        raise AssertionError("udevd did not come up")
    return process


def _reload_rules() -> None:
    """Have udevd read its rules anew. It lets one caller wait at its door, and turns the next away
    (EAGAIN) until a busy computer has let it answer."""
    words = ["udevadm", "control", "--reload"]
    deadline = time.monotonic() + 10
    while subprocess.run(words, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "udevd does not answer"
        time.sleep(0.05)


@contextmanager
def socket_links(sockets: Mapping[Path, str]) -> Iterator[None]:
    """Have udevd give a loop device over one of these files a link of that name in
    /dev/disk/by-path, as a reader's slot has one; only devices over these files, of all there are.
    """
    rules = Path(f"/run/udev/rules.d/61-picloud-test-{os.getpid()}.rules")
    lines = [
        f'SUBSYSTEM=="block", KERNEL=="loop*", ATTR{{loop/backing_file}}=="{backing.resolve()}", '
        f'SYMLINK+="disk/by-path/{name}"\n'
        for backing, name in sockets.items()
    ]
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text("".join(lines))
    try:
        _reload_rules()
        yield
    finally:
        rules.unlink()
        _reload_rules()


@contextmanager
def mounted(source: Path, where: Path, *options: str) -> Iterator[None]:
    """Mount ``source`` on ``where`` and unmount it again."""
    where.mkdir(exist_ok=True)
    call("mount", *options, str(source), str(where))
    try:
        yield
    finally:
        call("umount", str(where))

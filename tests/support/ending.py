"""Ends what a run of the tests left that was killed: processes, mounts, loop devices, files.

In: the mark in the environment of its processes, and its record. Out: nothing of it is left, and
the names of what there was. Nothing else is touched.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.support.loop import RULES, Loop, detach
from tests.support.record import MARK, Record, times_attached

_PATIENCE_SECONDS = 20


def end_processes(mark: str) -> list[str]:
    """Kill every process that has ``mark`` in its environment; their names."""
    ended = []
    while found := [pid for pid in _processes() if _is_marked(pid, mark)]:
        for pid in found:
            with suppress(ProcessLookupError, FileNotFoundError):
                ended.append(_end(pid, mark))
    return [name for name in ended if name]


def _processes() -> Iterator[int]:
    return map(int, filter(str.isdigit, os.listdir("/proc")))


def _is_marked(pid: int, mark: str) -> bool:
    try:
        environment = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return False  # it has ended, or is another user's
    named = (entry.partition("=") for entry in environment.split("\0"))
    return any(name == MARK and mark in said.split(":") for name, _, said in named)


def _end(pid: int, mark: str) -> str:
    handle = os.pidfd_open(pid)
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        # Looked at again: the number may be another process's by now.
        if not _is_marked(pid, mark):
            return ""
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended, _, _ = select.select([handle], [], [], _PATIENCE_SECONDS)
        assert ended, f"process {pid}, {name}, does not end"
        return name
    finally:
        os.close(handle)


def take_down(record: Record) -> list[str]:
    """Remove the folder of a run with all that is mounted or attached below it."""
    folder = record.folder
    loops = [loop for loop in _loops() if _is_of(record, loop)]
    nodes = [rf"{loop.node}(p\d+)?" for loop in loops]
    on_loops = _unmount(lambda source, _: any(re.fullmatch(node, source) for node in nodes))
    for loop in loops:
        detach(loop)
    below = _unmount(lambda _, where: where.is_relative_to(folder))
    for rules in RULES.glob("*-picloud-*.rules"):
        if f"{folder}/" in rules.read_text():
            rules.unlink()
    subprocess.run(["rm", "-rf", "--one-file-system", "--", folder], check=True)
    return [*on_loops, *(str(loop.node) for loop in loops), *below]


def _loops() -> Iterator[Loop]:
    """This computer's that are over a file."""
    for shown in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            name = shown.parts[3]
            backing = Path(shown.read_text().rstrip("\n"))
            yield Loop(Path("/dev") / name, backing, times_attached(name))


def _is_of(record: Record, loop: Loop) -> bool:
    noted = record.loops.get(loop.name) == loop.attached
    return noted or loop.backing.is_relative_to(record.folder)


def _mounts() -> Iterator[tuple[str, Path]]:
    """Source and place of what this computer has mounted, in the order it was done."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        where, source = (_plain(words) for words in (before.split()[4], after.split()[1]))
        yield source, Path(where)


def _plain(words: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words)


def _unmount(chosen: Callable[[str, Path], bool]) -> list[str]:
    """Unmount what is ``chosen`` by its source and place, the last first; the places."""
    words = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    places = [str(where) for source, where in _mounts() if chosen(source, where)][::-1]
    for place in places:
        done = subprocess.run([*words, place], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return places

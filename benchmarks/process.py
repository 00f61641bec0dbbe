"""Run a program and measure it from outside: seconds, CPU, peak memory, when each phase began.

In: an argument vector. Out: a Ran. Our own command is run with ``--json``, whose progress events
tell when a phase begins; peers are only timed. One program at a time, for the CPU time is that of
all children.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program that had to succeed did not."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase as the program announced it; seconds and CPU seconds since the program's start."""

    name: str
    began: float
    cpu_began: float
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One run. ``peak_bytes`` is VmHWM of the program itself, ``child_peak_bytes`` that of the
    largest program it started; ``result`` is the last JSON line of our own command."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    child_peak_bytes: int
    phases: tuple[Phase, ...]
    result: Mapping[str, object]

    def phase(self, name: str) -> Phase:
        """The first phase called ``name``."""
        return next(phase for phase in self.phases if phase.name == name)

    def number(self, key: str) -> int:
        """A whole number of the result."""
        value = self.result[key]
        assert isinstance(value, int), (key, value)
        return value


def measure(
    words: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stop_at: str | None = None,
) -> Ran:
    """Run ``words`` to the end; raises Failed when they fail.

    ``stop_at`` names a phase at whose beginning the program gets Ctrl-C; it must then end so.
    """
    argv = [os.fspath(word) for word in words]
    cpu_before = _children_cpu()
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        with _running(argv, errors, cwd, env) as process, _Peak(process.pid) as peak:
            assert process.stdout is not None
            said = _Said(began, process, stop_at)
            for line in process.stdout:
                said.take(line)
            code = process.wait()
            seconds = time.perf_counter() - began
        wanted = 0 if stop_at is None else 130
        if code != wanted:
            errors.seek(0)
            told = (said.last + errors.read()).decode(errors="replace").strip()
            raise Failed(f"{' '.join(argv)}: status {code}\n{told}")
    return Ran(
        seconds=seconds,
        cpu_seconds=_children_cpu() - cpu_before,
        peak_bytes=peak.own_bytes,
        child_peak_bytes=peak.child_bytes,
        phases=tuple(said.phases),
        result=said.result,
    )


def parts(ran: Ran, since: str | None = None) -> str:
    """Seconds of each phase in order, and the rest before, between and after them, from the
    beginning of the phase ``since`` on. Phases may overlap; the rest is what none of them covers.
    """
    first = 0 if since is None else ran.phases.index(ran.phase(since))
    at = 0.0 if since is None else ran.phases[first].began
    rest = 0.0
    for phase in ran.phases[first:]:
        rest += max(0.0, phase.began - at)
        at = max(at, phase.ended)
    told = [(phase.name, phase.ended - phase.began) for phase in ran.phases[first:]]
    told.append(("rest", rest + ran.seconds - at))
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in told)


@contextmanager
def _running(
    argv: Sequence[str], errors: IO[bytes], cwd: Path | None, env: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        # Ctrl-C is for this program, which then ends the other one in its own time.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class _Said:
    """What the program prints, line by line."""

    began: float
    process: subprocess.Popen[bytes]
    stop_at: str | None
    phases: list[Phase] = field(default_factory=list)
    result: Mapping[str, object] = field(default_factory=dict)
    last: bytes = b""

    def take(self, line: bytes) -> None:
        at = time.perf_counter() - self.began
        self.last = line
        if not line.startswith(b'{"event"'):
            return
        event = json.loads(line)
        if event["event"] == "result":
            self.result = event
        elif event["event"] == "progress" and event["state"] == "begin":
            self.phases.append(Phase(event["phase"], at, _cpu_of(self.process.pid)))
            if event["phase"] == self.stop_at:
                self.process.send_signal(signal.SIGINT)
        elif event["event"] == "progress" and event["state"] == "done":
            begun = [n for n, phase in enumerate(self.phases) if phase.name == event["phase"]]
            self.phases[begun[-1]] = replace(self.phases[begun[-1]], ended=at)


class _Peak:
    """Watches the peak memory of a process and of those it starts."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.own_bytes = self.child_bytes = 0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            self.own_bytes = max(self.own_bytes, peak_of(self._pid))
            for child in _children_of(self._pid):
                self.child_bytes = max(self.child_bytes, peak_of(child))
            self._over.wait(_POLL_SECONDS)


def peak_of(pid: int) -> int:
    """VmHWM (proc(5)) in bytes; 0 for a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _cpu_of(pid: int) -> float:
    """CPU seconds of a running process and of its finished children (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

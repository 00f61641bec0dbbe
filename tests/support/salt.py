"""The real Salt from PyPI, and computers for it to run on.

In: the files of a node's finished card. Out: a ``Box`` that runs salt-master or salt-minion as the
node would: its own /etc/salt, host name, /etc/hosts and processes, on a network that is shared
with the other boxes and with nobody else. Nothing of Salt's configuration is changed for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY = "ready"

# Everything of the host's /etc stays, but for what the node's card brings. The folders Salt
# writes to are the box's own; /run is empty, so nothing here can meet a daemon of the host.
_FURNISH = f"""
set -eu
box=$1 furnishing=$2; shift 2
mount --make-rprivate /
mount --bind /etc "$box/host"
mount -t tmpfs box /etc
ln -s "$box"/host/* /etc/
for path in "$box"/etc/*; do
    name=${{path##*/}}
    rm -f "/etc/$name"
    ln -s "$path" "/etc/$name"
done
mount -t tmpfs box /run
mount -t tmpfs box /var/cache
mount --bind "$box/log" /var/log
eval "$furnishing"
hostname "$(cat "$box/etc/hostname")"
echo {READY}
for daemon in "$@"; do
    "$daemon" --log-level=warning --log-file-level=info >>"$box/log/${{daemon##*/}}.out" 2>&1 &
done
sleep infinity &
wait
"""


@dataclass(frozen=True, slots=True)
class SaltPrograms:
    """Where salt-master, salt-minion, salt-key and salt are."""

    folder: Path

    def __call__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="session")
def salt_programs() -> SaltPrograms:
    """See ``installed_salt``."""
    return installed_salt()


def installed_salt() -> SaltPrograms:
    """Salt in ``build/salt`` of the checkout; installing it takes 20 s where it never was."""
    return made_salt()


def made_salt() -> SaltPrograms:
    """The same, outside a test."""
    folder = ROOT / "build" / "salt"
    done = subprocess.run(
        [ROOT / "scripts" / "salt-venv", folder],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return SaltPrograms(folder / "venv" / "bin")


@dataclass(frozen=True, slots=True)
class Wire:
    """A network of its own, in which every address given is this computer."""

    pid: int

    @property
    def entering(self) -> tuple[str, ...]:
        """The words before a command that is to run on it."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")


@contextmanager
def wire(addresses: Sequence[str]) -> Iterator[Wire]:
    """Make a network whose loopback has ``addresses``; it is gone with the block."""
    with network("".join(f"ip address add {address}/32 dev lo\n" for address in addresses)) as on:
        yield on


@contextmanager
def bridged(name: str, address: str) -> Iterator[Wire]:
    """Make a network with the bridge ``name``, on which this computer has ``address``/24."""
    adding = f"ip link add {name} type bridge\nip address add {address}/24 dev {name}\n"
    with network(f"{adding}ip link set {name} up\n") as on:
        yield on


@contextmanager
def unplugged(on: Wire) -> Iterator[None]:
    """Nobody on a ``wire`` reaches anybody until the block ends."""
    plug = [*on.entering, "ip", "link", "set", "lo"]
    subprocess.run([*plug, "down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*plug, "up"], check=True)


@contextmanager
def network(furnishing: str) -> Iterator[Wire]:
    script = f"set -eu\nip link set lo up\n{furnishing}echo {READY}\nexec sleep infinity"
    with _started(["unshare", "--net", "sh", "-c", script]) as process:
        yield Wire(process.pid)


class Box:
    """One computer of the rack, switched on."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], programs: SaltPrograms):
        self.folder = folder
        self._programs = programs
        # unshare --fork waits; the box's first process is its only child.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._pid = int(children[0])

    @property
    def pid(self) -> int:
        """The first process here, as the host counts."""
        return self._pid

    @property
    def entering(self) -> tuple[str, ...]:
        """The words before a command that is to run here."""
        return ("nsenter", f"--target={self._pid}", "--mount", "--uts", "--net", "--pid", "--")

    def run(self, program: str, *words: str, seconds: float = 120) -> str:
        """What a program of Salt prints when it is run here by its administrator."""
        done = subprocess.run(
            [*self.entering, self._programs(program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        self.errors = done.stderr
        return done.stdout

    def answering(self, names: Iterable[str], *, patience: int = 5) -> set[str]:
        """Which of the minions ``names`` answer ``test.ping`` of this master in ``patience`` s.

        Salt asks after those that do not, so whoever is slow needs more of it: it would have two
        questions to answer more for each that was not waited for, and never come to an end.
        """
        words = ("--out=json", "--static", f"--timeout={patience}", "--list", ",".join(names))
        said = self.run("salt", *words, "test.ping", seconds=120 + 2 * patience)
        answers: dict[str, Any] = json.loads(said) if said.strip() else {}
        return {name for name, answer in answers.items() if answer is True}

    def wait_until_answering(self, names: set[str], *, seconds: float, patience: int = 5) -> float:
        """Ask until all of ``names`` answer; gives the seconds it took."""
        began = time.monotonic()
        heard: set[str] = set()
        while not names <= heard:
            waited = time.monotonic() - began
            assert waited < seconds, f"no answer in {waited:.0f} s: {sorted(names - heard)}"
            with suppress(subprocess.TimeoutExpired):  # the master is too busy to be asked
                heard = self.answering(names, patience=patience)
        return time.monotonic() - began

    def keys(self) -> dict[str, list[str]]:
        """The master's lists: minions (accepted), minions_pre, minions_denied, minions_rejected."""
        listed: dict[str, list[str]] = json.loads(self.run("salt-key", "--list-all", "--out=json"))
        return listed

    def cpu_seconds(self, daemon: str) -> float:
        """Processor time that ``daemon`` used so far, with all its processes."""
        ours = Path(f"/proc/{self._pid}/ns/pid").readlink()
        total = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "ns/pid").readlink() != ours:
                    continue
                # Python, then the program; a process that has just ended has no words at all.
                words = (process / "cmdline").read_bytes().split(b"\0", 3)
                if any(daemon.encode() in word for word in words[1:2]):
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def log(self, daemon: str) -> str:
        """All that ``daemon`` has logged so far."""
        files = (self.folder / "log" / "salt" / daemon.removeprefix("salt-"),)
        texts = [*files, self.folder / "log" / f"{daemon}.out"]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())


@contextmanager
def switched_on(
    folder: Path, on: Wire, programs: SaltPrograms, *daemons: str, furnishing: str = ""
) -> Iterator[Box]:
    """Run ``daemons`` as the computer whose /etc is ``folder``/etc, until the block ends.
    ``furnishing`` is a script for more mounts, with ``folder`` as ``$box``."""
    for name in ("host", "log"):
        (folder / name).mkdir(exist_ok=True)
    apart = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    started = [os.fspath(programs(daemon)) for daemon in daemons]
    words = [
        *on.entering,
        *apart,
        "sh",
        "-c",
        _FURNISH,
        "box",
        os.fspath(folder),
        furnishing,
        *started,
    ]
    with _started(words) as process:
        yield Box(folder, process, programs)


@contextmanager
def _started(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A program that says it is ready and then stays; it is ended with the block."""
    with ExitStack() as cleaning:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        cleaning.callback(process.wait)
        cleaning.callback(process.kill)
        assert process.stdout is not None
        cleaning.callback(process.stdout.close)
        assert process.stdout.readline().strip() == READY, words
        yield process

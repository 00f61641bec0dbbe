"""Desks with card readers and a head, each a computer of its own, on a network of cables.

In: a folder and the names of stations. Out: a ``Laboratory``: one real salt-master, on the computer
where the head is, and a real salt-minion on each station. Every computer has its own /etc, /run,
/srv, /var/cache, processes and network; a cable is pulled by name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.rack.master.connection import Door
from imager.stations.salt.install import MASTER_FILE, master_settings
from tests.support.salt import Box, SaltPrograms, Wire, bridged, network, switched_on

ROOT = Path(__file__).resolve().parents[2]
HEAD = "head"
MASTER_ADDRESS = "10.78.0.1"
_OWN = """
for name in cache srv lib opt by-path; do mkdir -p "$box/$name"; done
mount --bind "$box/cache" /var/cache
mount --bind "$box/srv" /srv
mount --bind "$box/opt" /opt
mkdir -p /var/lib/picloud-image
mount --bind "$box/lib" /var/lib/picloud-image
mkdir -p "$box/dev"
mount -t tmpfs box "$box/dev"
for name in null zero full random urandom tty fd stdin stdout stderr; do
    cp -a "/dev/$name" "$box/dev/"
done
mkdir -p "$box/dev/shm" "$box/dev/disk/by-path"
mount --bind "$box/by-path" "$box/dev/disk/by-path"
mount --rbind "$box/dev" /dev
"""
# Its own /dev: udevd of the host removes folders of links there once they are empty, and what is
# mounted on them with them.
_MASTER = f"""\
interface: {MASTER_ADDRESS}
auto_accept: True
worker_threads: 3
log_level_logfile: info
"""
_MINION = f"""\
master: {MASTER_ADDRESS}
acceptance_wait_time: 1
random_reauth_delay: 1
recon_default: 200
recon_max: 1000
auth_timeout: 10
"""


_TAP = """
import socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
tap.bind(("switch", 0))
while True:
    sys.stdout.buffer.write(tap.recv(70000))
    sys.stdout.buffer.flush()
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A station: its box, and the folder of what is its own on this computer's disk."""

    name: str
    box: Box
    folder: Path
    wire: Wire

    def put(self, slot: str, device: Path) -> None:
        """Have the reader's slot with the name ``slot`` in by-path show ``device``, which no other
        computer of the laboratory has."""
        number = device.stat().st_rdev
        node = f"{device} b {os.major(number)} {os.minor(number)}"
        making = ["sh", "-c", f"test -b {device} || mknod {node}"]
        subprocess.run([*self.box.entering, *making], check=True)
        link = self.folder / "by-path" / slot
        link.unlink(missing_ok=True)
        link.symlink_to(device)


class Laboratory:
    """The head's computer and its stations, all switched on."""

    def __init__(
        self,
        hub: Wire,
        head: Box,
        folder: Path,
        desks: Mapping[str, Desk],
        programs: SaltPrograms,
    ) -> None:
        self._programs = programs
        self.hub = hub
        self.head = head
        self.folder = folder
        self.desks = desks

    @property
    def door(self) -> Door:
        """The way to the master from the head, which is the same computer."""
        path = f"PATH={self._programs.folder}:{os.environ['PATH']}"
        return Door("this computer", (*self.head.entering, "env", path, "sh", "-s"), is_local=True)

    @contextmanager
    def wiretapped(self) -> Iterator[Path]:
        """All frames on the switch go into a file."""
        file = self.folder / "wire"
        with (
            file.open("wb") as out,
            subprocess.Popen([*self.hub.entering, sys.executable, "-c", _TAP], stdout=out) as tap,
        ):
            try:
                yield file
            finally:
                tap.kill()

    def kill(self, box: Box, words: bytes) -> int:
        """End every process of one computer whose command has ``words``, as a power cut would, but
        for its first; returns how many there were."""
        ended = 0
        for process in self._processes(box, words):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                ended += 1
        return ended

    def has(self, box: Box, words: bytes) -> bool:
        """Whether there is such a process."""
        return any(True for _ in self._processes(box, words))

    def _processes(self, box: Box, words: bytes) -> Iterator[int]:
        ours = Path(f"/proc/{box.pid}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_there = (process / "ns/pid").readlink() == ours and process.name != str(box.pid)
                if is_there and words in (process / "cmdline").read_bytes():
                    yield int(process.name)

    def start(self, box: Box, daemon: str) -> None:
        """Start ``daemon`` there again; it ends with its computer."""
        words = [*box.entering, os.fspath(self._programs(daemon)), "--daemon"]
        subprocess.run(words, check=True)

    def restart(self, box: Box, daemon: str) -> None:
        """Kill ``daemon`` there, and start it again."""
        assert self.kill(box, daemon.encode())
        self.start(box, daemon)

    @contextmanager
    def unplugged(self, name: str) -> Iterator[None]:
        """The cable of one station is out until the block ends."""
        self._cable(name, "down")
        try:
            yield
        finally:
            self._cable(name, "up")

    def _cable(self, name: str, state: str) -> None:
        words = [*self.hub.entering, "ip", "link", "set", _plug(name), state]
        subprocess.run(words, check=True)


@contextmanager
def laboratory(
    folder: Path, programs: SaltPrograms, names: Sequence[str], *, path: str = ""
) -> Iterator[Laboratory]:
    """A head and the stations ``names``, whose minions answer; all is gone with the block.
    ``path`` is where the minions find programs first."""
    with ExitStack() as on:
        hub = on.enter_context(bridged("switch", MASTER_ADDRESS))
        files = {"master.d/lab.conf": _MASTER, f"master.d/{MASTER_FILE}": master_settings()}
        _lay_out(folder / HEAD, HEAD, files)
        head = on.enter_context(
            switched_on(folder / HEAD, hub, programs, "salt-master", furnishing=_OWN)
        )
        desks = {}
        for number, name in enumerate(names):
            _lay_out(folder / name, name, {"minion.d/lab.conf": _MINION})
            wire = on.enter_context(_plugged_in(hub, name, f"10.78.0.{10 + number}"))
            furnishing = f"{_OWN}\nexport PATH={path}:$PATH" if path else _OWN
            box = on.enter_context(
                switched_on(folder / name, wire, programs, "salt-minion", furnishing=furnishing)
            )
            desks[name] = Desk(name, box, folder / name, wire)
        head.wait_until_answering(set(names), seconds=120)
        yield Laboratory(hub, head, folder, desks, programs)


def _lay_out(folder: Path, name: str, files: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    salt = folder / "etc/salt"
    for place in ("master.d", "minion.d"):
        (salt / place).mkdir(parents=True)
    for file, text in files.items():
        (salt / file).write_text(text)
    (salt / "minion_id").write_text(f"{name}\n")
    (folder / "etc/hostname").write_text(f"{name}\n")


def _plug(name: str) -> str:
    return f"to-{name}"


@contextmanager
def _plugged_in(hub: Wire, name: str, address: str) -> Iterator[Wire]:
    """A network for one computer, with a cable to the switch on ``hub``."""
    with network("") as own:
        pull = f"ip link add {_plug(name)} type veth peer name eth0 netns {own.pid}\n"
        pull += f"ip link set {_plug(name)} master switch up\n"
        subprocess.run([*hub.entering, "sh", "-euc", pull], check=True)
        take = f"ip address add {address}/24 dev eth0\nip link set eth0 up\n"
        subprocess.run([*own.entering, "sh", "-euc", take], check=True)
        yield own

"""Hints about a master that is reached by ssh, followed with the real sshd on loopback."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hints.following import Row, follow, typed
from tests.hints.test_without_release import master
from tests.support.netns import network
from tests.support.workplace import Said

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to let root in"),
    pytest.mark.skipif(SSHD is None, reason="needs sshd"),
]


@dataclass
class Master:
    """pi0 of a rack, at a port of this computer: on once it is started."""

    folder: Path
    port: int
    entering: tuple[str, ...] = ()
    """The words before a command that is to run where it is; else it runs here."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switch it on: it has the host key that this rack made for it, and lets in who has the key
        in the file ``key``."""
        master(self.folder)
        keys = self.folder / "rack/.picloud/keys/pi0/ssh"
        Path("/run/sshd").mkdir(exist_ok=True)
        settings = {
            "ListenAddress": "127.0.0.1",
            "Port": self.port,
            "HostKey": keys / "ssh_host_ed25519_key",
            "AuthorizedKeysFile": self.folder / "key.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "Subsystem": "sftp internal-sftp",
            "SetEnv": f"PATH={self.folder}/programs:/usr/bin:/bin",
        }
        words = [*self.entering, str(SSHD), "-D", "-e", "-f", "/dev/null"]
        words += [f"-o{name}={value}" for name, value in settings.items()]
        path = self.folder / "sshd.log"
        with path.open("wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 30
        while "Server listening on" not in path.read_text():
            assert self.process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.02)

    def typed(self, line: str) -> Said:
        """Type ``line`` for the program here, or for scp on the master's network."""
        if not line.startswith("scp "):
            return typed(self.folder, line.replace("PORT", str(self.port)), "rack")
        words = [*self.entering, *shlex.split(line)]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def stop(self) -> None:
        """Switch it off, if it is on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


WAY = "rack status --ssh --host 127.0.0.1 --port PORT"
BY_SSH = {
    "name your key with --identity FILE, or put its public half under [login] in rack.toml and "
    "write the master's card again": Row(
        WAY, "--identity FILE", f"{WAY} {{said}}", 10, fill={"FILE": "key"}, before=(Master.start,)
    ),
    "see that the master is switched on and on this network; picloud-image rack status --wait "
    "waits for it": Row(
        WAY.replace("status", "stations list") + " --identity key",
        "picloud-image .* --wait",
        "{said} 60",
        11,
        between=(Master.start,),
    ),
}


def _known(place: Master) -> None:
    """The person at home knows the master's host key."""
    (place.folder / "home/.ssh/known_hosts").write_text(place.typed("rack known-hosts pi0").out)


COPIED = {
    "    scp -r {}/. {}:{}/": Row(
        "rack keys export --pki pki", "scp -r .*", code=0, before=(Master.start, _known)
    )
}
_AT_HOME = """
ip link set lo up
cp -a /etc /mnt
mount --bind /mnt/etc /etc
mkdir -p /etc/salt/pki/master
mount --bind {folder}/master /etc/salt/pki/master
echo 127.0.0.1 pi0 >/etc/hosts
mount --bind {folder}/home /root
"""
"""A network whose only computer is pi0: it is the master, and root's at home."""


@pytest.fixture
def pi0(here: Path) -> Iterator[Master]:
    assert typed(here, "rack keys rotate pi0 --ssh", "rack").code == 0
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(here / "key")]
    subprocess.run(words, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    switched = Master(here, port)
    try:
        yield switched
    finally:
        switched.stop()


@pytest.mark.parametrize("text", BY_SSH)
def test_it_works_over_ssh(pi0: Master, text: str) -> None:
    follow(BY_SSH[text], pi0, pi0.folder, pi0.typed)


@pytest.mark.parametrize("text", COPIED)
def test_the_keys_are_where_the_master_looks_for_them(pi0: Master, text: str) -> None:
    folder = pi0.folder
    (folder / "master").mkdir()
    (folder / "home/.ssh").mkdir(mode=0o700)
    (folder / "key").rename(folder / "home/.ssh/id_ed25519")
    with network(_AT_HOME.format(folder=folder)) as entering:
        master = Master(folder, 22, entering)
        try:
            follow(COPIED[text], master, folder, master.typed)
        finally:
            master.stop()
    (copied, exported) = (_files_below(folder / name) for name in ("master", "pki"))
    assert copied == exported
    assert {"minions/pi0", "minions/pi1"} <= set(copied)


def _files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }

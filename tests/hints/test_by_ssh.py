"""Hints of ``rack status`` over ssh, followed with the real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hints.following import Row, follow, typed
from tests.hints.test_without_release import master

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
            "SetEnv": f"PATH={self.folder}/programs:/usr/bin:/bin",
        }
        words = [str(SSHD), "-D", "-e", "-f", "/dev/null"]
        words += [f"-o{name}={value}" for name, value in settings.items()]
        with (self.folder / "sshd.log").open("wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())


WAY = "rack status --ssh --host 127.0.0.1 --port PORT"
BY_SSH = {
    "name your key with --identity FILE, or put its public half under [login] in rack.toml and "
    "write the master's card again": Row(
        WAY, "--identity FILE", f"{WAY} {{said}}", 10, fill={"FILE": "key"}, before=(Master.start,)
    ),
    "see that the master is switched on and on this network; --wait waits for it": Row(
        f"{WAY} --identity key",
        "--wait",
        f"{WAY} --identity key {{said}} 60",
        11,
        between=(Master.start,),
    ),
}


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
        if switched.process is not None:
            switched.process.terminate()
            switched.process.wait()


@pytest.mark.parametrize("text", BY_SSH)
def test_it_works_over_ssh(pi0: Master, text: str) -> None:
    row, port = BY_SSH[text], str(pi0.port)
    follow(row, pi0, pi0.folder, lambda line: typed(pi0.folder, line.replace("PORT", port), "rack"))

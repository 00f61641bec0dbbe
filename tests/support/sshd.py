"""The real sshd on a node, with the host keys and the logins of the node's finished card.

In: a box that is switched on, and the image it was made from. Out: an sshd on port 22 of it, which
ends with the block.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.disk.ext4.filesystem import Ext4
from imager.node.image import NodeImage
from tests.support.salt import Box

PROGRAM = "/usr/sbin/sshd"
_KEYS = "/run/sshd/authorized_keys"
"""Where whoever logs in may read it, also who is not root."""
_KINDS = ("ed25519", "ecdsa", "rsa")


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running sshd; ``programs`` is the folder on the PATH of those who log in."""

    box: Box
    folder: Path
    programs: Path

    @contextmanager
    def without_salt(self) -> Iterator[int]:
        """The same on another port, where those who log in find no Salt."""
        with _listening(self.box, self.folder, Path("/usr/bin"), 2222):
            yield 2222


@contextmanager
def sshd_in(box: Box, image: NodeImage, programs: Path) -> Iterator[Sshd]:
    """Run sshd in ``box`` as its card set it up."""
    folder = box.folder / "sshd"
    folder.mkdir(mode=0o700)
    with image.open() as reader:
        root = Ext4.open(reader.read, image.layout.root.offset)
        for kind in _KINDS:
            key = folder / f"ssh_host_{kind}_key"
            key.write_bytes(root.read_file(f"/etc/ssh/{key.name}"))
            key.chmod(0o600)
        (folder / "authorized_keys").write_bytes(root.read_file("/root/.ssh/authorized_keys"))
        settings = root.read_file("/etc/ssh/sshd_config.d/10-picloud.conf")
    (folder / "picloud.conf").write_bytes(settings)
    with _listening(box, folder, programs, 22):
        yield Sshd(box, folder, programs)


@contextmanager
def _listening(box: Box, folder: Path, programs: Path, port: int) -> Iterator[None]:
    config = folder / f"sshd_config.{port}"
    config.write_text(
        (folder / "picloud.conf").read_text()
        + "".join(f"HostKey {folder}/ssh_host_{kind}_key\n" for kind in _KINDS)
        + f"Port {port}\nAuthorizedKeysFile {_KEYS}\nStrictModes no\n"
        f"UsePAM no\nPidFile none\nSetEnv PATH={programs}:/usr/bin:/bin\n"
    )
    giving = f"umask 022; mkdir -p {Path(_KEYS).parent}; cat {folder}/authorized_keys >{_KEYS}"
    subprocess.run([*box.entering, "sh", "-euc", giving], check=True)
    with (folder / f"log.{port}").open("wb") as log:
        process = subprocess.Popen(
            [*box.entering, PROGRAM, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(box, port, process, folder / f"log.{port}")
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(box: Box, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
    while subprocess.run(
        [*box.entering, "python3", "-c", ask], capture_output=True, check=False
    ).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

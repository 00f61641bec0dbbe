"""Networks for one test: namespaces that nothing else on this machine is in.

In: a script that sets one up. Out: the words to put before a command that is to run there. The
namespace has mounts of its own too, so that /etc/hosts and the like can be replaced in it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

READY = "ready"
LIVE_WIRE = """
ip link set lo up
ip link add eth0 type veth peer name switch
ip link set eth0 up
ip link set switch up
ip address add 10.0.0.17/24 dev eth0
"""
"""eth0 with an address, and nobody else on the wire."""


@contextmanager
def network(script: str, **files: str) -> Iterator[tuple[str, ...]]:
    """A network laid by ``script``, where /etc/<name> holds the text given for ``name``."""
    texts = "".join(
        f"cat >/mnt/{name} <<'END'\n{text}\nEND\nmount --bind /mnt/{name} /etc/{name}\n"
        for name, text in ((name.replace("_", "."), text) for name, text in files.items())
    )
    whole = f"set -eu\nmount -t tmpfs net /mnt\n{texts}{script}\necho {READY}\nexec sleep infinity"
    process = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", whole],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY, whole
        yield ("nsenter", f"--target={process.pid}", "--net", "--mount", "--")
    finally:
        process.kill()
        process.communicate()

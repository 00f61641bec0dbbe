"""The page of a rack, really served on loopback, in a thread of the test.

In: a rack. Out: the port. ``ask`` sends bytes as they are, for what no browser would say.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from imager.config.rack import Rack
from imager.rack.page.lookout import Lookout
from imager.rack.page.server import PageServer, Place, listening
from tests.support.workplace import ROOT


@contextmanager
def served(rack: Rack, token: str | None = None) -> Iterator[int]:
    """Serve ``rack`` until the block ends, as ``rack serve`` does."""
    listener = listening(Place(ip_address("127.0.0.1"), 0))
    server = PageServer(Lookout(rack), token)

    def run() -> None:
        asyncio.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.handle_exit(signal.SIGINT, None)
        thread.join(60)
        assert not thread.is_alive(), "it ends at once"


@contextmanager
def serving(
    folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command at work on the rack in ``folder``, and the first line it prints."""
    line = [sys.executable, "-m", "imager", "rack", "serve", "--rack", str(folder), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str


def connected(port: int) -> socket.socket:
    """A connection that waits for nothing longer than some seconds."""
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def ask(port: int, path: str, *headers: str, method: str = "GET", host: str = "localhost") -> Reply:
    """What the server answers to one request of its own connection."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    with connected(port) as one:
        one.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        return reply(b"".join(iter(lambda: one.recv(65536), b"")))


def reply(data: bytes) -> Reply:
    """An answer taken apart."""
    head, _, body = data.decode().partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return Reply(int(first.split()[1]), headers, body)


def streaming(port: int, since: str = "", *headers: str) -> socket.socket:
    """A connection on which changes come."""
    one = connected(port)
    lines = [f"GET /events?since={since} HTTP/1.1", "Host: localhost", *headers, "", ""]
    one.sendall("\r\n".join(lines).encode())
    return one

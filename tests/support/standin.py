"""The stand-in release, built once and shared: ``build/stand-in`` of the checkout.

In: nothing. Out: a folder with a real, signed, bootable ARM release, and a web server for it.
``scripts/stand-in`` knows when it must be built anew, and holds off a second builder.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class StandIn:
    """What ``scripts/stand-in`` left in ``folder``."""

    folder: Path

    @property
    def tarball(self) -> Path:
        return self.folder / "StandIn-rpi-armv7-latest.tar.gz"

    @property
    def signing_key(self) -> Path:
        """The public key, armoured."""
        return self.folder / "signing-key.asc"

    @property
    def fingerprint(self) -> str:
        return (self.folder / "signing-key.fingerprint").read_text().strip()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the release on loopback for as long as the block lasts; gives its URL."""
        handler = partial(_QuietHandler, directory=self.folder)
        with _QuietServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/{self.tarball.name}"
            finally:
                server.shutdown()
                thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client may hang up when it has seen the headers it wanted."""


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    """The stand-in release; it takes half a minute where it was never built."""
    folder = ROOT / "build" / "stand-in"
    done = subprocess.run(
        [ROOT / "scripts" / "stand-in", folder],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return StandIn(folder)

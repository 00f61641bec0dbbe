"""The stand-in releases, built once and shared: ``build/stand-in`` of the checkout, and today's.

In: nothing. Out: a folder with a real, signed, bootable ARM release, and a web server for it, which
is also the mirror that today's names. ``scripts/stand-in`` knows when one must be built anew, and
holds off a second builder.
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
from urllib.parse import urlsplit

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

    @property
    def repositories(self) -> Path:
        """Where today's has ``core`` and ``extra``, as pacman reads them; the other has none."""
        return self.folder / "armv7h"

    @property
    def python(self) -> Path:
        """A folder for PATH with today's Python, for this computer; the other has none."""
        return self.folder / "python" / "bin"

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


def as_mirror(url: str) -> dict[str, str]:
    """The environment in which a program that asks any server by http asks the one of ``url``: so
    the mirror is there that today's release names."""
    place = urlsplit(url)
    return {"http_proxy": f"{place.scheme}://{place.netloc}", "no_proxy": "localhost"}


class _QuietHandler(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        """A proxy is asked for a whole URL."""
        return super().translate_path(urlsplit(path).path)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client may hang up when it has seen the headers it wanted."""


def _built(folder: Path, *words: str) -> StandIn:
    done = subprocess.run(
        [ROOT / "scripts" / "stand-in", *words, folder],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return StandIn(folder)


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    """The stand-in release; it takes half a minute where it was never built."""
    return _built(ROOT / "build" / "stand-in")


@pytest.fixture(scope="session")
def today() -> StandIn:
    """Today's stand-in, with no more in it than the distribution's tarball has, and its packages.

    It takes two minutes where it was never built, and 210 MB from Debian's mirror.
    """
    return _built(ROOT / "build" / "stand-in-today", "--today")

"""The folder the measurements work in: the stand-in release, archived, and a rack to use it.

In: a build folder. Out: a Workshop, gone with everything in it when the ``with`` ends. The release
is fetched from loopback once, as a person would; nothing of that is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.process import Ran, measure

ROOT = Path(__file__).resolve().parent.parent
TARBALL = "StandIn-rpi-armv7-latest.tar.gz"
_RACK = """\
[rack]
name = "benchmark"
nodes = "pi[0-99]"
master = "pi0"
model = "pi2"
[release]
url = "{url}"
signing_key = "{key}"
[login]
authorized_keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7c5qie2nDinzOSUpVHmT6JpLdJVa/zmPka0wD+/wO7 nobody",
]
"""


@dataclass(frozen=True, slots=True)
class Workshop:
    """``folder`` is private; ``tarball`` is the stand-in release as it was built."""

    folder: Path
    tarball: Path

    @property
    def rack(self) -> Path:
        return self.folder / "rack"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def picloud(self, *words: str | os.PathLike[str], stop_at: str | None = None) -> Ran:
        """Run the real command with ``--json``; ``stop_at`` as for ``measure``."""
        common = ("--rack", self.rack, "--cache", self.cache, "--json")
        return measure([*command(), *common, *words], cwd=ROOT, stop_at=stop_at)


def command() -> list[str | os.PathLike[str]]:
    """The installed command, else the same program from the source tree."""
    installed = Path(sys.executable).with_name("picloud-image")
    return [installed] if installed.exists() else [sys.executable, "-m", "imager"]


@contextmanager
def workshop(build: Path) -> Iterator[Workshop]:
    """Build the stand-in in ``build``/stand-in unless it is there, and archive it."""
    built = build / "stand-in"
    subprocess.run([ROOT / "scripts" / "stand-in", built], check=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=build) as name:
        place = Workshop(Path(name), built / TARBALL)
        place.rack.mkdir()
        with _served(built) as port:
            (place.rack / "rack.toml").write_text(
                _RACK.format(
                    url=f"http://127.0.0.1:{port}/{TARBALL}",
                    key=(built / "signing-key.fingerprint").read_text().strip(),
                )
            )
            place.picloud("--signing-key", built / "signing-key.asc", "fetch")
        yield place


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that only wants the headers hangs up


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    """Serve ``folder`` on a free port of loopback."""
    handler = partial(_Silent, directory=os.fspath(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()

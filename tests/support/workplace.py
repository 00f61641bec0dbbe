"""A person's workplace: a rack, a cache, and a mirror with a signed release, on loopback.

``workplace.run("write", …)`` runs the real command in its own process and gives back everything
it said; with ``--json`` the lines are parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.mirror import Mirror, serving
from tests.support.pypi import Index
from tests.support.release import ReleaseTree, build_release
from tests.support.signing import SigningKey, make_key, sign_detached
from tests.support.starter import run_command

ROOT = Path(__file__).resolve().parents[2]
TARBALL = "/os/StandIn-rpi-armv7-latest.tar.gz"
LIMIT_SECONDS = 300
SALT = '\nversion = "3008.3"\n'
"""What ``rack init`` writes and a small release has not the means for: without it, no Salt."""


@dataclass(frozen=True)
class Said:
    """What one run of the command ended with."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output as the JSON lines it must be."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The last line, which must be the result."""
        last = self.events[-1]
        assert last["event"] == "result"
        assert last["exit_code"] == self.code
        return last


@dataclass
class Workplace:
    """Folders under one temporary folder, and the environment that points the command at them."""

    folder: Path
    mirror: Mirror
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rack(self) -> Path:
        return self.folder / "rack"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def command(self, *words: str | Path) -> list[str]:
        """The argument vector of the command with ``words``."""
        return [sys.executable, "-m", "imager", *(os.fspath(word) for word in words)]

    def run(self, *words: str | Path, stdin: str | None = None) -> Said:
        """Run the command to its end; no terminal, standard input empty unless given."""
        code, out, err = run_command(
            [os.fspath(word) for word in words],
            cwd=self.folder,
            env=self.environment,
            stdin=stdin or "",
            seconds=LIMIT_SECONDS,
        )
        return Said(code, out, err)

    def json(self, *words: str | Path) -> Said:
        """The same with ``--json``."""
        return self.run(*words, "--json")

    def pi7(self) -> Path:
        """The image of pi7, 2 GiB, written now by the command."""
        path = self.folder / "pi7.img"
        said = self.json("write", path, "--node", "pi7", "--size", "2GiB")
        assert said.code == 0, said.err
        assert said.result["verified"] is True
        return path


@contextmanager
def workplace(
    folder: Path,
    *,
    tree: ReleaseTree | None = None,
    pypi: Index | None = None,
    key: SigningKey | None = None,
) -> Iterator[Workplace]:
    """A workplace with a rack of pi[0-13] whose release is a small one served from loopback, of
    ``tree`` if one is given, signed by ``key`` or a new one. With ``pypi``, the cards get the small
    Salt that it offers."""
    tarball = build_release(folder, tree).tarball.read_bytes()
    key = key or make_key()
    (folder / "signing-key.asc").write_bytes(key.certificate)
    files = {
        TARBALL: tarball,
        f"{TARBALL}.sig": sign_detached(key, tarball),
        f"{TARBALL}.md5": f"{hashlib.md5(tarball).hexdigest()}  {Path(TARBALL).name}\n".encode(),
    }
    with serving(files) as mirror:
        pip = pypi.environment if pypi else {}
        place = Workplace(folder, mirror, _environment(folder) | pip)
        made = place.run("rack", "init")
        assert made.code == 0, made.err
        toml = (place.rack / "rack.toml").read_text()
        url = f"http://127.0.0.1:{mirror.server.server_address[1]}{TARBALL}"
        ours = f'url = "{url}"\nsigning_key = "{key.fingerprint}"'
        assert 'name = "alarm-rpi-armv7"' in toml
        assert SALT in toml
        toml = toml.replace('name = "alarm-rpi-armv7"', ours)
        if pypi is None:
            toml = toml.replace(SALT, "\n")
        # The cards of these tests are smaller than any that is sold.
        toml = toml.replace('# size = "1GiB"', 'size = "64MiB"')
        (place.rack / "rack.toml").write_text(toml)
        yield place


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.fspath(ROOT),
        "LANG": "C.UTF-8",
        "HOME": os.fspath(folder / "home"),
        "XDG_DATA_HOME": os.fspath(folder / "data"),
        "PICLOUD_RACK": os.fspath(folder / "rack"),
        "PICLOUD_CACHE": os.fspath(folder / "cache"),
        "PICLOUD_SIGNING_KEY": os.fspath(folder / "signing-key.asc"),
    }

"""pacman reads a stranger's databases: what they make of it is the mirror's fault, and not ours."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from imager.base.errors import NetworkError
from imager.packages.resolve import pacman as asked
from imager.packages.resolve.database import Database, PackageOffer, own_database
from imager.packages.resolve.pacman import Answer, Chosen, Pacman


def offer(name: str, *depends: str) -> PackageOffer:
    return PackageOffer(name, "1-1", "any", f"{name}-1-1-any.pkg.tar.xz", "ab" * 32, 7, depends)


def resolved(work: Path, databases: Sequence[Database]) -> Answer:
    pacman = Pacman(work, "armv7h")
    pacman.know(databases)
    return pacman.resolve(["one"])


ONE = own_database("core", [offer("one")])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_pacman_never_sees_what_a_mirror_packed(tmp_path: Path, pack: type[bytes]) -> None:
    database = Database("core", "http://m", pack(ONE.packed))
    assert resolved(tmp_path, [database]) == Answer((Chosen("core", "one", "1-1"),), ())
    assert (tmp_path / "db/sync/core.db").read_bytes() == ONE.packed


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        ("kill -KILL $$", "was ended by SIGKILL"),
        ("echo 'error: /d/core.db: database file is corrupted' >&2; exit 1", "is corrupted"),
        ("echo 'error: could not open file /d/core.db: Lzma library error' >&2", "Lzma library"),
        ("sleep 60", "does not end within 2 s"),
        ("yes", "says more than"),
    ],
)
def test_what_a_database_does_to_pacman_is_the_mirrors_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    program = tmp_path / "bin/pacman"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(asked, "_SECONDS", 2)
    path = f"{program.parent}:{os.environ['PATH']}"
    monkeypatch.setattr("imager.base.run.search_path", lambda: path)
    with pytest.raises(NetworkError, match=f"databases of packages are not sound: .*{why}"):
        resolved(tmp_path / "work", [ONE])


def test_a_database_that_fills_all_memory_that_pacman_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "_MEMORY_BYTES", 100 << 20)
    large = [offer(f"p{number}", *(f"d{n}" for n in range(200))) for number in range(4000)]
    with pytest.raises(NetworkError, match="could not allocate"):
        resolved(tmp_path, [own_database("core", [offer("one"), *large])])

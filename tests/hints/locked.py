"""A rack whose release, packages and Salt were fetched and pinned; its mirrors can be changed.

In: nothing. Out: a template, made once, and copies of it, one for each row.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from imager.image.salt.needs import ARCH_PACKAGES
from tests.hints.following import words_of
from tests.support.mirror import Mirror, serving
from tests.support.pacman import description, package
from tests.support.pypi import Index, index, tree_with_python
from tests.support.release import ReleaseTree
from tests.support.repository import INSTALLED, add_pacman, database_of, files_of
from tests.support.signing import SigningKey, make_key, sign_detached
from tests.support.starter import run_command
from tests.support.workplace import TARBALL, Said, Workplace, workplace

OTHER = "A" * 40
"""The fingerprint of no key."""
WISH = '[packages]\ninstall = ["docker"]\n'


@dataclass
class Locked:
    """``workplace`` has the rack; ``repository`` offers pacman packages, ``pypi`` Salt; ``held`` is
    what is undone at the end of a copy."""

    workplace: Workplace
    repository: Mirror
    pypi: Index
    key: SigningKey
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def folder(self) -> Path:
        return self.workplace.folder

    def typed(self, line: str) -> Said:
        given, words = words_of(line)
        environment = self.workplace.environment | given
        environment["PATH"] = f"{self.folder}/programs:{environment['PATH']}"
        return Said(*run_command(words, cwd=self.folder, env=environment, stdin="", seconds=120))

    def offer(self, *packages: Path) -> None:
        """Offer ``packages`` instead of what is offered under their names."""
        folder = self.folder / "offered"
        names = {path.name.split("-")[0] for path in packages}
        others = [path for path in offered(folder) if path.name.split("-")[0] not in names]
        paths = [*others, *packages]
        self.repository.files = files_of(paths, database_of(paths, folder), self.key)

    def offer_release(self, path: str, data: bytes) -> None:
        """Offer the tarball ``data`` at ``path`` of the mirror, signed."""
        signature = sign_detached(self.key, data)
        md5 = f"{hashlib.md5(data).hexdigest()}  x\n".encode()
        self.workplace.mirror.files |= {path: data, f"{path}.sig": signature, f"{path}.md5": md5}

    def change(self, pattern: str, text: str) -> None:
        """Write ``text`` for what ``pattern`` finds in rack.toml."""
        toml = self.workplace.rack / "rack.toml"
        changed, count = re.subn(pattern, text, toml.read_text(), flags=re.MULTILINE)
        assert count == 1
        toml.write_text(changed)

    @contextmanager
    def copied(self, folder: Path) -> Iterator[Locked]:
        """A copy in ``folder``; the mirrors are as they were when it ends."""
        ours = self.folder
        shutil.copytree(ours, folder)
        environment = {
            name: value.replace(os.fspath(ours), os.fspath(folder))
            for name, value in self.workplace.environment.items()
        }
        servers = (self.repository, self.pypi.mirror, self.workplace.mirror)
        kept = [dict(server.files) for server in servers]
        try:
            place = replace(self.workplace, folder=folder, environment=environment)
            with ExitStack() as held:
                yield replace(self, workplace=place, held=held)
        finally:
            for server, files in zip(servers, kept, strict=True):
                server.files = files


def offered(folder: Path) -> list[Path]:
    """The packages of the repository."""

    def made(name: str, version: str, *depend: str) -> Path:
        unit = f"usr/lib/systemd/system/{name}.service"
        return package(
            folder, name, version, {unit: "[Install]\n"}, arch="armv7h", depend=["glibc", *depend]
        )

    return [
        made("docker", "1:1.6.2-1", "containerd>=1.7"),
        made("containerd", "1.7.0-1"),
        made("htop", "3.3-1"),
    ]


def tree_of(repository: Mirror) -> ReleaseTree:
    """A release that has what Salt needs, and pacman, which takes packages from ``repository``."""
    tree = tree_with_python()
    tree.file("./usr/bin/pacman", b"\x7fELF", 0o755)
    add_pacman(tree, repository.address)
    for name in sorted(set(ARCH_PACKAGES) - set(INSTALLED)):
        entry = f"./var/lib/pacman/local/{name}-3.14.0-1"
        tree.file(f"{entry}/desc", description(name, "3.14.0-1", "armv7h"))
        tree.file(f"{entry}/files", "%FILES%\nusr/\n\n")
    return tree


@contextmanager
def fetched(folder: Path) -> Iterator[Locked]:
    """The template, in ``folder``."""
    key = make_key()
    paths = offered(folder / "packages")
    files = files_of(paths, database_of(paths, folder / "packages"), key)
    with (
        serving(files) as repository,
        index() as pypi,
        workplace(folder, tree=tree_of(repository), pypi=pypi, key=key) as place,
    ):
        found = Locked(place, repository, pypi, key)
        found.change(r"^\[packages\]$", WISH)
        for line in ("fetch", "lock"):
            done = found.typed(line)
            assert done.code == 0, done.err
        yield found


def newer(place: Locked) -> None:
    """There is a newer docker on the mirror, and the older no more."""
    depend = ["containerd>=1.7", "glibc"]
    made = package(place.folder, "docker", "1:1.7.0-1", {"x": "y"}, arch="armv7h", depend=depend)
    place.offer(made)


def install(place: Locked, words: str) -> None:
    place.change("^install = .*", f"install = {words}")


def htop(place: Locked) -> None:
    install(place, '["docker", "htop"]')


def altered(place: Locked, name: str, *, kept: int = -1, more: bytes = b"X") -> None:
    """``more`` is in the archived file ``name`` instead of what follows its byte ``kept``."""
    (path,) = place.workplace.cache.rglob(name)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:kept] + more)


def another_release(place: Locked, path: str = TARBALL) -> None:
    """The mirror has another release at ``path``."""
    data = gzip.decompress(place.workplace.mirror.files[TARBALL])
    place.offer_release(path, gzip.compress(data, mtime=1))

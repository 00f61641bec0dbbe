"""A signed repository of pacman packages on loopback, and a release that takes packages from it.

The database is made by repo-add, from packages in the form that makepkg gives them; each is signed
by the key that signed the release.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.cache import Cache
from imager.packages.locking import PackageOrder
from imager.packages.wish import PackageWish
from imager.release.lock import Pin, RackLock
from imager.release.terms import FetchTerms, KeySources
from imager.release.verified import VerifiedRelease
from tests.support.fetching import LIMITS, Heard
from tests.support.mirror import Mirror, serving
from tests.support.pacman import description, package
from tests.support.release import ReleaseTree, build_release
from tests.support.signing import SigningKey, sign_detached

FOLDER = "/armv7h/core"
INSTALLED = {"glibc": "2.40-1", "openssl": "3.5.0-1", "linux-rpi": "6.6-1", "nano": "8.0-1"}
"""What the release has; nano needs glibc."""


def packages_in(folder: Path) -> list[Path]:
    """The packages of the repository, most of them with something that resolving must see to."""

    def made(name: str, version: str, **info: str | list[str]) -> Path:
        files = {f"usr/lib/{name}/data": name * 50}
        return package(folder, name, version, files, **{"arch": "armv7h", **info})

    return [
        made("docker", "1:1.6.2-1", depend=["containerd>=1.7", "glibc"]),
        made("containerd", "1.7.0-1", depend="runc"),
        made("runc", "1.1.0-1", depend="glibc"),
        made("cronie", "1.7-1", provides="cron"),
        made("fcron", "3.4-1", provides="cron"),
        made("backup", "1.0-1", depend="cron"),
        made("openssl", "3.6.0-1", depend="glibc"),
        made("modern", "1.0-1", depend="openssl>=3.6"),
        made("tomorrow", "1.0-1", depend="openssl>=4"),
        made("linux-rpi-16k", "6.6-1", conflict="linux-rpi", provides="linux-rpi"),
        made("htop", "3.3-1", depend="glibc", arch="any"),
    ]


def database_of(paths: Sequence[Path], folder: Path) -> bytes:
    """The database that repo-add makes of ``paths``."""
    database = folder / "core.db.tar.gz"
    for name in ("core.db", "core.db.tar.gz", "core.files", "core.files.tar.gz"):
        (folder / name).unlink(missing_ok=True)
    subprocess.run(["repo-add", "-q", database, *paths], check=True, capture_output=True)
    return database.read_bytes()


def files_of(paths: Sequence[Path], database: bytes, key: SigningKey) -> dict[str, bytes]:
    """The repository as a mirror serves it."""
    files = {f"{FOLDER}/core.db": database}
    for path in paths:
        data = path.read_bytes()
        files[f"{FOLDER}/{path.name}"] = data
        files[f"{FOLDER}/{path.name}.sig"] = sign_detached(key, data)
    return files


def repository_in(folder: Path, key: SigningKey) -> dict[str, bytes]:
    """The files of the repository, which is made in ``folder``."""
    paths = packages_in(folder)
    return files_of(paths, database_of(paths, folder), key)


@contextmanager
def serving_packages(folder: Path, key: SigningKey) -> Iterator[Mirror]:
    """A mirror of the repository, which is made in ``folder``."""
    with serving(repository_in(folder, key)) as mirror:
        yield mirror


def release_tree(*servers: str) -> ReleaseTree:
    """A release of INSTALLED packages whose mirrors are ``servers``, the later ones commented out,
    as in the distribution's own list."""
    tree = ReleaseTree()
    tree.folder("./boot")
    add_pacman(tree, *servers)
    return tree


def add_pacman(tree: ReleaseTree, *servers: str) -> None:
    """Add what ``release_tree`` says to pacman."""
    tree.file(
        "./etc/pacman.conf",
        "[options]\nArchitecture = armv7h\nDownloadUser = alpm\nCheckSpace\n"
        "SigLevel = Required DatabaseOptional\n#[testing]\n#Include = /etc/pacman.d/mirrorlist\n"
        "[core]\nInclude = /etc/pacman.d/mirrorlist\n",
    )
    lines = [f"{'# ' if n else ''}Server = {s}/$arch/$repo" for n, s in enumerate(servers)]
    tree.file("./etc/pacman.d/mirrorlist", "\n".join(["## Geo", *lines, ""]))
    for name, version in INSTALLED.items():
        text = description(name, version, "armv7h")
        if name == "nano":
            text += "%DEPENDS%\nglibc\n\n"
        tree.file(f"./var/lib/pacman/local/{name}-{version}/desc", text)


@dataclass
class PackageScene:
    """One rack that takes packages from ``mirrors``."""

    folder: Path
    key: SigningKey
    mirrors: tuple[Mirror, ...]
    heard: Heard = field(default_factory=Heard)

    def __post_init__(self) -> None:
        self.cache = Cache(self.folder / "cache")
        self.lock_path = self.folder / "rack.lock"
        (self.folder / "key.asc").write_bytes(self.key.certificate)
        tree = release_tree(*(mirror.address for mirror in self.mirrors))
        (self.folder / "release").mkdir(parents=True, exist_ok=True)
        built = build_release(self.folder / "release", tree)
        self.release = VerifiedRelease(
            built.name,
            built.models,
            built.sha256,
            built.tarball,
            built.size_bytes,
            self.key.fingerprint,
            built.source_url,
            built.fetched_at,
        )
        now = "2026-11-02T10:00:00+00:00"
        pin = Pin(built.sha256, built.size_bytes, "http://m/x.tar.gz", self.key.fingerprint, now)
        self.lock.with_pin(built.name, pin)

    @property
    def lock(self) -> RackLock:
        return RackLock.load(self.lock_path)

    def order(
        self, *wishes: PackageWish, offline: bool = False, hold: frozenset[str] = frozenset()
    ) -> PackageOrder:
        return PackageOrder(
            release=self.release,
            wishes=wishes,
            lock=self.lock,
            terms=FetchTerms(self.cache, self.heard, offline),
            sources=KeySources(keyrings=(), keyservers=(), file=self.folder / "key.asc"),
            hold=hold,
            limits=LIMITS,
        )

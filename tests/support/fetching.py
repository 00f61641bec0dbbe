"""A small signed release on a loopback mirror, and a place to fetch it to."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from imager.base.cache import Cache
from imager.base.progress import FindingData, Phase
from imager.release.catalogue import ReleaseSpec
from imager.release.fetch import fetch_release
from imager.release.lock import RackLock
from imager.release.terms import FetchTerms, KeySources
from imager.release.transfer.web import TransferLimits
from imager.release.verified import VerifiedRelease
from tests.support.mirror import Mirror
from tests.support.release import ReleaseTree
from tests.support.signing import SigningKey, sign_detached

FILE_NAME = "StandIn-rpi-latest.tar.gz"
PATH = f"/os/{FILE_NAME}"
LIMITS = TransferLimits(
    connect_seconds=5, read_seconds=5, attempts=4, back_off_seconds=0.01, tarball_bytes=2_000_000
)
NO_SOURCES = KeySources(keyrings=(), keyservers=())


def some_bytes(seed: int = 0, size_bytes: int = 200_000) -> bytes:
    """Bytes that no two seeds share. They begin as a release does: nothing of what is fetched is
    unpacked but that."""
    return _START + random.Random(seed).randbytes(size_bytes - len(_START))


def _start() -> bytes:
    tree = ReleaseTree()
    for name in (".", "./boot", "./etc"):
        tree.folder(name)
    return gzip.compress(tree.pack(), mtime=0)


_START = _start()


def md5_line(data: bytes) -> bytes:
    return f"{hashlib.md5(data).hexdigest()}  {FILE_NAME}\n".encode()


def release_files(key: SigningKey, data: bytes) -> dict[str, bytes]:
    """The set of three, as a mirror serves it."""
    return {
        PATH: data,
        f"{PATH}.sig": sign_detached(key, data),
        f"{PATH}.md5": md5_line(data),
    }


@dataclass
class Heard:
    """A Progress that remembers what it was told."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    phases: dict[str, list[int]] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        steps = self.phases.setdefault(name, [])

        class Counted:
            def advance(self, size_bytes: int) -> None:
                steps.append(size_bytes)

        yield Counted()

    def steps(self, name: str, count: int) -> AbstractContextManager[Phase]:
        return self.phase(name)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def finding(self, finding: FindingData) -> None:
        raise AssertionError(f"nothing to find while fetching: {finding.to_json()}")


class Scene:
    """Everything one fetch needs, with the defaults a test would repeat."""

    def __init__(self, tmp_path: Path, key: SigningKey) -> None:
        self.key = key
        self.data = some_bytes()
        self.files = release_files(key, self.data)
        self.cache = Cache(tmp_path / "cache")
        self.lock_path = tmp_path / "rack" / "rack.lock"
        self.key_file = tmp_path / "key.asc"
        self.key_file.write_bytes(key.certificate)
        self.heard = Heard()

    def spec(self, *mirrors: Mirror) -> ReleaseSpec:
        urls = tuple(mirror.address + PATH for mirror in mirrors)
        return ReleaseSpec("stand-in", urls[0], self.key.fingerprint, ("pi2",), urls[1:])

    def fetch(
        self,
        *mirrors: Mirror,
        locked: bool = False,
        offline: bool = False,
        update: bool = False,
        limits: TransferLimits = LIMITS,
        key_sources: KeySources = NO_SOURCES,
        with_key: bool = True,
        not_before: datetime | None = None,
    ) -> VerifiedRelease:
        return fetch_release(
            self.spec(*mirrors),
            RackLock.load(self.lock_path) if locked else None,
            FetchTerms(self.cache, self.heard, offline, update, not_before=not_before),
            replace(key_sources, file=self.key_file if with_key else None),
            limits,
        )

    @property
    def partial(self) -> Path:
        """The folder of the partial file; there is at most one in a scene."""
        (folder,) = (path for path in self.cache.partial.iterdir() if path.is_dir())
        return folder

    def archived(self) -> list[str]:
        """The names in the archive."""
        releases = self.cache.releases
        return sorted(path.name for path in releases.iterdir()) if releases.exists() else []

"""A small archive without a network, a file exported from it, and files that are not so."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.progress import Progress, Quiet
from imager.packages.carry import form
from imager.packages.carry.carried import opened
from imager.packages.carry.export import ExportedFile, all_found, export, prove
from imager.packages.carry.lists import intake_of
from imager.packages.carry.take_in import take_in
from imager.packages.fetch.archive import PackageArchive
from imager.release.archive import Archive, TarballRecord
from imager.release.lock import PackagePin, PacmanPin, Pin, RackLock
from imager.release.openpgp import parse_certificate
from imager.release.salt.salt import publish
from imager.release.terms import FetchTerms
from tests.support.pacman import package
from tests.support.signing import SigningKey, sign_detached

NOW = "2026-11-02T10:00:00Z"
Members = dict[str, bytes]


@dataclass
class Carrying:
    """A rack.lock of one release, two packages and Salt, all in the archive ``cache``."""

    folder: Path
    key: SigningKey
    others: Mapping[str, bytes] = field(default_factory=dict)
    """Signatures to use instead of the right ones, by the name of what they sign."""

    release: bytes = b"a release\n" * 300

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.cache, self.file = Cache(self.folder / "cache"), self.folder / "rack.tar"
        lock = self.lock
        self._add_release(lock)
        for name in ("docker", "runc"):
            self.add_package(package(self.folder, name, "1:1.6-1", {"usr/x": name}), name)
        salt = self.folder / "salt-3008.3.tar.gz"
        salt.write_bytes(b"salt\n" * 100)
        pin = PackagePin("3008.3", _sha256(salt.read_bytes()), salt.stat().st_size, NOW)
        publish(salt, "salt", self.cache)
        self.lock.with_pin("salt", pin)

    @property
    def lock(self) -> RackLock:
        return RackLock.load(self.folder / "rack.lock")

    @property
    def keys(self) -> dict[str, Cert]:
        found = parse_certificate(self.key.certificate, self.key.fingerprint)
        assert found is not None
        return {self.key.fingerprint: found}

    def export(self, progress: Progress | None = None) -> ExportedFile:
        """Write ``file``."""
        entries = all_found(self.lock, self.cache)
        if not self.others:
            prove(entries, self.keys, self.cache, Quiet())
        return export(self.lock, entries, self.keys, self.file, progress or Quiet(), replace=True)

    def _add_release(self, lock: RackLock) -> None:
        tarball, url = self.folder / "x.tar.gz", "http://m/x.tar.gz"
        tarball.write_bytes(self.release)
        sha256, by = _sha256(self.release), self.key.fingerprint
        record = TarballRecord("x", sha256, len(self.release), by, url, url, NOW, None, '"e"')
        Archive(self.cache).publish(tarball, self._signed("x", self.release), record)
        lock.with_pin("x", Pin(sha256, len(self.release), url, by, NOW))

    def add_package(self, path: Path, name: str) -> None:
        data = path.read_bytes()
        pin = PacmanPin(
            "1:1.6-1", "any", path.name, _sha256(data), len(data), self.key.fingerprint,
            f"http://m/{path.name}", NOW,
        )  # fmt: skip
        PackageArchive(self.cache).publish(name, pin, path, self._signed(name, data))
        self.lock.with_pin(name, pin)

    def _signed(self, name: str, data: bytes) -> bytes:
        return self.others.get(name) or sign_detached(self.key, data)


def take(file: Path, cache: Cache, key: SigningKey, progress: Progress | None = None) -> int:
    """Take in all of ``file``, as for a rack without a rack.lock; how many entries it was."""
    certificate = parse_certificate(key.certificate, key.fingerprint)
    assert certificate is not None
    with opened(file, {key.fingerprint}) as carried:
        entries = [each.entry for each in carried.entries]
        wanted = intake_of(entries, carried.lock, cache).wanted
        terms = FetchTerms(cache, progress or Quiet(), offline=True)
        take_in(carried, wanted, dict.fromkeys(carried.keys, certificate), terms)
        return len(wanted)


def archived(cache: Cache) -> dict[str, bytes]:
    """Every file of the archive, and whatever a run left in its private folders."""
    rooms = ("releases", "packages", "work")
    paths = (path for room in rooms for path in (cache.root / room).rglob("*") if path.is_file())
    return {
        str(path.relative_to(cache.root)): path.read_bytes()
        for path in paths
        if path.name not in (".guard", "pacman.lock")
    }


def members_of(file: Path) -> Members:
    """The files in an exported file, in their order."""
    with tarfile.open(file) as tar:
        found = ((info.name, tar.extractfile(info)) for info in tar)
        return {name: data.read() for name, data in found if data is not None}


def packed(members: Members | Iterable[tuple[str, bytes]], *, sums: bool = True) -> bytes:
    """Such a file of any members; with ``sums`` its SHA256SUMS is right for them."""
    listed = list(members.items() if isinstance(members, dict) else members)
    if sums:
        right = "".join(f"{_sha256(data)}  {name}\n" for name, data in listed if name != form.SUMS)
        listed = [(form.SUMS, right.encode()), *(each for each in listed if each[0] != form.SUMS)]
    pieces = (
        form.header(name, len(data)) + data + bytes(-len(data) % 512) for name, data in listed
    )
    return b"".join(pieces) + form.END


def altered(file: Path, change: Callable[[Members], object]) -> bytes:
    """``file`` with its members changed, and SHA256SUMS right for what they are then."""
    members = members_of(file)
    change(members)
    return packed(members)


def flipped(data: bytes, at: int) -> bytes:
    """``data`` with one bit of a byte changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

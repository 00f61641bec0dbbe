"""Every release that was ever used, kept for good under the hash of its bytes.

In: a tarball whose signature was proven. Out: a folder ``<cache>/releases/<sha256>/`` with the
tarball, its signature and where it came from; the folder is whole or absent. Where another key
signed the same bytes too, its signature and record lie beside the first, under that key's
fingerprint. The distribution keeps no archive and replaces "latest" in place, so this program
never deletes anything here. A damaged folder is renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.durable import host_storage, write_atomically
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonFault, read_object
from imager.base.progress import Phase, Progress
from imager.base.text import cut
from imager.base.trusted_folder import TrustedFolder, kept_bytes, kept_file
from imager.base.units import KiB, MiB
from imager.release.content_store import names_beside, placed, record_in, set_aside, size_in
from imager.release.lock import Pin, pin_faults
from imager.release.openpgp import parse_signatures, signed_at, verify_detached
from imager.release.verified import VerifiedRelease

TARBALL, SIGNATURE, RECORD = "release.tar.gz", "release.tar.gz.sig", "release.json"
SIGNATURE_BYTES = 64 * KiB
"""As much as is read of a signature."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class TarballRecord:
    """What is known of an archived tarball; the content of its ``release.json``.

    ``url`` is where it was asked for, ``source_url`` the mirror it came from, ``fetched_at`` a
    UTC time in ISO 8601; ``last_modified`` and ``etag`` are the mirror's headers, if it sent them.
    """

    name: str
    sha256: str
    size_bytes: int
    fingerprint: str
    url: str
    source_url: str
    fetched_at: str
    last_modified: str | None
    etag: str | None

    @property
    def pin(self) -> Pin:
        """What a rack.lock says of it."""
        return Pin(
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            url=self.source_url,
            fingerprint=self.fingerprint,
            fetched_at=self.fetched_at,
        )


@dataclass(frozen=True, slots=True)
class ArchivedTarball:
    """One folder of the archive, with the ``record`` and the signature of one key."""

    folder: Path
    record: TarballRecord
    signature_name: str = SIGNATURE

    @property
    def tarball(self) -> Path:
        return self.folder / TARBALL

    @property
    def signature(self) -> Path:
        return self.folder / self.signature_name

    @property
    def signed_at(self) -> datetime | None:
        """When it was signed, as its signature says; None where that cannot be read."""
        try:
            return signed_at(kept_bytes(self.signature, SIGNATURE_BYTES))
        except (OSError, RuntimeError, ValueError):
            return None


class DamagedEntry(NotAuthentic):
    """A folder of the archive does not hold what its name and record say."""


def parse_record(data: bytes) -> TarballRecord:
    """The inverse of what ``publish`` writes. Raises JsonFault that names the field."""
    read = read_object(data)
    record = TarballRecord(
        name=read.text("name"),
        sha256=read.text("sha256"),
        size_bytes=read.integer("size_bytes"),
        fingerprint=read.text("fingerprint"),
        url=read.text("url"),
        source_url=read.text("source_url"),
        fetched_at=read.text("fetched_at"),
        last_modified=read.optional("last_modified", read.text),
        etag=read.optional("etag", read.text),
    )
    if faults := pin_faults(record.pin):
        raise JsonFault(cut(faults[0]))
    return record


def encode_record(record: TarballRecord) -> bytes:
    """The content of ``release.json``."""
    return (json.dumps(asdict(record), indent=2) + "\n").encode()


def sha256_of(path: Path, phase: Phase) -> str:
    """The SHA-256 of the file, in hex. Raises HostStorage when it cannot be read."""
    digest = hashlib.sha256()
    with host_storage(path), kept_file(path) as file:
        while block := file.read(4 * MiB):
            digest.update(block)
            phase.advance(len(block))
    return digest.hexdigest()


class Archive:
    """The folder of all releases this computer ever used."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def find(self, sha256: str, signer: str | None = None) -> ArchivedTarball | None:
        """The entry of that hash, as the key ``signer`` (a fingerprint) signed it, or as the first
        one did; None when there is none.

        Checks only what a full disk or a power cut damages: the record must be whole and the
        tarball as long as it says. ``prove`` checks every byte. Raises DamagedEntry that names
        the file.
        """
        folder = self._cache.looked_at("releases") / sha256
        if not folder.exists():
            return None
        entry = _entry(folder, RECORD, SIGNATURE)
        if signer is not None and signer != entry.record.fingerprint:
            own_record, own_signature = names_beside(signer)
            if own_record not in folder.names():
                return None
            entry = _entry(folder, own_record, own_signature)
        return entry

    def of_name(self, name: str, fingerprint: str) -> tuple[ArchivedTarball, ...]:
        """Every sound entry of that release signed by that key, newest first."""
        found = [entry for entry in self._sound(fingerprint) if entry.record.name == name]
        return tuple(sorted(found, key=lambda entry: entry.record.fetched_at, reverse=True))

    def _sound(self, signer: str) -> Iterator[ArchivedTarball]:
        for name in self._cache.looked_at("releases").names():
            if _SHA256.match(name):
                try:
                    entry = self.find(name, signer)
                except DamagedEntry:
                    continue  # ``find`` reports it when it is asked for by its hash
                if entry is not None:
                    yield entry

    def publish(self, tarball: Path, signature: bytes, record: TarballRecord) -> ArchivedTarball:
        """Move the proven ``tarball`` into the archive, unless it is there already.

        If it is there with the signature of another key, that one stays, for the racks that go by
        it, and this one is put beside it.
        """
        signer = record.fingerprint
        try:
            first, present = self.find(record.sha256), self.find(record.sha256, signer)
        except DamagedEntry:
            self.set_aside(record.sha256)
            first = present = None
        if present is not None:
            return present
        folder = self._cache.releases / record.sha256
        text = encode_record(record)
        if first is not None:
            own_record, own_signature = names_beside(signer)
            kept = self._cache.looked_at("releases") / record.sha256
            kept.write(own_signature, signature)
            kept.write(own_record, text)  # last: it is what makes them count
            return ArchivedTarball(folder, record, own_signature)
        with placed(self._cache, folder) as staged:
            write_atomically(staged / SIGNATURE, signature)
            write_atomically(staged / RECORD, text)
            tarball.chmod(0o444)
            tarball.rename(staged / TARBALL)
        # Another run may have put it there meanwhile, with the signature of another key.
        return self.find(record.sha256, signer) or self.publish(tarball, signature, record)

    def set_aside(self, sha256: str) -> Path:
        """Rename a damaged entry so that its hash is free again; returns its new name."""
        return set_aside(self._cache.looked_at("releases") / sha256)


def _entry(folder: TrustedFolder, record_name: str, signature_name: str) -> ArchivedTarball:
    """The entry that the record of that name makes of ``folder``. Raises DamagedEntry."""
    record = record_in(folder, record_name, parse_record, _damaged)
    entry = ArchivedTarball(folder.path, record, signature_name)
    if record.sha256 != folder.name:
        raise _damaged(folder.path / record_name, f"it speaks of {record.sha256[:12]}…")
    size, _ = (size_in(folder, name, _damaged) for name in (TARBALL, signature_name))
    if size != record.size_bytes:
        raise _damaged(entry.tarball, f"{size} bytes instead of {record.size_bytes}")
    return entry


def verified(entry: ArchivedTarball, name: str, models: tuple[str, ...]) -> VerifiedRelease:
    """``entry`` as a VerifiedRelease that boots ``models``, under the ``name`` by which whoever
    asks calls it: the record has the one of whoever fetched it, from another place perhaps."""
    record = entry.record
    return VerifiedRelease(
        name=name,
        models=models,
        sha256=record.sha256,
        tarball=entry.tarball,
        size_bytes=record.size_bytes,
        fingerprint=record.fingerprint,
        source_url=record.source_url,
        fetched_at=record.fetched_at,
    )


def prove(
    release: VerifiedRelease, cache: Cache, progress: Progress, key: Cert | None = None
) -> None:
    """Read every byte of an archived release and compare with its hash, before it is composed; with
    its ``key`` prove its signature, too.

    A release that fails is renamed, so that the next fetch brings it anew, and NotAuthentic
    says so. Where it is the key that fails, the release stays.
    """
    with progress.phase(f"check {release.name}", release.size_bytes) as phase:
        found = sha256_of(release.tarball, phase)
    if found != release.sha256:
        aside = Archive(cache).set_aside(release.sha256)
        raise NotAuthentic(
            f"{release.tarball} was altered since it was archived: its sha256 is {found[:12]}…",
            hint=f"run picloud-image fetch to get it anew; the altered one is kept as {aside.name}",
        )
    entry = Archive(cache).find(release.sha256, release.fingerprint) if key else None
    if key is not None and entry is not None:
        name = f"{entry.signature}"
        made = parse_signatures(kept_bytes(entry.signature, SIGNATURE_BYTES), key, name)
        verify_detached(entry.tarball, made, key, f"{entry.tarball}")


def _damaged(path: Path, why: str) -> DamagedEntry:
    return DamagedEntry(
        f"{path} is damaged: {why}",
        hint="run picloud-image fetch without --offline: it sets this aside and fetches it anew",
    )

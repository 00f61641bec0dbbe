"""Every package that was ever used, kept for good under the hash of its bytes.

In: a package whose signature was proven. Out: a folder ``<cache>/packages/<sha256>/`` with the
package, its signature and where it came from; the folder is whole or absent. The distribution keeps
no old packages, so nothing here is ever deleted. A damaged folder is renamed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import write_atomically
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonFault, read_object
from imager.base.progress import Quiet
from imager.packages.verified import VerifiedPacman
from imager.release.archive import sha256_of
from imager.release.content_store import placed, record_in, set_aside, size_in
from imager.release.lock import PacmanPin, pin_faults

RECORD = "package.json"
GET_ANEW = "run picloud-image lock to get it anew; what was here is kept as"


class DamagedPackage(NotAuthentic):
    """A folder of the archive does not hold what its name and record say."""


class PackageArchive:
    """The folder of all packages this computer ever used."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def find(self, name: str, pin: PacmanPin) -> VerifiedPacman | None:
        """The package ``name`` that ``pin`` means; None when it is not here.

        Checks only what a full disk or a power cut damages, as ``Archive.find`` does. Raises
        DamagedPackage that names the file.
        """
        folder = self._cache.looked_at("packages") / pin.sha256
        if not folder.exists():
            return None
        said, record = record_in(folder, RECORD, parse_record, _damaged)
        if (said, record.version, record.file) != (name, pin.version, pin.file):
            raise _damaged(folder.path / RECORD, f"it speaks of {said} {record.version}")
        if record.sha256 != pin.sha256:
            raise _damaged(folder.path / RECORD, f"it speaks of {record.sha256[:12]}…")
        size, _ = (size_in(folder, each, _damaged) for each in (pin.file, f"{pin.file}.sig"))
        if size != pin.size_bytes:
            raise _damaged(folder.path / pin.file, f"{size} bytes instead of {pin.size_bytes}")
        return verified(name, pin, folder.path)

    def pin_of(self, name: str, version: str, sha256: str, signer: str) -> PacmanPin | None:
        """The pin of that package, if it was proven by that key and archived before, by another
        rack or by a run that was cut short."""
        try:
            said, record = self._record(sha256)
            if (said, record.version, record.signer) != (name, version, signer):
                return None
            return record if self.find(name, record) else None
        except DamagedPackage:
            return None  # it is fetched anew, and set aside then

    def of_digest(self, sha256: str) -> VerifiedPacman | None:
        """The package whose file has that hash, if it was archived, undamaged."""
        try:
            name, pin = self._record(sha256)
            return self.find(name, pin)
        except DamagedPackage:
            return None

    def publish(self, name: str, pin: PacmanPin, file: Path, signature: bytes) -> VerifiedPacman:
        """Move the proven ``file`` into the archive, unless it is there already."""
        try:
            present = self.find(name, pin)
        except DamagedPackage:
            self.set_aside(pin.sha256)
            present = None
        if present is not None:
            return present
        folder = self._cache.packages / pin.sha256
        with placed(self._cache, folder) as staged:
            write_atomically(staged / f"{pin.file}.sig", signature)
            write_atomically(staged / RECORD, record_of(name, pin))
            file.chmod(0o444)
            file.rename(staged / pin.file)
        return verified(name, pin, folder)

    def _record(self, sha256: str) -> tuple[str, PacmanPin]:
        folder = self._cache.looked_at("packages") / sha256
        return record_in(folder, RECORD, parse_record, _damaged)

    def require_unaltered(self, package: VerifiedPacman) -> None:
        """Read every byte of the archived ``package``. One that was altered is renamed, so that it
        can be fetched anew, and DamagedPackage says so."""
        with Quiet().phase("") as phase:
            digest = sha256_of(package.path, phase)
        if digest != package.sha256:
            aside = self.set_aside(package.sha256)
            raise DamagedPackage(
                f"{package.path} was altered since it was archived: its sha256 is {digest[:12]}…",
                hint=f"{GET_ANEW} {aside.name}",
            )

    def set_aside(self, sha256: str) -> Path:
        """Rename a damaged entry so that its hash is free again; returns its new name."""
        return set_aside(self._cache.looked_at("packages") / sha256)


def verified(name: str, pin: PacmanPin, folder: Path) -> VerifiedPacman:
    """The package that ``pin`` means and that lies in ``folder`` of the archive."""
    return VerifiedPacman(
        name=name,
        version=pin.version,
        arch=pin.arch,
        file_name=pin.file,
        sha256=pin.sha256,
        size_bytes=pin.size_bytes,
        signer=pin.signer,
        path=folder / pin.file,
        signature=folder / f"{pin.file}.sig",
    )


def record_of(name: str, pin: PacmanPin) -> bytes:
    """The content of ``package.json``."""
    return (json.dumps({"name": name, **asdict(pin)}, indent=2) + "\n").encode()


def parse_record(data: bytes) -> tuple[str, PacmanPin]:
    """The inverse of ``record_of``: a name and its pin. Raises JsonFault that names the field."""
    read = read_object(data)
    pin = PacmanPin(
        version=read.text("version"),
        arch=read.text("arch"),
        file=read.text("file"),
        sha256=read.text("sha256"),
        size_bytes=read.integer("size_bytes"),
        signer=read.text("signer"),
        url=read.text("url"),
        fetched_at=read.text("fetched_at"),
    )
    if faults := pin_faults(pin):
        raise JsonFault(faults[0])
    return read.text("name"), pin


def _damaged(path: Path, why: str) -> DamagedPackage:
    return DamagedPackage(
        f"{path} is damaged: {why}",
        hint="run picloud-image lock without --offline: it sets this aside and fetches it anew",
    )

"""Every package that was ever used, kept for good under the hash of its bytes.

In: a package whose signature was proven. Out: a folder ``<cache>/packages/<sha256>/`` with the
package, its signature and where it came from; the folder is whole or absent. Where another key
signed the same bytes too, its signature and record lie beside the first. The distribution keeps no
old packages, so nothing here is ever deleted. A damaged folder is renamed: one whose package is not
what its own record or hash says. What a rack.lock says of it is no reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import write_atomically
from imager.base.errors import ConfigurationError, NotAuthentic
from imager.base.json_fields import JsonFault, read_object
from imager.base.progress import Quiet
from imager.base.text import cut
from imager.packages.verified import VerifiedPacman
from imager.release.archive import sha256_of
from imager.release.content_store import names_beside, placed, record_in, set_aside, size_in
from imager.release.lock import PacmanPin, pin_faults

RECORD = "package.json"
GET_ANEW = "run picloud-image lock to get it anew; what was here is kept as"


class DamagedPackage(NotAuthentic):
    """A folder of the archive does not hold what its name and record say."""


class WrongPin(ConfigurationError):
    """rack.lock says something of an archived package that it is not. The archive is right."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A folder of the archive, with what the ``record`` of one key says of it. ``content`` and
    ``signature`` are the names of its files."""

    folder: Path
    name: str
    record: PacmanPin
    content: str
    signature: str

    @property
    def package(self) -> VerifiedPacman:
        return VerifiedPacman(
            name=self.name,
            version=self.record.version,
            arch=self.record.arch,
            file_name=self.record.file,
            sha256=self.record.sha256,
            size_bytes=self.record.size_bytes,
            signer=self.record.signer,
            path=self.folder / self.content,
            signature=self.folder / self.signature,
        )


class PackageArchive:
    """The folder of all packages this computer ever used."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def find(self, name: str, pin: PacmanPin) -> VerifiedPacman | None:
        """The package ``name`` that ``pin`` means; None when it is not here, or not signed by the
        pin's key. The signature was verified when it came in.

        Checks only what a full disk or a power cut damages, as ``Archive.find`` does. Raises
        DamagedPackage that names the file, WrongPin where ``pin`` says something else of the bytes
        than they are. The name of the file is where a mirror has it, and may be another one.
        """
        kept = self._kept(pin.sha256, pin.signer)
        if kept is None:
            return None
        _require_right(name, pin, kept)
        return kept.package

    def pin_of(self, name: str, version: str, sha256: str, signer: str) -> PacmanPin | None:
        """The pin of that package, if it was proven by that key and archived before, by another
        rack or by a run that was cut short."""
        try:
            kept = self._kept(sha256, signer)
        except DamagedPackage:
            return None  # it is fetched anew, and set aside then
        if kept is None or (kept.name, kept.record.version) != (name, version):
            return None
        return kept.record

    def of_digest(self, sha256: str) -> VerifiedPacman | None:
        """The package whose file has that hash, if it was archived, undamaged; as the first key
        signed it."""
        try:
            kept = self._kept(sha256)
        except DamagedPackage:
            return None
        return kept.package if kept else None

    def publish(self, name: str, pin: PacmanPin, file: Path, signature: bytes) -> VerifiedPacman:
        """Move the proven ``file`` into the archive, unless it is there already.

        If it is there with the signature of another key, that one stays, for the racks that go by
        it, and this one is put beside it.
        """
        try:
            first, present = self._kept(pin.sha256), self._kept(pin.sha256, pin.signer)
        except DamagedPackage:
            self.set_aside(pin.sha256)
            first = present = None
        if present is not None:
            return present.package
        if first is None and (self._cache.looked_at("packages") / pin.sha256).exists():
            self.set_aside(pin.sha256)  # its record is gone
        folder, record = self._cache.packages / pin.sha256, record_of(name, pin)
        if first is not None:
            own_record, own_signature = names_beside(pin.signer)
            beside = self._cache.looked_at("packages") / pin.sha256
            beside.write(own_signature, signature)
            beside.write(own_record, record)  # last: it is what makes them count
            return _Kept(folder, name, pin, first.content, own_signature).package
        with placed(self._cache, folder) as staged:
            write_atomically(staged / f"{pin.file}.sig", signature)
            write_atomically(staged / RECORD, record)
            file.chmod(0o444)
            file.rename(staged / pin.file)
        # Another run may have put it there meanwhile, with the signature of another key.
        kept = self._kept(pin.sha256, pin.signer)
        return kept.package if kept else self.publish(name, pin, file, signature)

    def _kept(self, sha256: str, signer: str | None = None) -> _Kept | None:
        """The folder of that hash, as the key ``signer`` signed it, or as the first one did; None
        when there is none. Raises DamagedPackage."""
        folder = self._cache.looked_at("packages") / sha256
        if RECORD not in folder.names():
            return None  # what PyPI published lies in folders like this, and has no record
        name, first = record_in(folder, RECORD, parse_record, _damaged)
        record, record_name, signature = first, RECORD, f"{first.file}.sig"
        if signer not in (None, first.signer):
            record_name, signature = names_beside(signer)
            if record_name not in folder.names():
                return None
            name, record = record_in(folder, record_name, parse_record, _damaged)
        if record.sha256 != sha256:
            raise _damaged(folder.path / record_name, f"it speaks of {record.sha256[:12]}…")
        size, _ = (size_in(folder, each, _damaged) for each in (first.file, signature))
        if size != record.size_bytes:
            path = folder.path / first.file
            raise _damaged(path, f"{size} bytes instead of {record.size_bytes}")
        return _Kept(folder.path, name, record, first.file, signature)

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


def _require_right(name: str, pin: PacmanPin, kept: _Kept) -> None:
    """Raise WrongPin unless what ``pin`` says of the bytes is so: the package said its name,
    version and architecture itself when it was proven."""
    record = kept.record
    for what, pinned, right in (
        ("name", name, kept.name),
        ("version", pin.version, record.version),
        ("arch", pin.arch, record.arch),
        ("size_bytes", pin.size_bytes, record.size_bytes),
    ):
        if pinned != right:
            raise WrongPin(
                f"rack.lock pins a {name} whose {what} is {pinned}, and the package with that "
                f"sha256 ({pin.sha256[:12]}…) has {right}",
                hint="take its last good state from git, or run picloud-image lock --update "
                f"{name} (without a name, all may move)",
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
        raise JsonFault(cut(faults[0]))
    return read.text("name"), pin


def _damaged(path: Path, why: str) -> DamagedPackage:
    return DamagedPackage(
        f"{path} is damaged: {why}",
        hint="run picloud-image lock without --offline: it sets this aside and fetches it anew",
    )

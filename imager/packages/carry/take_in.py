"""A carried file becomes entries of the archive: each proven as a fetch would prove it.

In: an opened file, and the keys that the rack pins. Out: folders of the archive. All is read and
proven in a private folder first; where anything is wrong, nothing of the file stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.durable import host_storage
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonFault
from imager.packages.carry.carried import CarriedEntry, CarriedFile
from imager.packages.carry.entries import Entry, found
from imager.packages.fetch.alone import alone
from imager.packages.fetch.archive import PackageArchive, record_of
from imager.packages.fetch.package import require_itself
from imager.release.archive import Archive, TarballRecord, encode_record, parse_record
from imager.release.lock import PackagePin, PacmanPin, Pin
from imager.release.openpgp import parse_signatures, verify_detached
from imager.release.salt.salt import publish
from imager.release.terms import FetchTerms

_AGAIN = "do not use this file; get it again from where it was exported"


@dataclass(frozen=True, slots=True)
class _Staged:
    """A proven entry in the private folder."""

    entry: Entry
    content: Path
    signature: bytes
    record: TarballRecord | None


def check(file: CarriedFile, terms: FetchTerms) -> None:
    """Read all of ``file`` and compare hashes; keep nothing. Raises as ``take_in``, but looks at no
    signature."""
    with terms.progress.phase(f"read {file.path.name}", _total(file)) as phase:
        for carried in file.entries:
            file.read(carried, _drop, phase)
        file.end()


def take_in(
    file: CarriedFile, wanted: Collection[Entry], keys: Mapping[str, Cert], terms: FetchTerms
) -> None:
    """Put those entries of ``file`` that are ``wanted`` into the archive; all of it is read.

    ``keys`` has the certificate of each signer, by its fingerprint. Raises NotAuthentic that names
    what was altered or is signed otherwise, MalformedRelease for a file that is not whole,
    HostStorage, Interrupted.
    """
    with terms.cache.work_folder("import") as work:
        staged: list[_Staged] = []
        with terms.progress.phase(f"prove {file.path.name}", _total(file)) as phase:
            for number, carried in enumerate(file.entries):
                if carried.entry not in wanted:
                    file.read(carried, _drop, phase)
                    continue
                folder = work / str(number)
                path = folder / carried.file
                with host_storage(path):
                    folder.mkdir()
                    with path.open("xb") as out:
                        beside = file.read(carried, out.write, phase)
                staged.append(_proven(file, carried, path, beside, keys))
            file.end()
        with alone(terms):
            for each in staged:
                _publish(each, terms)


def _proven(
    file: CarriedFile,
    carried: CarriedEntry,
    path: Path,
    beside: tuple[bytes, ...],
    keys: Mapping[str, Cert],
) -> _Staged:
    entry, pin = carried.entry, carried.entry.pin
    if isinstance(pin, PackagePin):
        return _Staged(entry, path, b"", None)  # its hash, which was compared, is all there is
    record, signature = beside
    key = keys[entry.signer or ""]
    where = f"{file.path}: {entry.folder}"
    signed = f"{where}/{carried.file}"
    proof = _verified(path, signature, key, f"{where}/{entry.beside[1]}", signed)
    if isinstance(pin, PacmanPin):
        if record != record_of(entry.name, pin):
            raise _altered(f"{where}/{entry.beside[0]}", "it is not what its rack.lock says")
        require_itself(path, entry.name, pin.version, pin.arch, signed)
        return _Staged(entry, path, proof, None)
    return _Staged(entry, path, proof, _release_record(record, pin, f"{where}/release.json"))


def _verified(content: Path, signature: bytes, key: Cert, signature_name: str, name: str) -> bytes:
    """The one in ``signature`` that ``key`` made over ``content``; NotAuthentic, which says the
    names that are given, where there is none. What else is in it proves nothing, and may claim
    another time."""
    made = parse_signatures(signature, key, signature_name)
    try:
        return bytes(verify_detached(content, made, key, name))
    except NotAuthentic:
        if key.is_revoked:
            raise
        raise _altered(name, f"the key {key.fingerprint.upper()} did not sign it") from None


def _release_record(data: bytes, pin: Pin, where: str) -> TarballRecord:
    try:
        record = parse_record(data)
    except JsonFault as error:
        raise _altered(where, str(error)) from None
    said = (record.sha256, record.size_bytes, record.fingerprint)
    if said != (pin.sha256, pin.size_bytes, pin.fingerprint) or data != encode_record(record):
        raise _altered(where, "it is not what its rack.lock says")
    return record


def _publish(staged: _Staged, terms: FetchTerms) -> None:
    """Move it into the archive, unless another run has put it there meanwhile."""
    entry, cache = staged.entry, terms.cache
    match entry.pin:
        case Pin():
            if staged.record is None:
                raise AssertionError("a release was staged without its record")
            Archive(cache).publish(staged.content, staged.signature, staged.record)
        case PacmanPin() as pin:
            PackageArchive(cache).publish(entry.name, pin, staged.content, staged.signature)
        case PackagePin():
            if found(entry, cache) is None:
                publish(staged.content, entry.name, cache)


def _total(file: CarriedFile) -> int:
    return sum(carried.entry.size_bytes for carried in file.entries)


def _drop(_: bytes) -> None:
    pass


def _altered(name: str, why: str) -> NotAuthentic:
    return NotAuthentic(f"{name}: {why}", hint=_AGAIN)

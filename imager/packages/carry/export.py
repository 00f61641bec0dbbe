"""All that a rack.lock pins, written into one file.

In: a rack.lock whose every entry is in the archive, and the keys that signed them. Out: a file that
is there whole or not at all. What goes into it is proven first, so that nobody finds out a year
later; the same pins from the same archive give the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pysequoia import Cert

from imager.base.cache import Cache
from imager.base.durable import fsync_folder, host_storage, write_all
from imager.base.errors import HostStorage, NetworkError, NotAuthentic, TargetRefused
from imager.base.ownership import give_to
from imager.base.progress import Progress, Quiet
from imager.base.trusted_folder import kept_bytes, kept_file
from imager.base.units import MiB
from imager.packages.carry.entries import FoundEntry, entries_of, found
from imager.packages.carry.form import END, LOCK, SUMS, encode_sums, header, key_member, padding
from imager.packages.fetch.archive import PackageArchive
from imager.release.archive import SIGNATURE_BYTES, Archive, sha256_of
from imager.release.lock import Pin, RackLock, encode_lock
from imager.release.openpgp import parse_signatures, verify_detached

_BLOCK = 4 * MiB
_GET_ANEW = "run picloud-image fetch to get it anew, then export again"


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that was written; ``sha256`` is of all of it."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    content: bytes | Path
    size_bytes: int
    sha256: str


def all_found(lock: RackLock, cache: Cache) -> tuple[FoundEntry, ...]:
    """What ``lock`` pins, as it lies in the archive.

    Raises NetworkError that names what is not there, NotAuthentic for what is damaged.
    """
    looked = [(entry, found(entry, cache)) for entry in entries_of(lock)]
    missing = [entry for entry, here in looked if here is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NetworkError(
            f"{missing[0].called}{more}, which {lock.path} pins, is not in {cache.root}",
            hint="run picloud-image fetch, then export again",
            details=[f"{entry.called}: sha256 {entry.sha256}" for entry in missing],
        )
    return tuple(here for _, here in looked if here is not None)


def require_free(path: Path, *, replace: bool) -> None:
    """Raise TargetRefused where ``path`` is there and is not to be replaced, or is no file."""
    with host_storage(path):
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise TargetRefused(f"{path} is no file", hint="name a new file, such as rack.tar")
        if os.path.lexists(path) and not replace:
            raise TargetRefused(
                f"{path} is there already",
                hint="name another file, or say --replace",
            )


def prove(
    entries: Sequence[FoundEntry], keys: Mapping[str, Cert], cache: Cache, progress: Progress
) -> None:
    """Read everything and check each signature. Raises NotAuthentic that names the file; one that
    was altered since it was archived is renamed, so that it can be fetched anew."""
    signed = [(each, each.signature) for each in entries]
    total = sum(each.entry.size_bytes for each, signature in signed if signature)
    with progress.phase("prove archive", total) as phase:
        for each, signature in signed:
            if signature is not None:
                key = keys[each.entry.signer or ""]
                made = parse_signatures(kept_bytes(signature, SIGNATURE_BYTES), key, str(signature))
                try:
                    verify_detached(each.content, made, key)
                except NotAuthentic:
                    _require_unaltered(each, cache)
                    raise
                phase.advance(each.entry.size_bytes)


def _require_unaltered(each: FoundEntry, cache: Cache) -> None:
    with Quiet().phase("") as phase:
        digest = sha256_of(each.content, phase)
    if digest != each.entry.sha256:
        archive = Archive(cache) if isinstance(each.entry.pin, Pin) else PackageArchive(cache)
        aside = archive.set_aside(each.entry.sha256)
        raise _altered(each.content, digest, f"{_GET_ANEW}; what was here is kept as {aside.name}")


def _altered(path: Path, digest: str, hint: str) -> NotAuthentic:
    return NotAuthentic(
        f"{path} was altered since it was archived: its sha256 is {digest[:12]}…", hint=hint
    )


def export(
    lock: RackLock,
    entries: Sequence[FoundEntry],
    keys: Mapping[str, Cert],
    path: Path,
    progress: Progress,
    *,
    replace: bool = False,
) -> ExportedFile:
    """Write ``entries``, all of ``lock``, to ``path``, with the ``keys`` by fingerprint.

    Raises NotAuthentic where something has not the hash that rack.lock pins, TargetRefused as
    ``require_free``, HostStorage; there is then no new file.
    """
    require_free(path, replace=replace)
    members = list(_members(lock, entries, keys))
    sums = encode_sums({member.name: member.sha256 for member in members})
    members.insert(0, _Member(SUMS, sums, len(sums), ""))
    with _written(path, replace=replace) as descriptor:
        digest = hashlib.sha256()

        def put(data: bytes) -> None:
            digest.update(data)
            write_all(descriptor, data)

        with progress.phase(
            f"write {path.name}", sum(each.size_bytes for each in members)
        ) as phase:
            for member in members:
                put(header(member.name, member.size_bytes))
                for block in _blocks(member):
                    put(block)
                    phase.advance(len(block))
                put(padding(member.size_bytes))
            put(END)
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
    return ExportedFile(size, digest.hexdigest())


def _members(
    lock: RackLock, entries: Sequence[FoundEntry], keys: Mapping[str, Cert]
) -> Iterator[_Member]:
    yield _small(LOCK, encode_lock(lock.all_pins()).encode())
    for fingerprint in sorted(keys):
        yield _small(key_member(fingerprint), str(keys[fingerprint]).encode())
    for each in entries:
        entry = each.entry
        if each.signature is not None:
            record, signature = entry.beside
            yield _small(f"{entry.folder}/{record}", each.record)
            made = kept_bytes(each.signature, SIGNATURE_BYTES)
            yield _small(f"{entry.folder}/{signature}", made)
        name = f"{entry.folder}/{entry.content or each.content.name}"
        yield _Member(name, each.content, entry.size_bytes, entry.sha256)


def _small(name: str, data: bytes) -> _Member:
    return _Member(name, data, len(data), hashlib.sha256(data).hexdigest())


def _blocks(member: _Member) -> Iterator[bytes]:
    """The content of a member, exactly as long as it should be and with the hash it should have."""
    if isinstance(member.content, bytes):
        yield member.content
        return
    digest, left = hashlib.sha256(), member.size_bytes
    with host_storage(member.content), kept_file(member.content) as file:
        while block := file.read(min(left, _BLOCK)):
            left -= len(block)
            digest.update(block)
            yield block
    if left or digest.hexdigest() != member.sha256:
        raise _altered(member.content, digest.hexdigest(), _GET_ANEW)


@contextmanager
def _written(path: Path, *, replace: bool) -> Iterator[int]:
    """A descriptor of a new file that becomes ``path`` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _room(path):
        descriptor = os.open(temporary, flags, 0o644)
        try:
            try:
                give_to(descriptor, path.parent.stat())
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            require_free(path, replace=replace)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """As ``host_storage``, with what to do about a full disk that holds no cache."""
    try:
        with host_storage(path):
            yield
    except HostStorage as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or name a file on another disk"
            raise HostStorage(f"{path}: {os.strerror(cause.errno)}", hint=hint) from cause
        raise

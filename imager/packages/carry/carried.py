"""A file that ``archive export`` wrote, or that says so: opened, and read once from its beginning.

In: a path; the file may be a stranger's. Out: its rack.lock, its keys, and then each entry in turn.
How much there may be of anything follows from its rack.lock and from the size of the file, before
it is read. Nothing here is trusted yet: that a content has the hash it is called by proves only
that it is whole.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.below import NotUsed, named
from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, MalformedRelease, NotAuthentic, PicloudError
from imager.base.progress import Phase
from imager.base.text import cut
from imager.base.units import MiB
from imager.packages.carry import form
from imager.packages.carry.entries import LARGEST_CONTENT, Entry, entries_of
from imager.release.lock import RackLock, parse_lock
from imager.release.salt.salt import version_in

_BLOCK = 4 * MiB
_AGAIN = "get the file again from where it was exported"
Write = Callable[[bytes], object]


class _Stream:
    """The members of the file, one after another."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.position = 0
        self.sums: dict[str, str] = {}
        self._descriptor = descriptor

    def small(self, name: str, most: int) -> bytes:
        """The content of the member ``name``, which comes next and has ``most`` bytes at most."""
        pieces: list[bytes] = []
        self._content(name, self._begin(name, most), pieces.append)
        return b"".join(pieces)

    def large(self, name: str, size: int, write: Write) -> None:
        """Give the content of the member ``name``, which comes next and has that size, to
        ``write``."""
        if self._begin(name, size) != size:
            raise self.broken(f"{name} has not the {size} bytes that its rack.lock pins")
        self._content(name, size, write)

    def end(self) -> None:
        """Raise unless the file ends here."""
        if self._take(len(form.END), "its end") != form.END or os.read(self._descriptor, 1):
            raise self.broken(f"more follows where it should end, at byte {self.position}")

    def broken(self, why: str) -> PicloudError:
        """The error for a file that cannot have been exported so."""
        return MalformedRelease(f"{self.path}: {why}", hint=_AGAIN)

    def _begin(self, name: str, most: int) -> int:
        """Read the header of the member ``name``; its size."""
        at, length = self.position, len(form.header(name, 0))
        head = self._take(length, name)
        try:
            size = form.size_in(head)
        except ValueError:
            size = -1
        if size < 0 or head != form.header(name, size):
            if not at:
                what = f"{self.path} is no file that picloud-image archive export wrote"
                raise MalformedRelease(what, hint="name such a file")
            raise self.broken(f"at byte {at} there is something else than {name}")
        if size > most:
            raise self.broken(f"{name} has {size} bytes, and may have {most}")
        return size

    def _content(self, name: str, size: int, write: Write) -> None:
        digest, left = hashlib.sha256(), size
        while left:
            block = self._take(min(left, _BLOCK), name)
            digest.update(block)
            write(block)
            left -= len(block)
        if self._take(-size % form.BLOCK_BYTES, name).strip(b"\0"):
            raise self.broken(f"something is hidden behind {name}, before byte {self.position}")
        expected = self.sums.get(name)
        if expected is not None and digest.hexdigest() != expected:
            raise NotAuthentic(
                f"{self.path}: {name} was altered: its sha256 is {digest.hexdigest()[:12]}… "
                f"instead of {expected[:12]}…",
                hint=_AGAIN,
            )

    def _take(self, length: int, name: str) -> bytes:
        pieces = []
        with host_storage(self.path):
            while length and (piece := os.read(self._descriptor, length)):
                pieces.append(piece)
                length -= len(piece)
                self.position += len(piece)
        if length:
            raise self.broken(f"it ends at byte {self.position}, in the middle of {name}")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True, slots=True)
class CarriedEntry:
    """One of the entries, and the name of the file with its content."""

    entry: Entry
    file: str


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """An opened file: what its rack.lock says, and the keys it brings, by fingerprint. The entries
    follow, and can be read once, in their order."""

    path: Path
    lock: RackLock
    entries: tuple[CarriedEntry, ...]
    keys: Mapping[str, bytes]
    stream: _Stream

    def read(self, carried: CarriedEntry, write: Write, phase: Phase) -> tuple[bytes, ...]:
        """Read the entry that comes next and give its content to ``write``. Returns its record and
        signature; nothing for what has none.

        Raises NotAuthentic for what was altered, MalformedRelease for what is not as it was
        exported; what was given to ``write`` is then worth nothing.
        """
        entry = carried.entry
        beside = tuple(
            self.stream.small(f"{entry.folder}/{name}", form.LARGEST_SMALL) for name in entry.beside
        )

        def counted(block: bytes) -> None:
            write(block)
            phase.advance(len(block))

        self.stream.large(f"{entry.folder}/{carried.file}", entry.size_bytes, counted)
        return beside

    def end(self) -> None:
        """Raise MalformedRelease unless all was read."""
        self.stream.end()


@contextmanager
def opened(path: Path, known: Collection[str]) -> Iterator[CarriedFile]:
    """The file at ``path``, until the block ends. ``known`` are the fingerprints of the keys that
    the rack itself names.

    Raises ConfigurationError for what is no regular file, MalformedRelease for one that was not
    written by ``archive export`` or is not whole, NotAuthentic, also for anything that another key
    signed, HostStorage.
    """
    with host_storage(path):
        try:
            descriptor = named(path, stat.S_ISREG)
        except NotUsed:
            raise ConfigurationError(
                f"{path} is no regular file", hint="name a file that archive export wrote"
            ) from None
    try:
        size_bytes = os.fstat(descriptor).st_size
        yield _begun(_Stream(path, descriptor), size_bytes, known)
    finally:
        os.close(descriptor)


def _begun(stream: _Stream, size_bytes: int, known: Collection[str]) -> CarriedFile:
    """Read what comes before the entries. All of it stays in memory, so what the file has of keys
    is not read before it is clear that the rack goes by each of them."""
    try:
        sums = form.parse_sums(stream.small(form.SUMS, form.LARGEST_SUMS))
    except ValueError as error:
        raise stream.broken(str(error)) from None
    stream.sums = sums
    pins, faults = parse_lock(stream.small(form.LOCK, form.LARGEST_LOCK))
    if faults:
        raise stream.broken(f"its {form.LOCK} is wrong: {cut(faults[0])}")
    lock = RackLock.of(stream.path, pins)
    entries = entries_of(lock)
    for entry in entries:
        if entry.size_bytes > LARGEST_CONTENT[entry.kind]:
            raise stream.broken(f"{entry.called} claims {entry.size_bytes} bytes")
    claimed = sum(entry.size_bytes for entry in entries)
    if claimed > size_bytes:
        raise stream.broken(f"it has {size_bytes} bytes, and its {form.LOCK} speaks of {claimed}")
    _require_known(stream.path, entries, known)
    signers = sorted({entry.signer for entry in entries if entry.signer})
    carried = _carried(stream, entries)
    _require_members(stream, carried, signers)
    keys = {signer: stream.small(form.key_member(signer), form.LARGEST_KEY) for signer in signers}
    return CarriedFile(stream.path, lock, carried, keys, stream)


def _require_known(path: Path, entries: Iterable[Entry], known: Collection[str]) -> None:
    """Raise unless the rack itself names each key that signed something: what a stranger's file
    says of that is no reason to trust it."""
    for entry in entries:
        if entry.signer is not None and entry.signer not in known:
            raise NotAuthentic(
                f"{path}: {entry.called} is signed by the key {entry.signer}, which this rack does "
                "not name",
                hint="if you trust it, name it as signing_key under [release] in rack.toml",
            )


def _carried(stream: _Stream, entries: Iterable[Entry]) -> tuple[CarriedEntry, ...]:
    """The entries, each with the file that holds it; of a Python package rack.lock does not say
    which one that is."""
    files: dict[str, list[str]] = {}
    for name in stream.sums:
        folder, _, file = name.rpartition("/")
        files.setdefault(folder, []).append(file)
    return tuple(
        CarriedEntry(
            entry,
            entry.content
            or next(
                (
                    file
                    for file in files.get(entry.folder, ())
                    if version_in(file, entry.name) == entry.version
                ),
                "?",
            ),
        )
        for entry in entries
    )


def _require_members(
    stream: _Stream, entries: Iterable[CarriedEntry], signers: Iterable[str]
) -> None:
    """Raise unless SHA256SUMS names exactly the files that belong to the entries, in their order,
    and each content by the hash that rack.lock pins."""
    expected = [form.LOCK, *(form.key_member(signer) for signer in signers)]
    for carried in entries:
        entry = carried.entry
        content = f"{entry.folder}/{carried.file}"
        expected += [*(f"{entry.folder}/{name}" for name in entry.beside), content]
        if content not in stream.sums:
            raise stream.broken(f"{entry.called}, which its {form.LOCK} pins, is not in it")
        if stream.sums[content] != entry.sha256:
            raise NotAuthentic(
                f"{stream.path}: {content} is not what its {form.LOCK} pins", hint=_AGAIN
            )
    known = set(expected)
    for name in stream.sums:
        if name not in known:
            raise stream.broken(f"its {form.LOCK} does not speak of {name}")
    if list(stream.sums) != expected:
        raise stream.broken(f"{form.SUMS} does not name what its {form.LOCK} pins, in that order")

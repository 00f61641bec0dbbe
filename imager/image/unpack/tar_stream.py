"""A release tarball is read once: unpacked and hashed at the same time.

In: a tarball and its hash. Out: its members one by one, through a file object for ``tarfile`` that
can only be read forward. The very bytes that are unpacked are hashed. So a file that was damaged in
the archive is noticed, and it is not mistaken for a release that was malformed from the beginning.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from imager.base.durable import host_storage, write_all
from imager.base.errors import HostStorage, MalformedRelease, NotAuthentic
from imager.base.progress import Phase
from imager.base.trusted_folder import kept_file
from imager.base.units import GiB, MiB, align_up, format_size
from imager.image.unpack.inflate import GZIP_MAGIC, Inflater, PackingError, Unpack, gunzipped

_LARGEST = 64 * GiB
"""More than any release: gzip makes a thousand bytes of one."""
_LARGEST_HEADER = 16 * MiB
"""tarfile reads a whole extended header into memory; a normal one is much shorter than this."""
MOST_MEMBERS = 400_000
"""The base system of the distribution has some 50,000, a whole desktop 300,000. Every member takes
time, so an archive of empty ones would be small and take hours."""
_BLOCK = tarfile.BLOCKSIZE
_CANNOT_HOLD = (errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EOPNOTSUPP)
_COMPRESSIONS = {
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
HINT = "this release cannot become a card: choose another, and tell whoever publishes it"


class TarStream:
    """The unpacked archive, which can only be read forward; ``last_block`` is the last block that
    ``tarfile`` read."""

    def __init__(
        self, next_chunk: Callable[[], bytes], tarball: Path, most_bytes: int = _LARGEST
    ) -> None:
        self._next_chunk = next_chunk
        self._tarball = tarball
        self._most = most_bytes
        self._chunk = memoryview(b"")
        self._position = 0
        self.last_block = b""

    def _available(self) -> int:
        """How many bytes can be taken at once; gets the next chunk when there are none. 0 at the
        end of the stream."""
        if not self._chunk:
            if self._position > self._most:
                raise MalformedRelease(
                    f"{self._tarball}: it unpacks to more than {format_size(self._most)}", hint=HINT
                )
            self._chunk = memoryview(self._next_chunk())
        return len(self._chunk)

    def _take(self, length: int) -> memoryview:
        """Up to ``length`` of the bytes that can be taken at once."""
        taken = self._chunk[:length]
        self._chunk = self._chunk[length:]
        self._position += len(taken)
        return taken

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Go forward to byte ``position``; going back is an error."""
        if position < self._position:
            raise OSError("a tar stream cannot go back")
        while self._position < position and self._available():
            self._take(position - self._position)
        return self._position

    def read(self, length: int) -> bytes:
        """The next ``length`` bytes, fewer at the end; for headers, not for content."""
        if not 0 <= length <= _LARGEST_HEADER:
            raise MalformedRelease(
                f"{self._tarball}: a header before byte {self._position} claims {length} bytes",
                hint=HINT,
            )
        parts = []
        while length and self._available():
            part = bytes(self._take(length))
            parts.append(part)
            length -= len(part)
        self.last_block = b"".join(parts)
        return self.last_block

    def copy_to(self, descriptor: int, length: int) -> None:
        """Write the next ``length`` bytes to ``descriptor``; MalformedRelease when they end."""
        while length:
            if not self._available():
                raise MalformedRelease(
                    f"{self._tarball}: the archive ends at its byte {self._position},"
                    f" {length} bytes before the end of a file",
                    hint=HINT,
                )
            part = self._take(length)
            write_all(descriptor, part)
            length -= len(part)

    def expect_only_padding(self) -> None:
        """Read to the end of the stream; MalformedRelease for anything but zeros."""
        while count := self._available():
            start = self._position
            if any(self._take(count)):
                raise MalformedRelease(
                    f"{self._tarball}: data follows the end of the archive, after byte {start}",
                    hint=HINT,
                )


@contextmanager
def unpacked(
    tarball: Path,
    sha256: str,
    phase: Phase,
    unpack: Unpack | None = None,
    most_bytes: int = _LARGEST,
) -> Iterator[TarStream]:
    """The archive ``tarball`` as a stream of ``most_bytes`` at most; ``phase`` counts its
    compressed bytes. It must be a gzip file, unless ``unpack`` says how else it is packed. Ends and
    raises as ``unpacked_by`` does.
    """
    if unpack is None:
        _check_compression(tarball)
    inflater = Inflater(tarball, phase, unpack or gunzipped)
    try:
        inflater.start()
        with unpacked_by(inflater, tarball, sha256, most_bytes) as stream:
            yield stream
    finally:
        inflater.cancel()


@contextmanager
def unpacked_by(
    inflater: Inflater, tarball: Path, sha256: str, most_bytes: int = _LARGEST
) -> Iterator[TarStream]:
    """What ``inflater``, which is at work, makes of ``tarball``, as a stream of ``most_bytes`` at
    most.

    If the block ends without an error, the stream was read to its end, its checksums are right, and
    the tarball still has the hash ``sha256``. Raises MalformedRelease, or NotAuthentic when the
    archived file was changed.
    """
    try:
        stream = TarStream(inflater.next_chunk, tarball, most_bytes)
        yield stream
        stream.expect_only_padding()
        _check_digest(inflater.digest(), tarball, sha256)
    except (MalformedRelease, PackingError) as error:
        # Damage on this computer's disk looks like a malformed release; the hash shows which it is.
        inflater.abandon()
        _check_digest(inflater.digest(), tarball, sha256)
        if isinstance(error, PackingError):
            raise MalformedRelease(f"{tarball}: {error}", hint=HINT) from error
        raise
    finally:
        inflater.cancel()


def read_members(
    stream: TarStream, tarball: Path, take: Callable[[tarfile.TarInfo, TarStream], None]
) -> None:
    """Hand ``take`` every member of the archive, which may read its content from the stream.

    Raises MalformedRelease for an archive that is not whole, and what ``take`` raises.
    """
    try:
        archive = tarfile.open(  # noqa: SIM115 - it holds nothing that needs closing
            fileobj=stream,  # type: ignore[call-overload]
            mode="r:",
            encoding="utf-8",
            errors="surrogateescape",
        )
        count = 0
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile keeps every header otherwise
            count += 1
            if count > MOST_MEMBERS:
                raise _broken_at(stream, tarball, f"it has more than {MOST_MEMBERS} members")
            _mend_sparse(archive, info)
            with _name_fits_here(info.name):
                take(info, stream)
    except PackingError:
        raise
    except RecursionError as error:
        # tarfile calls itself for each further header that speaks of the same file.
        raise _broken_at(stream, tarball, "too many headers for one file") from error
    except (tarfile.TarError, ValueError, IndexError, OverflowError) as error:
        raise _broken_at(stream, tarball, str(error)) from error
    # tarfile takes a header that it cannot read for the end of the archive; tar does not.
    if len(stream.last_block) < _BLOCK:
        raise _broken_at(stream, tarball, "it stops without an end mark")
    if any(stream.last_block):
        raise _broken_at(stream, tarball, "a header's checksum is wrong")


def _mend_sparse(archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
    """Give a sparse file its own size and the archive its next place. A ``size`` record is the
    size of what is stored (GNU tar manual, "Storing Sparse Files"); tarfile takes it for the file's
    where it stands behind the sparse ones, and steps too far."""
    stored = cast("list[tuple[int, int]] | None", info.sparse)
    if stored is None or "size" not in info.pax_headers:
        return
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        if key in info.pax_headers:
            info.size = int(info.pax_headers[key])
            length = sum(length for _, length in stored)
            archive.offset = info.offset_data + align_up(length, _BLOCK)
            return


@contextmanager
def _name_fits_here(name: str) -> Iterator[None]:
    """Raise HostStorage where a name is impossible only on this computer's filesystem: one that
    ignores case, wants UTF-8, or encrypts names and so makes them longer."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_HOLD:
            raise
        raise HostStorage(
            f"the filesystem of this computer cannot hold {name!r}: {os.strerror(error.errno)}",
            hint="put the cache on an ordinary ext4, xfs or btrfs filesystem with --cache DIR",
        ) from error


def _broken_at(stream: TarStream, tarball: Path, reason: str) -> MalformedRelease:
    return MalformedRelease(
        f"{tarball}: not a sound tar archive at its byte {stream.tell()}: {reason}", hint=HINT
    )


def _check_compression(tarball: Path) -> None:
    with host_storage(tarball), kept_file(tarball) as file:
        magic = file.read(8)
    if magic.startswith(GZIP_MAGIC):
        return
    other = next((name for head, name in _COMPRESSIONS.items() if magic.startswith(head)), None)
    raise MalformedRelease(
        f"{tarball}: compressed with {other}" if other else f"{tarball}: not a gzip file",
        hint="a release is a .tar.gz; its first two bytes are 1F 8B",
    )


def _check_digest(digest: str, tarball: Path, sha256: str) -> None:
    if digest != sha256:
        raise NotAuthentic(
            f"{tarball}: its SHA-256 is {digest}, not {sha256} as when fetched",
            hint="run the same command again: what is altered is set aside and fetched anew",
        )

"""A release tarball unpacked as it is read: one pass, hashed on the way, whole or refused.

In: a VerifiedRelease. Out: a file object under ``tarfile`` that only goes forward. The bytes
unpacked are the bytes that are hashed, so an archive that decayed since its fetch is found out,
and told from one that was malformed when it was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.durable import host_storage, write_all
from imager.base.errors import MalformedRelease, NotAuthentic
from imager.base.progress import Phase
from imager.base.units import MiB
from imager.image.inflate import GZIP_MAGIC, GzipError, Inflater
from imager.release.verified import VerifiedRelease

_LARGEST_HEADER = 16 * MiB
"""tarfile reads a whole extended header at once; no honest one is nearly this long."""
_COMPRESSIONS = {
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
HINT = "this release cannot become a card: choose another, and tell whoever publishes it"


class TarStream:
    """The unpacked archive, read forward only; ``last_block`` is what ``tarfile`` read last."""

    def __init__(self, next_chunk: Callable[[], bytes], tarball: Path) -> None:
        self._next_chunk = next_chunk
        self._tarball = tarball
        self._chunk = memoryview(b"")
        self._position = 0
        self.last_block = b""

    def _available(self) -> int:
        """Bytes at hand, fetched when there are none; 0 at the end of the stream."""
        if not self._chunk:
            self._chunk = memoryview(self._next_chunk())
        return len(self._chunk)

    def _take(self, length: int) -> memoryview:
        """Up to ``length`` of the bytes at hand."""
        taken = self._chunk[:length]
        self._chunk = self._chunk[length:]
        self._position += len(taken)
        return taken

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Go forward to byte ``position``; there is no way back."""
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
def unpacked(release: VerifiedRelease, phase: Phase) -> Iterator[TarStream]:
    """The archive in ``release`` as a stream; ``phase`` counts its compressed bytes.

    Leaving the block in peace means: the stream was read to its end, its checksums are right, and
    the tarball still has the SHA-256 it was signed with. Raises MalformedRelease, or NotAuthentic
    when the reason is that the archived file changed.
    """
    _check_compression(release.tarball)
    inflater = Inflater(release.tarball, phase)
    try:
        inflater.start()
        stream = TarStream(inflater.next_chunk, release.tarball)
        yield stream
        stream.expect_only_padding()
        _check_digest(inflater.digest(), release)
    except (MalformedRelease, GzipError) as error:
        # Damage on our own disk looks like a malformed release; the hash tells them apart.
        inflater.abandon()
        _check_digest(inflater.digest(), release)
        if isinstance(error, GzipError):
            raise MalformedRelease(f"{release.tarball}: {error}", hint=HINT) from error
        raise
    finally:
        inflater.cancel()


def _check_compression(tarball: Path) -> None:
    with host_storage(tarball), tarball.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(GZIP_MAGIC):
        return
    other = next((name for head, name in _COMPRESSIONS.items() if magic.startswith(head)), None)
    raise MalformedRelease(
        f"{tarball}: compressed with {other}" if other else f"{tarball}: not a gzip file",
        hint="a release is a .tar.gz; its first two bytes are 1F 8B",
    )


def _check_digest(digest: str, release: VerifiedRelease) -> None:
    if digest != release.sha256:
        raise NotAuthentic(
            f"{release.tarball}: its SHA-256 is {digest}, not {release.sha256} as when fetched",
            hint="the archived file was damaged; move it away and run: picloud-image fetch",
        )

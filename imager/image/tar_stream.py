"""A release tarball unpacked as it is read: one pass, hashed on the way, whole or refused.

In: a VerifiedRelease. Out: a file object under ``tarfile`` that only goes forward. A child
``gzip`` decompresses on another core; what goes into it is hashed by the thread that feeds it, so
the bytes unpacked are the bytes that were signed, even if the archive decayed since its fetch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from imager.base.durable import host_storage, write_all
from imager.base.errors import MalformedRelease, NotAuthentic
from imager.base.progress import Phase
from imager.base.run import require_tools, running
from imager.base.units import MiB
from imager.release.verified import VerifiedRelease

_BUFFER_BYTES = MiB
_LARGEST_HEADER = 16 * MiB
"""tarfile reads a whole extended header at once; no honest one is nearly this long."""
_COMPRESSIONS = {
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
_GZIP_MAGIC = b"\x1f\x8b"
HINT = "this release cannot become a card: choose another, and tell whoever publishes it"


class TarStream:
    """The unpacked archive, read forward only; ``last_block`` is what ``tarfile`` read last."""

    def __init__(self, descriptor: int, tarball: Path) -> None:
        with suppress(OSError):  # fewer, larger reads; the limit for ordinary users is 1 MiB
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER_BYTES)
        self._descriptor = descriptor
        self._tarball = tarball
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._position = 0
        self.last_block = b""
        self.ended = False

    def _available(self) -> int:
        """Bytes in the buffer, refilled when it is empty; 0 at the end of the stream."""
        if self._start == self._end:
            self._start, self._end = 0, os.readv(self._descriptor, [self._buffer])
            self.ended = self._end == 0
        return self._end - self._start

    def _take(self, length: int) -> memoryview:
        """Up to ``length`` of the bytes in the buffer."""
        taken = self._buffer[self._start : min(self._start + length, self._end)]
        self._start += len(taken)
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


class _Feeder(threading.Thread):
    """Reads the tarball once, for the hash and for gzip; hashes on when gzip stopped listening."""

    def __init__(self, release: VerifiedRelease, to_gzip: int, phase: Phase) -> None:
        super().__init__(name="feed-gzip")
        self._tarball = release.tarball
        self._to_gzip: int | None = to_gzip
        self._phase = phase
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._sha256 = hashlib.sha256()

    def run(self) -> None:
        try:
            with host_storage(self._tarball), self._tarball.open("rb", buffering=0) as file:
                while not self._stopped.is_set() and (chunk := file.read(_BUFFER_BYTES)):
                    self._sha256.update(chunk)
                    self._feed(chunk)
                    self._phase.advance(len(chunk))
        except Exception as error:  # noqa: BLE001 - it is raised again by the thread that waits
            self._error = error
        finally:
            self._close()

    def _feed(self, chunk: bytes) -> None:
        if self._to_gzip is not None:
            try:
                write_all(self._to_gzip, chunk)
            except BrokenPipeError:
                self._close()

    def _close(self) -> None:
        if self._to_gzip is not None:
            os.close(self._to_gzip)
            self._to_gzip = None

    def stop(self) -> None:
        self._stopped.set()

    def digest(self) -> str:
        """Wait for the end of the tarball; its SHA-256 in hex, or the error that stopped it."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._sha256.hexdigest()


@contextmanager
def unpacked(release: VerifiedRelease, phase: Phase) -> Iterator[TarStream]:
    """The archive in ``release`` as a stream; ``phase`` counts its compressed bytes.

    Leaving the block in peace means: the stream was read to its end, gzip found it sound, and
    the tarball still has the SHA-256 it was signed with. Raises MalformedRelease, or NotAuthentic
    when the reason is that the archived file changed.
    """
    _check_compression(release.tarball)
    require_tools("gzip")
    from_feeder, to_gzip = os.pipe()
    feeder = _Feeder(release, to_gzip, phase)
    try:
        with running(["gzip", "-dc"], stdin=from_feeder) as gzip:
            os.close(from_feeder)
            feeder.start()
            stream = TarStream(cast(IO[bytes], gzip.stdout).fileno(), release.tarball)
            try:
                yield stream
                stream.expect_only_padding()
            except MalformedRelease:
                if stream.ended:  # then what gzip has to say is the reason
                    _check_gzip(gzip, release.tarball, stream.tell())
                raise
            _check_gzip(gzip, release.tarball, stream.tell())
    except MalformedRelease as error:
        # Damage on our own disk looks like a malformed release; the hash tells them apart.
        _check_digest(feeder.digest(), release, error)
        raise
    except BaseException:
        feeder.stop()
        if feeder.ident is not None:
            feeder.join()
        raise
    _check_digest(feeder.digest(), release, None)


def _check_compression(tarball: Path) -> None:
    with host_storage(tarball), tarball.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(_GZIP_MAGIC):
        return
    other = next((name for head, name in _COMPRESSIONS.items() if magic.startswith(head)), None)
    raise MalformedRelease(
        f"{tarball}: compressed with {other}" if other else f"{tarball}: not a gzip file",
        hint="a release is a .tar.gz; its first two bytes are 1F 8B",
    )


def _check_gzip(gzip: subprocess.Popen[bytes], tarball: Path, position: int) -> None:
    said = (
        cast(IO[bytes], gzip.stderr).read().decode(errors="replace").strip().removeprefix("gzip: ")
    )
    if gzip.wait() != 0:
        raise MalformedRelease(
            f"{tarball}: {said.splitlines()[-1] if said else 'gzip failed'}"
            f" (after byte {position} of what is in it)",
            hint=HINT,
        )


def _check_digest(digest: str, release: VerifiedRelease, cause: Exception | None) -> None:
    if digest != release.sha256:
        raise NotAuthentic(
            f"{release.tarball}: its SHA-256 is {digest}, not {release.sha256} as when fetched",
            hint="the archived file was damaged; move it away and run: picloud-image fetch",
        ) from cause

"""A packed file unpacked and hashed by another thread, while it is read once.

In: a path, and how the file is packed: gzip unless said otherwise. Out: the content in chunks, and
the SHA-256 of the file. zlib takes half the time of gzip(1), and while it works other threads can
run, so no other process is needed.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from io import BufferedReader
from pathlib import Path
from queue import SimpleQueue

from imager.base.durable import host_storage
from imager.base.progress import Phase
from imager.base.trusted_folder import kept_file
from imager.base.units import KiB, MiB

_READ_BYTES = 256 * KiB
CHUNK_BYTES = MiB
CHUNKS_AHEAD = 8
_GZIP = 31  # zlib's window bits for the gzip format
GZIP_MAGIC = b"\x1f\x8b"


Unpack = Callable[[Iterator[bytes]], Generator[bytes, None, None]]
"""The content of a packed file, of the blocks it is read in; raises PackingError."""


class PackingError(ValueError):
    """The file is not whole, or not packed as it seems; the text says why and at which byte."""


SLICE_BYTES = 4 * KiB
"""What is left of a slice behind the end of a stream is copied. So the first slices behind an end
have this size; later ones are ever larger. Thousands of tiny streams then take no longer than as
many bytes of one."""


def gunzipped(blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """The content of a gzip file (RFC 1952: one member or more) given as blocks of bytes. Zeros at
    its end are passed by, as gzip(1) does: what writes in whole blocks leaves them there."""
    member = zlib.decompressobj(_GZIP)
    position, step, padded = 0, CHUNK_BYTES, False
    for block in blocks:
        at = 0
        while at < len(block):
            waiting = block[at : at + step]
            if member.eof:
                # Behind a member nothing may follow but another member, and then zeros.
                zeros = len(waiting) - len(waiting.lstrip(b"\0"))
                padded = padded or bool(zeros)
                if zeros < len(waiting) and (
                    padded or not waiting.startswith(GZIP_MAGIC[: len(waiting)])
                ):
                    raise PackingError(f"trailing garbage at its byte {position + at + zeros}")
                if padded:
                    at, step = at + len(waiting), CHUNK_BYTES
                    continue
                member = zlib.decompressobj(_GZIP)
            at, step = at + len(waiting), min(2 * step, CHUNK_BYTES)
            while waiting and not member.eof:
                try:
                    chunk = member.decompress(waiting, CHUNK_BYTES)
                except zlib.error as error:
                    byte = position + len(block)
                    raise PackingError(f"{error} before its byte {byte}") from error
                if chunk:
                    yield chunk
                waiting = member.unconsumed_tail
            if member.eof:
                at, step = at - len(member.unused_data), SLICE_BYTES
        position += len(block)
    # zlib has been given all the input, so a member that is not finished now was cut short.
    if not member.eof:
        raise PackingError(f"it ends in the middle, at its byte {position}")


class Inflater(threading.Thread):
    """Unpacks one file, at most ``chunks_ahead`` MiB before they are asked for. The file is read to
    its end even when its content is damaged or not wanted any more, because the hash needs every
    byte."""

    def __init__(
        self,
        path: Path,
        phase: Phase,
        unpack: Unpack = gunzipped,
        *,
        chunks_ahead: int = CHUNKS_AHEAD,
    ) -> None:
        super().__init__(name="inflate")
        self._path = path
        self._unpack = unpack
        self._phase = phase
        self._chunks: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._free = threading.Semaphore(chunks_ahead)
        self._abandoned = threading.Event()
        self._cancelled = threading.Event()
        self._running = threading.Event()
        self._error: Exception | None = None
        self._sha256 = hashlib.sha256()

    def run(self) -> None:
        self._running.set()
        try:
            with host_storage(self._path), kept_file(self._path) as file:
                self._inflate(self._blocks(file))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
            self._chunks.put(error)

    def _blocks(self, file: BufferedReader) -> Iterator[bytes]:
        """The file's bytes; each block is hashed as it is read."""
        while not self._cancelled.is_set() and (block := file.read(_READ_BYTES)):
            self._sha256.update(block)
            self._phase.advance(len(block))
            yield block

    def _inflate(self, blocks: Iterator[bytes]) -> None:
        try:
            with closing(self._unpack(blocks)) as content:
                for chunk in content:
                    self._free.acquire()
                    if self._abandoned.is_set():
                        break
                    self._chunks.put(chunk)
            self._chunks.put(b"")
        except PackingError as error:
            self._chunks.put(error)
        for _ in blocks:
            pass

    def next_chunk(self) -> bytes:
        """The next bytes of the content, b"" at its end; raises PackingError where it is broken,
        and HostStorage when the file cannot be read."""
        chunk = self._chunks.get()
        if isinstance(chunk, Exception):
            self._chunks.put(chunk)
            raise chunk
        if chunk:
            self._free.release()
        else:
            self._chunks.put(chunk)
        return chunk

    def abandon(self) -> None:
        """Give no more content; ``digest`` can still be asked for."""
        self._abandoned.set()
        self._free.release()

    def cancel(self) -> None:
        """Stop reading: neither the content nor the digest is needed."""
        self._cancelled.set()
        self.abandon()
        # Ctrl-C may have come inside start(), and then the thread does not run yet.
        if self._running.wait(timeout=1):
            self.join()

    def digest(self) -> str:
        """Wait for the end of the file and return its SHA-256 in hex. Raises HostStorage when it
        could not be read."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._sha256.hexdigest()

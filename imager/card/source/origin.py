"""The bytes of a source as it is packed: a file that a person named, or a URL.

In: a path or a URL. Out: an Origin, of which some bytes can be looked at, and all be read once. A
download goes on where it broke, and nothing of it is kept on this computer's disk.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imager.base.below import NotUsed, named
from imager.base.errors import ConfigurationError, HostStorage, NetworkError, UsageError
from imager.base.units import MiB
from imager.release.transfer.download import Version, continues, locate, version_of
from imager.release.transfer.web import TryAgain, Web, cut_short


class Origin(Protocol):
    """An open source. ``name`` is its path or URL, ``size_bytes`` how large it is, None where a
    server does not say it."""

    @property
    def name(self) -> str:
        """Its path or URL."""

    @property
    def size_bytes(self) -> int | None:
        """How large it is, where that is known."""

    def look(self, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from byte ``offset``; raises as ``blocks``, and NetworkError
        where a server does not give a part by itself."""

    def blocks(self) -> Generator[bytes]:
        """All of it, in order; raises HostStorage and NetworkError."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this computer, open under ``descriptor``."""

    name: str
    descriptor: int
    size_bytes: int

    def look(self, offset: int, length: int) -> bytes:
        """See Origin."""
        try:
            return os.pread(self.descriptor, length, offset)
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def blocks(self) -> Generator[bytes]:
        """See Origin. HostStorage too for a file that was written to meanwhile: what was read is
        of no one moment."""
        position, before = 0, self._state()
        while block := self.look(position, MiB):
            yield block
            position += len(block)
        if self._state() != before:
            raise HostStorage(
                f"{self.name} was written to while it was read",
                hint="see that nobody uses it, and run the same command again",
            )

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns


@contextmanager
def local_file(path: Path) -> Iterator[LocalFile]:
    """The file at ``path``; raises UsageError for what is none, ConfigurationError where there is
    nothing, and HostStorage where it cannot be read."""
    try:
        descriptor = named(path, stat.S_ISREG)
    except NotUsed:
        raise UsageError(
            f"--image {path} is no file", hint="give a file that holds a disk image, or a URL"
        ) from None
    except FileNotFoundError:
        raise ConfigurationError(
            f"--image {path}: there is no such file", hint="check the path, or give a URL"
        ) from None
    except OSError as error:
        raise _unreadable(str(path), error) from error
    try:
        yield LocalFile(str(path), descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _unreadable(name: str, error: OSError) -> HostStorage:
    return HostStorage(
        f"{name}: {os.strerror(error.errno or 0)}",
        hint="see that you may read it and that its disk is well",
    )


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file behind ``url``, where its mirror keeps it, in one version."""

    name: str
    web: Web
    url: str
    follow: bool
    version: Version

    @property
    def size_bytes(self) -> int | None:
        """See Origin."""
        return self.version.size_bytes

    def look(self, offset: int, length: int) -> bytes:
        """See Origin."""
        return self.web.patiently(lambda: self._look(offset, length))

    def _look(self, offset: int, length: int) -> bytes:
        found = bytearray()
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        with self.web.open(self.url, headers=headers, follow=self.follow) as response:
            if response.status_code == 416:
                return b""
            if offset and not continues(response, offset, self.version):
                raise NetworkError(
                    f"{self.name}: the server does not give the end of the file by itself",
                    hint="fetch the file first, and give its path",
                )
            for chunk in self.web.chunks(response):
                found += chunk
                if len(found) >= length:
                    break
        return bytes(found[:length])

    def blocks(self) -> Generator[bytes]:
        """See Origin: goes on where the connection broke, as long as it brings anything.

        What a few bytes unpack to may keep a card busy for minutes. That is not the server's time,
        and a server that hangs up meanwhile has not failed.
        """
        position = before = failures = 0
        self.web.forget_failures()
        while True:
            began, paused = time.monotonic(), 0.0
            try:
                for block in self._from(position):
                    position += len(block)
                    given = time.monotonic()
                    yield block
                    paused += time.monotonic() - given
                return
            except TryAgain as error:
                gained, wasted = position - before, time.monotonic() - began - paused
                limits = self.web.limits
                if gained >= limits.headway_bytes or (gained and paused > limits.read_seconds):
                    self.web.forget_failures()
                    failures, wasted = 0, 0.0
                failures, before = failures + 1, position
                self.web.try_again(error, failures, wasted)

    def _from(self, position: int) -> Iterator[bytes]:
        headers = {}
        if position:
            headers["Range"] = f"bytes={position}-"
            if self.version.validator is not None:
                headers["If-Range"] = self.version.validator
        with self.web.open(self.url, headers=headers, follow=self.follow) as response:
            same = (
                continues(response, position, self.version)
                if position
                else version_of(response).size_bytes in (None, self.size_bytes)
            )
            if not same:
                raise NetworkError(
                    f"{self.name}: the server does not go on where it stopped, or has another "
                    "file now",
                    hint="run the same command again; if it happens again, fetch the file first",
                )
            for chunk in self.web.chunks(response):
                position += len(chunk)
                yield chunk
        if self.size_bytes is not None and position != self.size_bytes:
            raise cut_short(self.name, position, self.size_bytes)


def remote_file(url: str, web: Web) -> RemoteFile:
    """The file behind ``url``, which is asked for once to know where it lies and how large it
    is; raises NetworkError."""
    place = web.patiently(lambda: locate(web, url))
    return RemoteFile(url, web, place.url, place.follow, place.version)


def is_url(name: str) -> bool:
    """Whether ``name`` is a URL and no path. Raises UsageError for one that cannot be fetched."""
    scheme, colon, _ = name.partition("://")
    if not colon:
        return False
    if scheme.lower() not in ("https", "http"):
        raise UsageError(
            f"--image {name}: {scheme} is not spoken here",
            hint=f"give an https URL, or fetch it first: curl -LO {shlex.quote(name)}",
        )
    return True

"""Downloads one large file from one mirror, even when the connection breaks many times.

In: a mirror's URL and the folder of a partial file. Out: the whole file in that folder, not checked
yet. After a broken connection, Ctrl-C or a kill the bytes that arrived are kept. The next request
asks for the rest with Range and If-Range; a server whose file has changed meanwhile then sends the
whole new one (RFC 9110, sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from imager.base.durable import host_storage, require_free, write_all
from imager.base.errors import NetworkError
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.progress import Progress
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import format_size
from imager.release.transfer.web import TryAgain, Web, content_length, cut_short

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z")


@dataclass(frozen=True, slots=True)
class Version:
    """Which version of a file a server has, from its headers; None for a header that is missing.

    ``etag`` is a strong one: a weak one may be the same for different bytes.
    """

    size_bytes: int | None
    etag: str | None
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range; None when there is no usable one."""
        return self.etag or self.last_modified

    def is_same_file(self, other: Version) -> bool:
        """Whether both mean the same bytes, also when they come from two mirrors.

        Mirrors keep the time of a file, but each makes ETags of its own.
        """
        if self.size_bytes is None or self.size_bytes != other.size_bytes:
            return False
        return (self.etag is not None and self.etag == other.etag) or (
            self.last_modified is not None and self.last_modified == other.last_modified
        )


def version_of(response: requests.Response) -> Version:
    """The version in an answer with status 200 or 206: that of the whole file, not of the part
    that was sent."""
    size = content_length(response)
    if response.status_code == 206:
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        size = int(found[3]) if found and found[3] != "*" else None
    etag = response.headers.get("ETag")
    strong = etag if etag is not None and etag.startswith('"') else None
    return Version(size, strong, response.headers.get("Last-Modified"))


@dataclass(frozen=True, slots=True)
class TarballLocation:
    """Where one mirror keeps the tarball; its companions are at ``url`` + ``.sig`` and ``.md5``.

    ``follow`` says whether ``url`` redirects each file to storage under another name.
    """

    url: str
    follow: bool
    version: Version


def locate(web: Web, url: str) -> TarballLocation:
    """Follow ``url`` once to the mirror that serves it, so that all its files come from there.

    Some servers redirect each request to another mirror, and one mirror may be older than the
    other. The result is the last address of the redirection that still has the same file name; the
    request is for one byte. Raises NetworkError, also for an empty file.
    """
    with web.open(url, headers={"Range": "bytes=0-0"}) as response:
        if response.status_code == 416:
            raise NetworkError(f"{response.url}: the file is empty", hint="try another mirror")
        way = [*(hop.url for hop in response.history), response.url]
        version = version_of(response)
    name = url.rpartition("/")[2]
    place = next((hop for hop in reversed(way) if hop.rpartition("/")[2] == name), way[0])
    return TarballLocation(place, place != way[-1], version)


_TARBALL, _VERSION = "tarball", "version.json"
_LIMIT_BYTES = 1 << 16


class Partial:
    """A download under way: its bytes so far, and which version of the file they are from."""

    def __init__(self, folder: TrustedFolder) -> None:
        self.folder = folder
        self.path = folder.path / _TARBALL

    def size_bytes(self) -> int:
        try:
            with self.folder.open(_TARBALL) as descriptor:
                return os.fstat(descriptor).st_size
        except FileNotFoundError:
            return 0

    def version(self) -> Version | None:
        """The version that the bytes are from; None when that is not recorded or not readable."""
        try:
            return parse_version(self.folder.read(_VERSION, _LIMIT_BYTES))
        except (FileNotFoundError, JsonFault):
            return None

    def begin(self, version: Version) -> None:
        """Delete the bytes and begin with those of ``version``."""
        self.discard()
        self.adopt(version)

    def adopt(self, version: Version) -> None:
        """Keep the bytes and take them for the first bytes of ``version``."""
        self.folder.write(_VERSION, json.dumps(asdict(version)).encode())

    def discard(self) -> None:
        # The bytes are deleted first. If the version were, a cut here would leave bytes that belong
        # to no version.
        self.folder.remove(_TARBALL)
        self.folder.remove(_VERSION)

    def reject(self, file_name: str) -> Path:
        """Keep the bytes beside the folder as ``file_name``.rejected, to be looked at, and discard
        the rest; the last rejected one of a name is kept. Returns where they are."""
        rejected = self.folder.parent.path / f"{file_name}.rejected"
        with host_storage(rejected):
            self.path.rename(rejected)
        self.discard()
        return rejected


def parse_version(data: bytes) -> Version:
    """The inverse of what Partial writes. Raises JsonFault that names the field."""
    read = read_object(data)
    read.exactly(("size_bytes", "etag", "last_modified"))
    return Version(
        read.optional("size_bytes", read.integer),
        _header(read, "etag"),
        _header(read, "last_modified"),
    )


def _header(read: JsonObject, key: str) -> str | None:
    """Text that will be sent as a header, where a line break would end it."""
    text = read.optional(key, read.text)
    if text is not None and not text.isprintable():
        raise read.fault(key, "cannot be printed")
    return text


def download(
    web: Web, place: TarballLocation, partial: Partial, what: str, progress: Progress
) -> None:
    """Download the file at ``place`` into ``partial``; ``what`` is the name of the phase.

    Raises NetworkError when the mirror refuses, or fails too often or too long in a row with too
    few new bytes (``Web.try_again``), and HostStorage when this computer's disk fails. What was
    downloaded is deleted only when it is larger than it should be.
    """
    kept = partial.version()
    if kept is not None and kept.is_same_file(place.version):
        partial.adopt(place.version)
    else:
        partial.discard()
    with progress.phase(what, place.version.size_bytes) as phase:
        shown = 0

        def show(position: int) -> None:
            # A transfer may begin again at byte 0; the bar then waits until it is further on.
            nonlocal shown
            if position > shown:
                phase.advance(position - shown)
                shown = position

        show(partial.size_bytes())
        failures, before = 0, partial.size_bytes()
        while True:
            began = time.monotonic()
            try:
                _transfer(web, place, partial, show)
                return
            except TryAgain as error:
                headway = partial.size_bytes() - before >= web.limits.headway_bytes
                if headway:
                    web.forget_failures()
                    failures, began = 0, time.monotonic()
                failures += 1
                before = partial.size_bytes()
                web.try_again(error, failures, time.monotonic() - began)
                progress.note(f"{error.what}; trying again")


def _transfer(
    web: Web, place: TarballLocation, partial: Partial, show: Callable[[int], None]
) -> None:
    """Ask once for what is missing and append it. Raises TryAgain when more remains to ask."""
    have, known = partial.size_bytes(), partial.version()
    if known is not None and have == known.size_bytes:
        return
    headers = {}
    if have and known is not None and known.validator is not None:
        headers = {"Range": f"bytes={have}-", "If-Range": known.validator}
    with web.open(place.url, headers=headers, follow=place.follow) as response:
        if headers and known is not None and continues(response, have, known):
            offset, version = have, known
        elif response.status_code == 200:
            offset, version = 0, version_of(response)
            _check_size(place.url, version, web.limits.tarball_bytes)
            partial.begin(version)
        else:
            partial.discard()
            raise TryAgain(
                f"{place.url}: the server does not continue where it stopped",
                hint="its file has changed; run it again to fetch it from the beginning",
            )
        _check_room(partial.folder.path, version, offset)
        most = version.size_bytes or web.limits.tarball_bytes
        appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with partial.folder.open(_TARBALL, appending) as descriptor:
            for chunk in web.chunks(response):
                offset += len(chunk)
                if offset > most:
                    partial.discard()
                    raise NetworkError(
                        f"{place.url}: the server sends more than {format_size(most)}",
                        hint="this is not the release; try another mirror or network",
                    )
                with host_storage(partial.path):
                    write_all(descriptor, chunk)
                show(offset)
            with host_storage(partial.path):
                os.fsync(descriptor)
    if version.size_bytes is not None and offset != version.size_bytes:
        raise cut_short(place.url, offset, version.size_bytes)


def continues(response: requests.Response, have: int, known: Version) -> bool:
    """Whether ``response`` is the rest, from byte ``have`` on, of the version that is ``known``."""
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if response.status_code != 206 or found is None or int(found[1]) != have:
        return False
    now = version_of(response)
    if None not in (now.size_bytes, known.size_bytes) and now.size_bytes != known.size_bytes:
        return False
    # A server may know Range and not If-Range. Then only its own headers show that the file is new.
    if known.etag is not None and now.etag is not None:
        return known.etag == now.etag
    return known.last_modified is None or now.last_modified in (None, known.last_modified)


def _check_size(url: str, version: Version, cap_bytes: int) -> None:
    if version.size_bytes is not None and version.size_bytes > cap_bytes:
        raise NetworkError(
            f"{url}: the server announces {format_size(version.size_bytes)}, "
            f"and no release is larger than {format_size(cap_bytes)}",
            hint="this is not the release; try another mirror or network",
        )


def _check_room(folder: Path, version: Version, have: int) -> None:
    """Raise HostStorage before the transfer when there is no room for the whole file."""
    if version.size_bytes is not None:
        require_free(
            folder,
            version.size_bytes - have,
            "what is still to come takes",
            "free some space, or put the cache elsewhere with --cache DIR",
        )

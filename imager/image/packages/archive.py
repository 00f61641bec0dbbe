"""A pacman package read: its description and its files, one by one, as it is unpacked.

In: the archive of a package, as a file in the archive of packages or as bytes. Out: what it says
of itself, and each member, through the same bounds as a release's tarball. Nothing of it runs.
Source: makepkg(8), ``scripts/makepkg.sh.in`` of pacman for the names of the metadata.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, MalformedRelease
from imager.base.progress import Phase
from imager.base.trusted_folder import kept_file
from imager.base.units import MiB, format_chosen
from imager.image.unpack.inflate import Inflater, PackingError
from imager.image.unpack.members import clean_path, entry_of, refuse
from imager.image.unpack.packings import packing_of
from imager.image.unpack.tar_stream import HINT, TarStream, read_members
from imager.packages.metadata import PacmanPackage, parse_pkginfo

_DESCRIPTION = ".PKGINFO"
_LARGEST: Mapping[str, int] = {
    _DESCRIPTION: MiB,
    ".INSTALL": MiB,
    ".MTREE": 16 * MiB,
    ".CHANGELOG": 16 * MiB,
}
"""The metadata that are kept, and how large each may be in bytes."""
_HEAD_BYTES = 8
_CHUNKS_AHEAD = 64
"""In MiB. While the files of one package are made, the next one is unpacked on another core."""


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """A file of the metadata, and when it was made, in nanoseconds since 1970."""

    data: bytes
    mtime_ns: int

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one package: its description, the text that it is parsed from, and by name
    (``.MTREE``) what else of them there is."""

    package: PacmanPackage
    pkginfo: str
    others: Mapping[str, MetadataFile]


Take = Callable[[Metadata, str, tarfile.TarInfo, TarStream], None]
"""Gets each member that is no metadata: of which package, its path below the root, its header, and
the stream with its content."""


def begin_unpacking(path: Path, phase: Phase) -> Inflater:
    """The package ``path`` being unpacked, for ``unpacked_by``; ``phase`` counts its compressed
    bytes. Raises HostStorage when it cannot be read."""
    with host_storage(path), kept_file(path) as file:
        head = file.read(_HEAD_BYTES)
    inflater = Inflater(path, phase, packing_of(head), chunks_ahead=_CHUNKS_AHEAD)
    inflater.start()
    return inflater


def read_package(stream: TarStream, path: Path, take: Take) -> Metadata:
    """The metadata of the package in ``stream``; every other member goes to ``take``. ``path`` is
    the package's own file, for messages.

    Raises MalformedRelease or PackingError for what is no whole package, and what ``take`` raises.
    """
    reading = _PackageReading(take)
    read_members(stream, path, reading.member)
    return reading.metadata()


def read_packed(data: bytes, path: Path, take: Take) -> Metadata:
    """``read_package`` of the package ``data``, which is in memory, to its end.

    Raises ConfigurationError when it is not a whole package.
    """
    chunks = packing_of(data[:_HEAD_BYTES])(iter([data]))
    stream = TarStream(lambda: next(chunks, b""), path)
    try:
        found = read_package(stream, path, take)
        # The checksum comes after the archive's own end.
        stream.expect_only_padding()
    except (PackingError, MalformedRelease) as error:
        raise ConfigurationError(
            f"{path} is not a whole pacman package: {str(error).removeprefix(f'{path}: ')}",
            hint="fetch or build it again",
        ) from error
    return found


class _PackageReading:
    """The members of one package: the metadata come first, as makepkg packs them."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._files: dict[str, MetadataFile] = {}
        self._metadata: Metadata | None = None

    def member(self, info: tarfile.TarInfo, stream: TarStream) -> None:
        path = clean_path(info.name)
        if path.startswith("."):
            # pacman keeps all such names for itself.
            if path in _LARGEST:
                self._files[path] = _content(path, info, stream)
        elif path:
            self._take(self.metadata(), path, info, stream)

    def metadata(self) -> Metadata:
        if self._metadata is None:
            if _DESCRIPTION not in self._files:
                raise _malformed(f"it has no {_DESCRIPTION} at its beginning")
            text = self._files.pop(_DESCRIPTION).text
            try:
                package = parse_pkginfo(text)
            except ValueError as error:
                raise _malformed(str(error)) from error
            self._metadata = Metadata(package, text, self._files)
        return self._metadata


def _content(name: str, info: tarfile.TarInfo, stream: TarStream) -> MetadataFile:
    if not info.isreg() or info.sparse is not None or info.size > _LARGEST[name]:
        raise refuse(info.name, f"is not a file of at most {format_chosen(_LARGEST[name])}")
    stream.seek(info.offset_data)
    data = stream.read(info.size)
    if len(data) < info.size:
        raise _malformed(f"it ends within its {name}")
    return MetadataFile(data, entry_of(info).mtime_ns)


def _malformed(why: str) -> MalformedRelease:
    return MalformedRelease(why, hint=HINT)

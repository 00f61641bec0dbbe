"""pacman packages that lie in the golden image for first boot to install without a network.

In: the rack's package files and a release being staged. Out: the packages in the image, and the
files the release will have once they are installed. Whether pacman will be able to install them is
checked here, as far as names tell, and not first on a node where nobody sees the error. Sources:
PKGINFO and the local database as makepkg(8) and libalpm write them; pacman(8), PKGBUILD(5).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import ConfigurationError, HostStorage, MalformedRelease
from imager.base.progress import Progress
from imager.base.units import GiB, MiB, format_size
from imager.image.unpack.members import EntryKind, TreeEntry, clean_path, entry_of
from imager.image.unpack.stager import Stager
from imager.release.verified import PackageFile

FOLDER = "usr/lib/picloud/packages"
_PACMAN = "usr/bin/pacman"
_DESCRIPTION = re.compile(r"var/lib/pacman/local/[^/]+/desc\Z")
_BOUND = re.compile(r"[<>=].*")
_METADATA = (".BUILDINFO", ".CHANGELOG", ".INSTALL", ".MTREE")
_LARGEST_TEXT = MiB
_LARGEST_HEADER = 16 * MiB
_LARGEST_ARCHIVE = GiB
_MOST_MEMBERS = 100_000
_OPENERS: Mapping[bytes, Callable[[BytesIO], BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}


@dataclass(frozen=True, slots=True)
class PacmanPackage:
    """A package's own description. ``version`` includes the release number; ``depends`` and
    ``provides`` are names without versions."""

    name: str
    version: str
    arch: str
    depends: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        return f"{self.name} {self.version}"


def add_bundle(
    stager: Stager, bundle: Sequence[PackageFile], release: str, progress: Progress
) -> dict[str, TreeEntry]:
    """Add the packages ``bundle`` to the release called ``release`` that is in ``stager``.

    Returns every file that the packages will install on the node at first boot. Raises
    ConfigurationError for a file that is no package, or with every reason why first boot could not
    install them; HostStorage for a file that changed meanwhile.
    """
    found: list[tuple[PacmanPackage, dict[str, TreeEntry]]] = []
    with progress.phase("add packages", sum(file.size_bytes for file in bundle)) as phase:
        for file in bundle:
            with host_storage(file.path):
                data = file.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise HostStorage(
                    f"{file.path} was altered while the image was composed",
                    hint="run the same command again",
                )
            if not file.name.endswith(".sig"):
                found.append(read_package(data, file.path))
            stager.put(f"{FOLDER}/{file.name}", data, mode=0o644, mtime_ns=0)
            phase.advance(len(data))
    if _PACMAN not in stager.root.entries:
        faults = [f"{release} has no pacman that could install them"]
    else:
        installed = tuple(_installed(stager))
        faults = [
            *faults_of([package for package, _ in found], installed, release),
            *_overlaps(found, installed, stager.root.entries, release),
        ]
    if faults:
        raise ConfigurationError(
            f"first boot could not install the packages in {bundle[0].path.parent}",
            hint="take packages of the same day and the same architecture as the release, with all"
            " they depend on (docs/salt.md)",
            details=faults,
        )
    return {path: entry for _, entries in found for path, entry in entries.items()}


def faults_of(
    packages: Sequence[PacmanPackage], installed: Iterable[PacmanPackage], release: str
) -> Iterator[str]:
    """Every reason why pacman could not install ``packages``, or would replace one of the packages
    that ``release`` has ``installed``: a single newer library can break a node."""
    there = {package.name: package for package in installed}
    arches = {package.arch for package in there.values()} - {"any"}
    known = {name for package in (*there.values(), *packages) for name in _names(package)}
    seen: dict[str, PacmanPackage] = {}
    for package in packages:
        twin, old = seen.get(package.name), there.get(package.name)
        seen[package.name] = package
        if twin:
            yield f"{twin.called} and {package.version} are both there: which one is meant?"
        if old and old.version != package.version:
            yield f"{package.called} would replace {old.version}, which {release} has"
        if arches and package.arch not in arches | {"any"}:
            yield f"{package.called} is for {package.arch}, and {release} is {_list(arches)}"
        missing = sorted(set(package.depends) - known)
        if missing:
            yield f"{package.called} needs {_list(missing)}, in neither {release} nor the folder"


def _overlaps(
    found: Iterable[tuple[PacmanPackage, Mapping[str, TreeEntry]]],
    installed: Sequence[PacmanPackage],
    entries: Mapping[str, TreeEntry],
    release: str,
) -> Iterator[str]:
    """For each package the first of its files that is there already and is not its own."""
    there = {package.name for package in installed}
    taken = dict.fromkeys(entries, release)
    for package, brought in found:
        files = [path for path, entry in brought.items() if entry.kind is not EntryKind.FOLDER]
        path = next((path for path in files if path in taken), None)
        if path and package.name not in there:
            yield f"{package.called} brings /{path}, which {taken[path]} has"
        taken.update(dict.fromkeys(files, package.called))


def read_package(data: bytes, path: Path) -> tuple[PacmanPackage, dict[str, TreeEntry]]:
    """The description of the package ``data``, and the files it installs, by path below the root.
    ``path`` is the package's own file, for messages.

    Raises ConfigurationError when it is not a whole package.
    """
    package, entries = None, {}
    try:
        unpacked = _Unpacked(data)
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:  # type: ignore[call-overload]
            for number, info in enumerate(archive):
                if number > _MOST_MEMBERS:
                    raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS:,} members")
                if info.name == ".PKGINFO" and info.isreg():
                    file = archive.extractfile(info)
                    text = file.read(_LARGEST_TEXT) if file else b""
                    package = parse_pkginfo(text.decode(errors="replace"))
                elif info.name not in _METADATA and not info.islnk():
                    entries[clean_path(info.name)] = entry_of(info)
            # The checksum comes after the archive's own end.
            while unpacked.read(MiB):
                pass
    except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise _no_package(path, str(error) or "it ends early") from error
    except RecursionError as error:
        raise _no_package(path, "it has too many headers for one file") from error
    except (MalformedRelease, ValueError, IndexError) as error:
        raise _no_package(path, str(error)) from error
    if package is None:
        raise _no_package(path, "it has no .PKGINFO")
    return package, entries


class _Unpacked:
    """A package's archive, unpacked as ``tarfile`` reads it, but not without end: a few kilobytes
    can become gigabytes, and a header is read into memory. Raises tarfile.ReadError for those."""

    def __init__(self, data: bytes) -> None:
        file = BytesIO(data)
        opener = next((way for magic, way in _OPENERS.items() if data.startswith(magic)), None)
        self._file: BufferedIOBase = opener(file) if opener else file

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        self._bound(position)
        return self._file.seek(position)

    def read(self, length: int) -> bytes:
        if length > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {length} bytes")
        self._bound(self.tell() + length)
        return self._file.read(length)

    def _bound(self, position: int) -> None:
        if position > _LARGEST_ARCHIVE:
            raise tarfile.ReadError(f"it unpacks to more than {format_size(_LARGEST_ARCHIVE)}")


def parse_pkginfo(text: str) -> PacmanPackage:
    """.PKGINFO, lines of ``key = value``; raises ValueError when one is missing."""
    facts: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            facts.setdefault(key.strip(), []).append(value.strip())
    return _package(facts, ("pkgname", "pkgver", "arch", "depend", "provides"))


def parse_description(text: str) -> PacmanPackage:
    """``desc`` of an installed package: ``%KEY%``, its values line by line, an empty line; raises
    ValueError when a key is missing."""
    facts: dict[str, list[str]] = {}
    values: list[str] = []
    for line in text.splitlines():
        if line.startswith("%"):
            values = facts.setdefault(line, [])
        elif line:
            values.append(line)
    return _package(facts, ("%NAME%", "%VERSION%", "%ARCH%", "%DEPENDS%", "%PROVIDES%"))


def _package(
    facts: Mapping[str, Sequence[str]], keys: tuple[str, str, str, str, str]
) -> PacmanPackage:
    for key in keys[:3]:
        if not facts.get(key) or not facts[key][0]:
            raise ValueError(f"it does not tell its {key}")
    name, version, arch = (facts[key][0] for key in keys[:3])
    depends, provides = (
        tuple(_BOUND.sub("", word).strip() for word in facts.get(key, ())) for key in keys[3:]
    )
    return PacmanPackage(name, version, arch, depends, provides)


def _names(package: PacmanPackage) -> tuple[str, ...]:
    return (package.name, *package.provides)


def _installed(stager: Stager) -> Iterator[PacmanPackage]:
    """The packages in the release, from pacman's database there. An entry that cannot be read is
    left out: pacman itself reports it better."""
    for path in list(stager.root.entries):
        if _DESCRIPTION.match(path):
            try:
                yield parse_description(stager.text_of_root(path))
            except ValueError:
                continue


def _no_package(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not a whole pacman package: {why}", hint="fetch or build it again"
    )


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))

"""pacman packages that lie in the golden image for first boot to install without a network.

In: the rack's package files and a release being staged. Out: the packages in the image, and the
files the release will have once they are installed. Whether pacman will be able to install them is
checked here, as far as names tell, and not first on a node where nobody sees the error. Source:
pacman(8).
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imager.base.errors import ConfigurationError, HostStorage
from imager.base.progress import Progress
from imager.image.packages.archive import Metadata, read_packed
from imager.image.packages.database import installed_packages
from imager.image.unpack.members import EntryKind, TreeEntry, entry_of
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import TarStream
from imager.packages.metadata import PacmanPackage
from imager.packages.rack_folder import package_bytes
from imager.release.verified import PackageFile

FOLDER = "usr/lib/picloud/packages"
_PACMAN = "usr/bin/pacman"


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
            data = package_bytes(file.path)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise HostStorage(
                    f"{file.path} was altered while the image was composed",
                    hint="run the same command again",
                )
            if not file.name.endswith(".sig"):
                found.append(described(data, file.path))
            stager.put(f"{FOLDER}/{file.name}", data, mode=0o644, mtime_ns=0)
            phase.advance(len(data))
    if _PACMAN not in stager.root.entries:
        faults = [f"{release} has no pacman that could install them"]
    else:
        installed = tuple(installed_packages(stager))
        faults = [
            *faults_of([package for package, _ in found], installed, release),
            *_overlaps(found, installed, stager.root.entries, release),
        ]
    if faults:
        raise ConfigurationError(
            f"first boot could not install the packages in {bundle[0].path.parent}",
            hint="take packages of the same day and the same architecture as the release, with all"
            " they depend on (picloud-image docs salt)",
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
    known = {name for package in (*there.values(), *packages) for name in package.names}
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


def described(data: bytes, path: Path) -> tuple[PacmanPackage, dict[str, TreeEntry]]:
    """The description of the package ``data``, and the files it installs, by path below the root.
    ``path`` is the package's own file, for messages.

    Raises ConfigurationError when it is not a whole package.
    """
    entries: dict[str, TreeEntry] = {}

    def take(_: Metadata, name: str, info: tarfile.TarInfo, __: TarStream) -> None:
        if not info.islnk():
            entries[name] = entry_of(info)

    return read_packed(data, path, take).package, entries


def _list(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))

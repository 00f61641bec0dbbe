"""Files of packages go into a release and out of it by pacman's rules, and none by accident.

In: a staged release, and the members of packages one by one. Out: the release with the packages'
files; what could not be done as a list of faults. A folder that is there stays as it is. A file
that is there is replaced only if it is the package's own of an older version; one that a person may
change (``backup``) only if nobody changed it, and else the new one lies beside it as ``.pacnew``.
Source: ``lib/libalpm/add.c``, ``remove.c`` and ``conflict.c`` of pacman 6.0.2 and 7.0.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable

from imager.image.packages.archive import Metadata
from imager.image.packages.database import Installed
from imager.image.unpack.members import EntryKind
from imager.image.unpack.stager import Stager
from imager.image.unpack.tar_stream import TarStream
from imager.packages.metadata import pkginfo_fields

_NEW, _SAVED = ".pacnew", ".pacsave"


class FileOwners:
    """Which package owns which file of a release, kept while packages come and go."""

    def __init__(self, installed: Iterable[Installed]) -> None:
        self._files: dict[str, str] = {}
        self._folders: Counter[str] = Counter()
        for package in installed:
            self.add(package.name, package.files)

    def add(self, name: str, files: Iterable[str]) -> None:
        for path in files:
            if path.endswith("/"):
                self._folders[path[:-1]] += 1
            else:
                self._files[path] = name

    def of(self, path: str) -> str | None:
        """The package that owns the file ``path``."""
        return self._files.get(path)

    def release(self, path: str) -> bool:
        """One package less owns ``path``, named as in a list of files; whether it was the last."""
        if not path.endswith("/"):
            return bool(self._files.pop(path, None))
        self._folders[path[:-1]] -= 1
        return self._folders[path[:-1]] <= 0


class Arrival:
    """One package on its way into the release: its members are taken one by one."""

    def __init__(
        self, stager: Stager, owners: FileOwners, old: Installed | None, coming: frozenset[str]
    ) -> None:
        """``old`` is the package of the same name in the release, ``coming`` are the names of
        packages that another version of will be added later."""
        self._stager = stager
        self._owners = owners
        self._old = old
        self._coming = coming
        self._files: set[str] = set()
        self._backup: dict[str, str | None] = {}
        self.conflicts: list[tuple[str, str | None]] = []
        """Files that are there already, and the package that has each, if one has it."""

    def take(self, metadata: Metadata, path: str, info: tarfile.TarInfo, stream: TarStream) -> None:
        """Put one member into the release."""
        if not self._files:
            backup = pkginfo_fields(metadata.pkginfo).get("backup", ())
            self._backup = dict.fromkeys(backup)
        self._files.add(f"{path}/" if info.isdir() else path)
        before = self._stager.entry(path)
        if before is None:
            self._add(info, stream)
        elif before.kind is EntryKind.FOLDER:
            if not info.isdir():
                self.conflicts.append((path, None))
            return
        elif not self._may_replace(metadata.package.name, path):
            return
        elif info.isdir():
            self._stager.remove(path)
            self._add(info, stream)
        elif self._is_kept(path):
            self._beside(path, info, stream)
        else:
            self._add(info, stream)
        if not info.isdir():
            self._owners.add(metadata.package.name, (path,))
        if path in self._backup and self._backup[path] is None:
            self._backup[path] = self._stager.md5(path)

    def _add(self, info: tarfile.TarInfo, stream: TarStream) -> None:
        # What a hard link is another name of may have been left out.
        if not (info.islnk() and self.conflicts):
            self._stager.add(info, stream)

    def _may_replace(self, name: str, path: str) -> bool:
        """Whether the file that is there may go; notes a conflict if not."""
        owner = self._owners.of(path)
        if owner == name or owner in self._coming or (owner is None and path in self._backup):
            return True
        self.conflicts.append((path, owner))
        return False

    def _is_kept(self, path: str) -> bool:
        """Whether a person may have changed the file that is there."""
        return path in self._backup or (self._old is not None and path in self._old.backup)

    def _beside(self, path: str, info: tarfile.TarInfo, stream: TarStream) -> None:
        """Put the member beside the file that is there, then let it take its place if that is as
        it was packed, or the same."""
        beside = path + _NEW
        info.name = beside
        self._stager.add(info, stream)
        packed, there = self._stager.md5(beside), self._stager.md5(path)
        original = self._old.backup.get(path) if self._old else None
        if path in self._backup:
            self._backup[path] = packed
        if packed is not None and packed == original and packed != there:
            self._stager.remove(beside)
        elif packed is None or there in (packed, original):
            self._stager.rename(beside, path)

    def finish(self, metadata: Metadata, is_dependency: bool) -> Installed:
        """The package as it is installed now; what its old version had and it has not is gone."""
        script = metadata.others.get(".INSTALL")
        new = Installed(
            metadata.package,
            frozenset(self._files),
            self._backup,
            is_dependency,
            script.text if script else "",
        )
        folders = (path for path in new.files if path.endswith("/"))
        self._owners.add(new.name, folders)
        if self._old is not None:
            depart(self._stager, self._owners, self._old, new.files)
        return new


def depart(
    stager: Stager, owners: FileOwners, old: Installed, kept: frozenset[str] = frozenset()
) -> None:
    """Take the files of ``old`` out of the release, but those in ``kept``, which its newer version
    has, and those that another package has. A file that a person changed is kept as .pacsave."""
    for path in sorted(old.files, reverse=True):
        is_folder = path.endswith("/")
        if not is_folder and (path in kept or owners.of(path) != old.name):
            continue
        is_last = owners.release(path)
        there = stager.entry(path.rstrip("/"))
        if there is None or path in kept or (there.kind is EntryKind.FOLDER) != is_folder:
            continue
        if is_folder:
            if is_last and stager.is_empty(path[:-1]):
                stager.remove(path[:-1])
        elif path in old.backup and stager.md5(path) != old.backup[path]:
            stager.rename(path, path + _SAVED)
        else:
            stager.remove(path)

"""Members of archives become plain files in two folders, one for each partition.

In: members, one by one. Out: files named as in the archive, which belong to whoever runs this, and
the TreeEntry of each. Nothing is ever written outside the two folders or through a link.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.durable import write_all
from imager.base.units import MiB, format_chosen
from imager.image.unpack.members import (
    DEVICES,
    EntryKind,
    TreeEntry,
    clean_path,
    entry_of,
    refuse,
    segments_of,
)
from imager.image.unpack.tar_stream import TarStream
from imager.image.unpack.tree import BOOT, Tree, TreePlace, copy_of, implied_folder, place_of

_LARGEST_TEXT = 16 * MiB
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stager:
    """Writes members into two folders, never outside them and never through a link."""

    def __init__(self, folder: Path, root_fd: int, boot_fd: int) -> None:
        self._folder = folder
        self._root, self._boot = Tree(is_boot=False), Tree(is_boot=True)
        self._fds = {False: root_fd, True: boot_fd}
        self._now_ns = time.time_ns()
        self._newest_ns = 0
        self._root.put("", implied_folder(0))
        self._boot.put("", implied_folder(0))

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Stager]:
        descriptors: list[int] = []
        try:
            for name in ("root", "boot"):
                (folder / name).mkdir()
                (folder / name).chmod(0o700)
                descriptors.append(os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY))
            yield cls(folder, *descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @property
    def root(self) -> Tree:
        return self._root

    @property
    def boot(self) -> Tree:
        return self._boot

    @property
    def root_folder(self) -> Path:
        """The folder with the files of the root filesystem, to be read only."""
        return self._folder / "root"

    @property
    def newest(self) -> int:
        """The time of the newest member that is not dated in the future; seconds since 1970."""
        return self._newest_ns // 1_000_000_000

    def add(self, info: tarfile.TarInfo, stream: TarStream) -> None:
        """Add one member, with its content from ``stream``."""
        place = place_of(clean_path(info.name))
        if info.type == tarfile.LNKTYPE:
            self._link(info, place)
            return
        entry = entry_of(info)
        if entry.mtime_ns < self._now_ns:
            self._newest_ns = max(self._newest_ns, entry.mtime_ns)
        before = self._take_in(place, entry)
        directory = self._fds[place.on_boot]
        match entry.kind:
            case EntryKind.FOLDER:
                if before is None:
                    self._make_folder(place)
            case EntryKind.FILE:
                self._clear(place, before)
                stream.seek(info.offset_data)
                _write_file(place.path, directory, info, stream)
            case EntryKind.SYMLINK:
                self._clear(place, before)
                os.symlink(entry.target, place.path, dir_fd=directory)
            case _:
                # A device needs privileges; it is made inside the finished filesystem.
                self._clear(place, before)

    def put(self, path: str, data: bytes, *, mode: int, mtime_ns: int) -> None:
        """Add a regular file that is in no archive; it belongs to root."""
        place = place_of(clean_path(path))
        directory = self._fds[place.on_boot]
        entry = TreeEntry(EntryKind.FILE, mode, 0, 0, mtime_ns, len(data))
        self._clear(place, self._take_in(place, entry))
        descriptor = _created(place.path, directory)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def link(self, path: str, target: str, *, mtime_ns: int) -> None:
        """Add a symbolic link that is in no archive; it belongs to root."""
        place = place_of(clean_path(path))
        entry = TreeEntry(EntryKind.SYMLINK, 0o777, 0, 0, mtime_ns, target=target)
        self._clear(place, self._take_in(place, entry))
        os.symlink(target, place.path, dir_fd=self._fds[place.on_boot])

    def entry(self, path: str) -> TreeEntry | None:
        """What is at ``path``, a path as in the archive; None for nothing."""
        place = place_of(path)
        return self._tree(place).entries.get(place.path)

    def is_empty(self, path: str) -> bool:
        """Whether nothing is in the directory ``path``, which is there."""
        place = place_of(path)
        if path == BOOT and not self._boot.is_empty(""):
            return False
        return self._tree(place).is_empty(place.path)

    def remove(self, path: str) -> None:
        """Take out what is at ``path``; a directory must be empty."""
        place = place_of(path)
        entry = self._tree(place).take_out(place.path)
        if entry.kind is EntryKind.FOLDER:
            os.rmdir(place.path, dir_fd=self._fds[place.on_boot])
        else:
            self._clear(place, entry)

    def rename(self, path: str, to: str) -> None:
        """Let the file ``path`` take the place ``to`` in the same directory."""
        old, new = place_of(path), place_of(to)
        before = self._tree(new).entries.get(new.path)
        entry = self._tree(old).take_out(old.path)
        self._clear(new, before)
        self._tree(new).put(new.path, entry)
        directory = self._fds[new.on_boot]
        os.rename(old.path, new.path, src_dir_fd=directory, dst_dir_fd=directory)

    def md5(self, path: str) -> str | None:
        """The MD5 of the ordinary file ``path``, which pacman tells changed settings by; None where
        there is none. Raises MalformedRelease as ``text_of_root``."""
        place = place_of(path)
        if not _is_text(self._tree(place).entries.get(place.path), path):
            return None
        descriptor = os.open(place.path, os.O_RDONLY, dir_fd=self._fds[place.on_boot])
        with open(descriptor, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def text_of_root(self, path: str) -> str:
        """The text of an ordinary file of the root filesystem; "" where there is none. Raises
        MalformedRelease for one that is too large to be one of text."""
        if not _is_text(self._root.entries.get(path), path):
            return ""
        return (self.root_folder / path).read_text(errors="surrogateescape")

    def _tree(self, place: TreePlace) -> Tree:
        return self._boot if place.on_boot else self._root

    def _take_in(self, place: TreePlace, entry: TreeEntry) -> TreeEntry | None:
        if place.on_boot and BOOT not in self._root.entries:
            self._imply(TreePlace(False, BOOT), entry.mtime_ns)
        for parent in self._tree(place).missing_parents(place.path):
            self._imply(TreePlace(place.on_boot, parent), entry.mtime_ns)
        return self._tree(place).put(place.path, entry)

    def _imply(self, place: TreePlace, mtime_ns: int) -> None:
        self._tree(place).put(place.path, implied_folder(mtime_ns))
        self._make_folder(place)

    def _make_folder(self, place: TreePlace) -> None:
        directory = self._fds[place.on_boot]
        os.mkdir(place.path, 0o700, dir_fd=directory)
        os.chmod(place.path, 0o700, dir_fd=directory)

    def _clear(self, place: TreePlace, before: TreeEntry | None) -> None:
        """Remove the file of an earlier member. It is removed and not overwritten, because it may
        have other names (hard links) that keep its content."""
        if before is not None and before.kind not in DEVICES:
            os.unlink(place.path, dir_fd=self._fds[place.on_boot])

    def _link(self, info: tarfile.TarInfo, place: TreePlace) -> None:
        source = place_of(clean_path(info.linkname))
        entry = self._tree(source).entries.get(source.path)
        if entry is None:
            raise refuse(info.name, f"is a hard link to {info.linkname!r}, which is not before it")
        if entry.kind is EntryKind.FOLDER:
            raise refuse(info.name, f"is a hard link to the directory {info.linkname!r}")
        if source == place:
            return
        if entry.kind in DEVICES:
            raise refuse(info.name, f"is a hard link to {info.linkname!r}, a {entry.kind}")
        same_partition = source.on_boot == place.on_boot
        # FAT has no hard links, and none can lead to the other partition: such links become copies.
        linked = entry if same_partition and not place.on_boot else copy_of(entry)
        self._clear(place, self._take_in(place, linked))
        os.link(
            source.path,
            place.path,
            src_dir_fd=self._fds[source.on_boot],
            dst_dir_fd=self._fds[place.on_boot],
            follow_symlinks=False,
        )


def _is_text(entry: TreeEntry | None, path: str) -> bool:
    """Whether there is an ordinary file; MalformedRelease for one whose content nobody wrote by
    hand: a hole of a terabyte costs an archive nothing."""
    if entry is None or entry.kind is not EntryKind.FILE:
        return False
    if entry.size_bytes > _LARGEST_TEXT:
        raise refuse(path, f"is larger than {format_chosen(_LARGEST_TEXT)}")
    return True


def _write_file(path: str, directory: int, info: tarfile.TarInfo, stream: TarStream) -> None:
    descriptor = _created(path, directory)
    try:
        position = 0
        for offset, length in segments_of(info):
            if offset != position:
                os.lseek(descriptor, offset, os.SEEK_SET)
            stream.copy_to(descriptor, length)
            position = offset + length
        if position != info.size:
            os.ftruncate(descriptor, info.size)
    finally:
        os.close(descriptor)


def _created(path: str, directory: int) -> int:
    """A descriptor of the new file ``path``, open for writing."""
    descriptor = os.open(path, _CREATE, 0o600, dir_fd=directory)
    os.fchmod(descriptor, 0o600)  # whatever the umask
    return descriptor

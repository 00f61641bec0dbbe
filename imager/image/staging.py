"""The archive unpacked into plain files that any user may own.

In: a VerifiedRelease and an empty folder. Out: two trees of files named as in the archive, one
for each partition, and the Entry of each. Owners, modes, times, attributes and device nodes are
only recorded: ``root_fs`` gives them to the finished filesystem, so that neither privileges nor
umask nor the host's filesystem change what comes out.
"""

from __future__ import annotations

import errno
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import HostStorage, MalformedRelease
from imager.base.progress import Progress
from imager.image.inflate import GzipError
from imager.image.members import DEVICES, Entry, Kind, clean_path, entry_of, refuse, segments_of
from imager.image.tar_stream import HINT, TarStream, unpacked
from imager.image.tree import BOOT, Place, Tree, copy_of, implied_folder, place_of
from imager.release.verified import VerifiedRelease

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = tarfile.BLOCKSIZE
_CANNOT_HOLD = (errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Staged:
    """A release as files: ``root_folder`` and ``boot_folder`` hold what the trees describe."""

    root_folder: Path
    boot_folder: Path
    root: Tree
    boot: Tree
    made_at: int
    """The image's own time, seconds since 1970: that of the youngest member not from the future
    (a filesystem "made" tomorrow is a fault to e2fsck)."""


def stage(release: VerifiedRelease, folder: Path, progress: Progress) -> Staged:
    """Unpack ``release`` into ``folder``, which must be empty and private.

    Raises MalformedRelease for a member that must not be on a card, NotAuthentic when the tarball
    is no longer what was fetched, HostStorage when the disk is full.
    """
    with (
        host_storage(folder),
        progress.phase("unpack", release.size_bytes) as phase,
        _Stager.opened(folder) as stager,
        unpacked(release, phase) as stream,
    ):
        _read_members(stream, stager, release.tarball)
    return stager.staged()


def _read_members(stream: TarStream, stager: _Stager, tarball: Path) -> None:
    try:
        archive = tarfile.open(  # noqa: SIM115 - it holds nothing that needs closing
            fileobj=stream,  # type: ignore[call-overload]
            mode="r:",
            encoding="utf-8",
            errors="surrogateescape",
        )
        while (info := archive.next()) is not None:
            archive.members = []  # tarfile keeps every header otherwise
            with _holds(info.name):
                stager.add(info, stream)
    except GzipError:
        raise
    except (tarfile.TarError, ValueError, IndexError) as error:
        raise _broken_at(stream, tarball, str(error)) from error
    # tarfile takes a header it cannot read for the end of the archive, as tar never would.
    if len(stream.last_block) < _BLOCK:
        raise _broken_at(stream, tarball, "it stops without an end mark")
    if any(stream.last_block):
        raise _broken_at(stream, tarball, "a header's checksum is wrong")


@contextmanager
def _holds(name: str) -> Iterator[None]:
    """Tell a filesystem of this computer that cannot hold a name from a fault of the release:
    one that ignores case, wants UTF-8, or encrypts names and so makes them longer."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_HOLD:
            raise
        raise HostStorage(
            f"the filesystem of this computer cannot hold {name!r}: {os.strerror(error.errno)}",
            hint="put the cache on an ordinary ext4, xfs or btrfs filesystem with --cache DIR",
        ) from error


def _broken_at(stream: TarStream, tarball: Path, reason: str) -> MalformedRelease:
    return MalformedRelease(
        f"{tarball}: not a sound tar archive at its byte {stream.tell()}: {reason}", hint=HINT
    )


class _Stager:
    """Puts members into two folders, never above them and never through a link."""

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
    def opened(cls, folder: Path) -> Iterator[_Stager]:
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

    def staged(self) -> Staged:
        return Staged(
            self._folder / "root",
            self._folder / "boot",
            self._root,
            self._boot,
            self._newest_ns // 1_000_000_000,
        )

    def add(self, info: tarfile.TarInfo, stream: TarStream) -> None:
        """Take one member in, with its content from ``stream``."""
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
            case Kind.FOLDER:
                if before is None:
                    self._make_folder(place)
            case Kind.FILE:
                self._clear(place, before)
                stream.seek(info.offset_data)
                _write_file(place.path, directory, info, stream)
            case Kind.SYMLINK:
                self._clear(place, before)
                os.symlink(entry.target, place.path, dir_fd=directory)
            case _:
                # A device needs privileges; it is made inside the finished filesystem.
                self._clear(place, before)

    def _tree(self, place: Place) -> Tree:
        return self._boot if place.on_boot else self._root

    def _take_in(self, place: Place, entry: Entry) -> Entry | None:
        if place.on_boot and BOOT not in self._root.entries:
            self._imply(Place(False, BOOT), entry.mtime_ns)
        for parent in self._tree(place).missing_parents(place.path):
            self._imply(Place(place.on_boot, parent), entry.mtime_ns)
        return self._tree(place).put(place.path, entry)

    def _imply(self, place: Place, mtime_ns: int) -> None:
        self._tree(place).put(place.path, implied_folder(mtime_ns))
        self._make_folder(place)

    def _make_folder(self, place: Place) -> None:
        directory = self._fds[place.on_boot]
        os.mkdir(place.path, 0o700, dir_fd=directory)
        os.chmod(place.path, 0o700, dir_fd=directory)

    def _clear(self, place: Place, before: Entry | None) -> None:
        """Remove the name of an earlier member, so that its other names keep their content."""
        if before is not None and before.kind not in DEVICES:
            os.unlink(place.path, dir_fd=self._fds[place.on_boot])

    def _link(self, info: tarfile.TarInfo, place: Place) -> None:
        source = place_of(clean_path(info.linkname))
        entry = self._tree(source).entries.get(source.path)
        if entry is None:
            raise refuse(info.name, f"is a hard link to {info.linkname!r}, which is not before it")
        if entry.kind is Kind.FOLDER:
            raise refuse(info.name, f"is a hard link to the directory {info.linkname!r}")
        if source == place:
            return
        if entry.kind in DEVICES:
            raise refuse(info.name, f"is a hard link to {info.linkname!r}, a {entry.kind}")
        same_partition = source.on_boot == place.on_boot
        # FAT has no links, and none can lead from one partition to the other: they become copies.
        linked = entry if same_partition and not place.on_boot else copy_of(entry)
        self._clear(place, self._take_in(place, linked))
        os.link(
            source.path,
            place.path,
            src_dir_fd=self._fds[source.on_boot],
            dst_dir_fd=self._fds[place.on_boot],
            follow_symlinks=False,
        )


def _write_file(path: str, directory: int, info: tarfile.TarInfo, stream: TarStream) -> None:
    descriptor = os.open(path, _CREATE, 0o600, dir_fd=directory)
    try:
        os.fchmod(descriptor, 0o600)
        position = 0
        for offset, length in segments_of(info):
            if offset != position:
                os.lseek(descriptor, offset, os.SEEK_SET)
            stream.copy_to(descriptor, length)
            position = offset + length
        if position != info.size or info.sparse is not None:
            os.ftruncate(descriptor, info.size)
    finally:
        os.close(descriptor)

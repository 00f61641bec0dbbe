"""A folder served in FUSE as it is, for filesystems that are odd in one thing only."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

import mfusepy

_END_WITH_US = 1  # PR_SET_PDEATHSIG of prctl(2)
_SIGTERM = 15


class Folder(mfusepy.Operations):  # type: ignore[misc]
    """The folder ``store``, call by call."""

    use_ns = True

    def __init__(self, store: Path) -> None:
        self._root = str(store)

    def _at(self, path: str) -> str:
        return self._root + path

    # What only looks.

    def getattr(self, path: str, fh: object = None) -> dict[str, int]:
        status = os.lstat(self._at(path))
        names = "mode nlink size uid gid mtime_ns atime_ns ctime_ns"
        return {f"st_{n.removesuffix('_ns')}": getattr(status, f"st_{n}") for n in names.split()}

    def readdir(self, path: str, fh: object) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_APPEND)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        names = "f_bavail f_bfree f_blocks f_bsize f_frsize f_namemax"
        return {name: getattr(found, name) for name in names.split()}

    def flush(self, path: str, fh: int) -> int:
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return 0

    # What changes something.

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._at(target))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target), follow_symlinks=False)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] = (0, 0)) -> int:
        os.utime(self._at(path), ns=times, follow_symlinks=False)
        return 0


def serve(folder: Folder, mountpoint: str, name: str) -> None:
    """Serve ``folder`` as the filesystem ``name`` until it is unmounted, or whoever started this
    ends."""
    ctypes.CDLL(None).prctl(_END_WITH_US, _SIGTERM)
    os.umask(0)  # the caller's has been applied already
    with suppress(RuntimeError):  # how mfusepy says that a signal ended it
        mfusepy.FUSE(
            folder,
            mountpoint,
            foreground=True,
            nothreads=True,
            fsname=name,
            default_permissions=True,
        )

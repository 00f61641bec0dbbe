"""A folder in FUSE that remembers every state it was ever in: what a card holds when power fails.

``python -m tests.support.treefs MOUNTPOINT STORE STATES`` serves the folder STORE and, after each
call that changed it, leaves a copy of it in STATES/<number>, unless it looked like that before.
Beside each copy, <number>.unsynced names the files whose data had not been synced by then: a
journal that orders only names may leave those empty. FUSE does not see sync(2): the folder SYNCED,
which nobody can make, is asked for instead.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mfusepy

SYNCED = ".synced"
_END_WITH_US = 1  # PR_SET_PDEATHSIG of prctl(2)
_SIGTERM = 15


class States:
    """Copies of ``store``, numbered from 0."""

    def __init__(self, store: Path, states: Path) -> None:
        self._store = store
        self._states = states
        self._seen: set[bytes] = set()
        self.unsynced: set[str] = set()
        self.keep()

    def keep(self) -> None:
        """Copy the store as it is now."""
        digest = self._digest()
        if digest in self._seen:
            return
        copy = self._states / f"{len(self._seen):04}"
        self._seen.add(digest)
        shutil.copytree(self._store, copy, symlinks=True)
        copy.with_suffix(".unsynced").write_text("\n".join(sorted(self.unsynced)))

    def moved(self, old: str, new: str) -> None:
        """A file has a new name and takes its unsynced data along."""
        self.unsynced.discard(new)
        if old in self.unsynced:
            self.unsynced.remove(old)
            self.unsynced.add(new)

    def _digest(self) -> bytes:
        digest = hashlib.sha256("\n".join(sorted(self.unsynced)).encode())
        for folder, _, files in os.walk(self._store):
            for name in files:
                path = Path(folder, name)
                status = path.lstat()
                digest.update(f"{path}\0{status.st_mode}\0{status.st_size}\0".encode())
                with suppress(OSError):
                    digest.update(path.read_bytes())
            digest.update(f"{folder}\0".encode())
        return digest.digest()


class Filesystem(mfusepy.Operations):  # type: ignore[misc]
    """The store, call by call."""

    use_ns = True

    def __init__(self, store: Path, states: States) -> None:
        self._root = str(store)
        self._states = states

    def _at(self, path: str) -> str:
        return self._root + path

    def _change(self, call: Callable[..., Any], *words: Any) -> Any:
        given = call(*words)
        self._states.keep()
        return given

    def _wrote(self, path: str) -> None:
        self._states.unsynced.add(path.lstrip("/"))

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
        self._states.unsynced.discard(path.lstrip("/"))
        return 0

    # What changes something.

    def create(self, path: str, mode: int, fi: object = None) -> int:
        descriptor: int = self._change(
            os.open, self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode
        )
        return descriptor

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._wrote(path)
        done: int = self._change(os.pwrite, fh, data, offset)
        return done

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._wrote(path)
        self._change(os.truncate, self._at(path), length)
        return 0

    def unlink(self, path: str) -> int:
        self._states.unsynced.discard(path.lstrip("/"))
        self._change(os.unlink, self._at(path))
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._states.moved(old.lstrip("/"), new.lstrip("/"))
        self._change(os.rename, self._at(old), self._at(new))
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        if path == f"/{SYNCED}":
            self._states.unsynced.clear()
            raise mfusepy.FuseOSError(errno.EPERM)
        self._change(os.mkdir, self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._change(os.rmdir, self._at(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._change(os.symlink, source, self._at(target))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._change(os.chmod, self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._change(os.lchown, self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] = (0, 0)) -> int:
        os.utime(self._at(path), ns=times, follow_symlinks=False)
        return 0


def main() -> None:
    mountpoint, store, states = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    ctypes.CDLL(None).prctl(_END_WITH_US, _SIGTERM)
    os.umask(0)  # the caller's has been applied already
    with suppress(RuntimeError):  # how mfusepy says that a signal ended it
        mfusepy.FUSE(
            Filesystem(store, States(store, states)),
            mountpoint,
            foreground=True,
            nothreads=True,
            fsname="picloud-treefs",
            default_permissions=True,
        )


if __name__ == "__main__":
    main()

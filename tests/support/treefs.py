"""A folder in FUSE that remembers every state it was ever in: what a card holds when power fails.

``python -m tests.support.treefs MOUNTPOINT STORE STATES`` serves the folder STORE and, after each
call that changed it, leaves a copy of it in STATES/<number>, unless it looked like that before.
Beside each copy, <number>.unsynced names the files whose data had not been synced by then: a
journal that orders only names may leave those empty. FUSE does not see sync(2): the folder SYNCED,
which nobody can make, is asked for instead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mfusepy

from tests.support.folderfs import Folder, serve

SYNCED = ".synced"


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


class Filesystem(Folder):
    """The store, whose states are kept; what only looks is as it is."""

    def __init__(self, store: Path, states: States) -> None:
        super().__init__(store)
        self._states = states

    @contextmanager
    def _changing(self) -> Iterator[None]:
        yield
        self._states.keep()

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._states.unsynced.discard(path.lstrip("/"))
        return 0

    def create(self, path: str, mode: int, fi: object = None) -> int:
        with self._changing():
            return super().create(path, mode, fi)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._states.unsynced.add(path.lstrip("/"))
        with self._changing():
            return super().write(path, data, offset, fh)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._states.unsynced.add(path.lstrip("/"))
        with self._changing():
            return super().truncate(path, length, fh)

    def unlink(self, path: str) -> int:
        self._states.unsynced.discard(path.lstrip("/"))
        with self._changing():
            return super().unlink(path)

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._states.moved(old.lstrip("/"), new.lstrip("/"))
        with self._changing():
            return super().rename(old, new, flags)

    def mkdir(self, path: str, mode: int) -> int:
        if path == f"/{SYNCED}":
            self._states.unsynced.clear()
            raise mfusepy.FuseOSError(errno.EPERM)
        with self._changing():
            return super().mkdir(path, mode)

    def rmdir(self, path: str) -> int:
        with self._changing():
            return super().rmdir(path)

    def symlink(self, target: str, source: str) -> int:
        with self._changing():
            return super().symlink(target, source)

    def link(self, target: str, source: str) -> int:
        with self._changing():
            return super().link(target, source)

    def chmod(self, path: str, mode: int) -> int:
        with self._changing():
            return super().chmod(path, mode)

    def chown(self, path: str, uid: int, gid: int) -> int:
        with self._changing():
            return super().chown(path, uid, gid)


if __name__ == "__main__":
    mountpoint, store, states = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    serve(Filesystem(store, States(store, states)), mountpoint, "picloud-treefs")

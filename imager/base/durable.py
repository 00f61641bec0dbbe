"""Files that are whole or absent: atomic writes, private writes, locks, and work folders.

In: bytes and paths. Out: files that survive a power cut, a second run at the same time, and a
``kill -9`` in the middle, because they appear under their name only when complete.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from imager.base.errors import HostStorage


@contextmanager
def host_storage(path: Path) -> Iterator[None]:
    """Turn any OSError about ``path``, a file of this computer, into HostStorage."""
    try:
        yield
    except BlockingIOError:
        raise  # somebody else holds a lock: nothing is wrong with the disk
    except OSError as error:
        raise HostStorage(
            f"{error.filename2 or error.filename or path}: {os.strerror(error.errno or 0)}",
            hint=(
                "free some space, or put the cache elsewhere with --cache DIR"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else "check who owns this path and whether its filesystem is writable"
            ),
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (fsync(2): a file's own fsync does not cover them)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of ``data`` at the descriptor's position; a short write is normal."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old file or the new one, whole.

    The temporary file has ``mode`` from birth, whatever the umask, so a secret is never readable
    by others, not even for a moment.
    """
    with host_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode & 0o700
        )
        try:
            try:
                write_all(descriptor, data)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def private_folder(path: Path) -> Path:
    """Create ``path`` with mode 0700 whatever the umask, and tighten it when it exists."""
    with host_storage(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    return path


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold flock(2) on the file ``path``, made if absent; yields its descriptor.

    With ``wait=False`` raises BlockingIOError at once when another process holds it. The kernel
    drops the lock when the holder dies, however it dies.
    """
    with host_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Hold flock(2) on ``folder`` itself, made if absent, while a file in it is replaced.

    A lock on that file would not do: it belongs to the old file, which the new one replaces.
    """
    with host_storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """A private folder under ``parent`` that is gone afterwards.

    A run ended by ``kill -9`` leaves its folder behind; each folder is held by a lock, so the
    next run sees that nobody holds it and sweeps it away.
    """
    private_folder(parent)
    folder = parent / f"{name}-{secrets.token_hex(6)}"
    lock = folder.with_suffix(".lock")
    with ExitStack() as held:
        # Each clean-up is registered before its folder is made, so that Ctrl-C between the two
        # leaves nothing behind.
        held.callback(lock.unlink, missing_ok=True)
        # The guard keeps a sweep from taking a lock file between its creation and its lock.
        with locked(parent / ".guard"):
            _sweep(parent)
            held.enter_context(locked(lock))
        held.callback(remove_tree, folder)
        folder.mkdir(mode=0o700)
        yield folder


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all in it, also folders whose mode would forbid it. It is no error
    when there is no such folder."""
    if not folder.exists():
        return

    def unlock_and_retry(function: object, name: str, error: object) -> None:
        target = Path(name)
        with suppress(OSError):
            target.parent.chmod(0o700)
            if target.is_dir() and not target.is_symlink():
                target.chmod(0o700)
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink()

    shutil.rmtree(folder, onerror=unlock_and_retry)


def _sweep(parent: Path) -> None:
    for lock in parent.glob("*.lock"):
        with suppress(BlockingIOError, FileNotFoundError), locked(lock, wait=False):
            folder = lock.with_suffix("")
            if folder.is_dir():
                remove_tree(folder)
            lock.unlink(missing_ok=True)

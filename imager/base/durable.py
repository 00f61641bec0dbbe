"""Files that are whole or absent, in places a person named for them alone.

In: bytes and paths. Out: files that survive a power cut and a ``kill -9`` in the middle, because
they appear under their name only when complete; and whether there is room for them. What lies below
a rack or a cache is reached another way (``trusted_folder``).
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imager.base.errors import HostStorage
from imager.base.ownership import give_to
from imager.base.units import format_size

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def host_storage(path: Path) -> Iterator[None]:
    """Turn any OSError about ``path``, a file of this computer, into HostStorage."""
    try:
        yield
    except BlockingIOError:
        raise  # somebody else holds a lock: nothing is wrong with the disk
    except OSError as error:
        named = str(error.filename2 or error.filename or "")
        # A name without a folder was reached by descriptor, and would tell nobody where.
        where = named if "/" in named else path
        raise HostStorage(
            f"{where}: {os.strerror(error.errno or 0)}",
            hint=_mend(error),
        ) from error


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on its disk; if that is the cache, --cache DIR puts it elsewhere"
    if error.errno == errno.ENAMETOOLONG:
        return "give a shorter name"
    if isinstance(error, PermissionError):
        return how_to_be_allowed()
    return "check who owns this path and whether its filesystem is writable"


def how_to_be_allowed() -> str:
    """The hint for whatever the system does not allow the user who runs this."""
    if os.geteuid() != 0:
        return "run the command with sudo, or as the user to whom it belongs"
    return "look whether its filesystem is read-only, or the file immutable (lsattr)"


def free_bytes(folder: Path) -> int:
    """How much whoever runs this may still write on the disk of ``folder``, which need not be there
    yet. What a filesystem keeps for root counts only for root. Raises HostStorage."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    with host_storage(there):
        room = os.statvfs(there)
    return (room.f_bavail if os.geteuid() else room.f_bfree) * room.f_frsize


def require_free(folder: Path, need_bytes: int, what: str, hint: str) -> None:
    """Raise HostStorage with ``hint`` where less than ``need_bytes`` are free; ``what`` needs them,
    with its verb: ``composing takes about``."""
    free = free_bytes(folder)
    if free < need_bytes:
        need = format_size(need_bytes)
        raise HostStorage(f"{folder}: {format_size(free)} free, and {what} {need}", hint=hint)


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


def require_links_lead_on(folder: Path) -> None:
    """Raise HostStorage where ``folder``, which need not be there yet, or what is above it is a
    link to what is not there: it would be made on a disk that is not mounted."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return
        if path.is_symlink():
            raise HostStorage(
                f"{path} is a link to {path.readlink()}, where no folder is",
                hint="mount the disk that it is on, or remove the link",
            )


def make_folder(folder: Path, mode: int = 0o755) -> None:
    """Make ``folder``, with no more than ``mode``, and what is missing on the way to it. Each
    belongs to whom the folder above it belongs to, where that is somebody trusted: what is made
    with sudo in a person's home is theirs. One that is there stays as it is. Raises OSError,
    and as ``require_links_lead_on``."""
    if folder.is_dir():
        return
    require_links_lead_on(folder)
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode)
        made = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            give_to(made, folder.parent.stat())
        finally:
            os.close(made)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old file or the new one, whole. It
    belongs to whom its folder belongs, which is made where it is missing (``make_folder``).

    The temporary file has ``mode`` from birth, whatever the umask, so a secret is never readable
    by others, not even for a moment.
    """
    with host_storage(path):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, _NEW, mode & 0o700)
        try:
            try:
                write_all(descriptor, data)
                os.fchmod(descriptor, mode)
                give_to(descriptor, path.parent.stat())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def replace_in(
    folder: int,
    name: str,
    data: bytes,
    mode: int,
    give: Callable[[int], None],
    *,
    durable: bool = True,
) -> None:
    """As ``write_atomically``, for the file ``name`` of the open folder ``folder``: whatever
    becomes of the path that led there, nothing is followed. ``give`` is called with the new file's
    descriptor, before it has its name, to say whose it is. What need not survive a power cut is
    not ``durable``: nobody waits for the disk then."""
    temporary = f".{name}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, _NEW, mode & 0o700, dir_fd=folder)
    try:
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            give(descriptor)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if durable:
        os.fsync(folder)


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all in it, also folders whose mode would forbid it. It is no error
    when there is no such folder."""
    if folder.is_symlink():
        folder.unlink()
    if not folder.exists():
        return

    def unlock_and_retry(function: object, name: str, error: object) -> None:
        del function, error
        target = Path(name)
        with suppress(OSError):
            if target != folder:
                target.parent.chmod(0o700)
            if target.is_dir() and not target.is_symlink():
                target.chmod(0o700)
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink()

    shutil.rmtree(folder, onerror=unlock_and_retry)

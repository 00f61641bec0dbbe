"""Files of a folder that may be a stranger's: opened below that folder, and nowhere else.

In: a folder, and names below it. Out: what lies there, read by descriptor and without following a
symbolic link on the way, so that nothing a person else can put there leads out of the folder.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_LINK = "is a symbolic link, and links are not followed here"
_NO_FILE = "is no regular file"
_QUIET = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK, because opening a FIFO would wait for its other end."""


@dataclass(frozen=True, slots=True)
class Below:
    """The place ``parts`` below ``root``. How ``root`` itself is reached is the caller's choice:
    links on the way to it are followed, links below it are not.

    Every method raises OSError whose ``strerror`` says why, in words for a person.
    """

    root: Path
    parts: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> Below:
        return Below(self.root, (*self.parts, *name.split("/")))

    @property
    def path(self) -> Path:
        """For messages; who opens it would follow links."""
        return self.root.joinpath(*self.parts)

    def status(self) -> os.stat_result | None:
        """What is there (a link is a link); None where nothing is."""
        try:
            folder = _open(self.root, self.parts[:-1], os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            return os.stat(
                self.parts[-1] if self.parts else ".", dir_fd=folder, follow_symlinks=False
            )
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)

    def names(self) -> list[str]:
        """What the folder here has in it, sorted."""
        folder = _open(self.root, self.parts, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(entry.name for entry in os.scandir(folder))
        finally:
            os.close(folder)

    def target(self) -> str:
        """Where the symbolic link here points."""
        folder = _open(self.root, self.parts[:-1], os.O_PATH | os.O_DIRECTORY)
        try:
            return os.readlink(self.parts[-1], dir_fd=folder)
        finally:
            os.close(folder)

    def read(self, limit: int, *, one_link: bool) -> tuple[bytes, os.stat_result]:
        """Content and status of the regular file here, of ``limit`` bytes at most. ``one_link``
        refuses a file that has a second name, which may lie outside the folder."""
        descriptor = _open(self.root, self.parts, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            if one_link and stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
                why = f"has {status.st_nlink} names (hard links); copy it, so that it has one"
                raise OSError(errno.EMLINK, why)
            return _read_regular(descriptor, limit), status
        finally:
            os.close(descriptor)


def read_named(path: Path, limit: int) -> bytes:
    """The regular file that a person named, of ``limit`` bytes at most: links are followed, and
    what is no file (a device, a FIFO) is not even opened. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, _NO_FILE)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return _read_regular(descriptor, limit)
    finally:
        os.close(descriptor)


def _read_regular(descriptor: int, limit: int) -> bytes:
    """All of the regular file open as ``descriptor``; OSError for anything else, and for one of
    more than ``limit`` bytes."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NO_FILE)
    too_large = OSError(errno.EFBIG, f"is larger than {limit} bytes")
    if status.st_size > limit:
        raise too_large
    pieces, room = [], limit + 1
    while room and (piece := os.read(descriptor, min(room, 1 << 20))):
        pieces.append(piece)
        room -= len(piece)
    if not room:
        raise too_large
    return b"".join(pieces)


def _open(root: Path, parts: tuple[str, ...], flags: int) -> int:
    """A descriptor of ``parts`` below ``root``, each opened from the one before it."""
    way = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    held = os.open(root, way if parts else flags | os.O_CLOEXEC)
    for number, part in enumerate(parts, 1):
        try:
            following = os.open(
                part, (flags if number == len(parts) else way) | _QUIET, dir_fd=held
            )
        except OSError as error:
            if _is_link(part, held):
                raise OSError(errno.ELOOP, _LINK, str(root.joinpath(*parts[:number]))) from None
            where = str(root.joinpath(*parts[:number]))
            raise OSError(error.errno, error.strerror, where) from None
        finally:
            os.close(held)
        held = following
    return held


def _is_link(part: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False

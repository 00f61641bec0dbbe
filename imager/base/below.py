"""The one way to open what lies below a folder that may be a stranger's.

In: a folder, and names below it. Out: descriptors, each opened from the one before it and without
following a symbolic link on the way, so that nothing a person else can put there leads out of the
folder. ``TrustedFolder`` makes and changes files on top of it; ``Below`` only reads.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imager.base.ownership import distrust, mend

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PLAIN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK, because opening a FIFO would wait for its other end."""

_LINK = "is a symbolic link, and links are not followed here"
_NO_FOLDER = "is no folder"
_NO_FILE = "is no regular file"


class NotUsed(OSError):
    """What is there must not be used. ``strerror`` says why, in words for a person.

    ``stranger`` is why it could be somebody else's, and ``advice`` how to allow it; both are empty
    for a link, a second name, or what is neither file nor folder.
    """

    def __init__(self, code: int, why: str, path: Path, *, advice: str = "") -> None:
        super().__init__(code, f"{why}; if you trust it: {advice}" if advice else why, str(path))
        self.stranger = why if advice else ""
        self.advice = advice


@contextmanager
def reached(
    root: Path,
    parts: tuple[str, ...],
    *,
    judged: bool = True,
    make: Callable[[int, str], None] | None = None,
) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``root``. Links on the way to ``root`` are
    followed, links below it are not. ``make`` is called with the folder and the name before each of
    ``parts`` is entered. Raises as ``entered``."""
    held, path = entered(None, os.fspath(root), root, judged=judged), root
    try:
        for name in parts:
            path = path / name
            if make is not None:
                make(held, name)
            following = entered(held, name, path, judged=judged)
            os.close(held)
            held = following
        yield held
    finally:
        os.close(held)


def entered(above: int | None, name: str, path: Path, *, judged: bool = True) -> int:
    """A descriptor of the folder ``name`` in the open folder ``above``; without one, of the path
    ``name``. ``path`` is for messages.

    Raises NotUsed for a link, for what is no folder, and, where it is ``judged``, for a folder of
    somebody who may not decide what this program does (``ownership``); OSError.
    """
    try:
        descriptor = os.open(
            name, FOLDER | (os.O_NOFOLLOW if above is not None else 0), dir_fd=above
        )
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(error.errno, error.strerror, str(path)) from None
        if above is not None and _is_link(name, above):
            raise NotUsed(errno.ELOOP, _LINK, path) from None
        raise NotUsed(errno.ENOTDIR, _NO_FOLDER, path) from None
    return _judged(descriptor, path) if judged else descriptor


def opened(folder: int, name: str, flags: int, path: Path, *, judged: bool = True) -> int:
    """A descriptor, opened with ``flags``, of the regular file ``name`` of an open folder.

    It is looked at before it is opened: a device is not even touched. Raises NotUsed as
    ``entered``, and for a file with a second name where it is ``judged``; OSError.
    """
    require_plain(folder, name, path, judged=judged)
    try:
        descriptor = os.open(name, flags | PLAIN, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotUsed(errno.ELOOP, _LINK, path) from None
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise NotUsed(errno.EINVAL, _NO_FILE, path) from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    if judged:
        _judged(descriptor, path)
    try:
        _require_regular(os.fstat(descriptor), path, judged=judged)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_plain(folder: int, name: str, path: Path, *, judged: bool = True) -> None:
    """Raise NotUsed for what is called ``name`` and is not one plain file; nothing is fine."""
    try:
        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    _require_regular(about, path, judged=judged)


def read_at_most(descriptor: int, count: int) -> bytes:
    """The first ``count`` bytes of an open file, or all of it where it has fewer."""
    pieces = []
    while count and (piece := os.read(descriptor, min(count, 1 << 20))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Below:
    """The place ``parts`` below ``root``, which is only looked at. How ``root`` itself is reached
    is the caller's choice: links on the way to it are followed.

    Every method raises OSError whose ``strerror`` says why, in words for a person.
    """

    root: Path
    parts: tuple[str, ...] = ()
    judged: bool = True
    """Whether what lies here, and every folder on the way, must have one name and belong to
    somebody who may decide what this program does (``ownership``)."""

    def __truediv__(self, name: str) -> Below:
        return Below(self.root, (*self.parts, *name.split("/")), self.judged)

    @property
    def path(self) -> Path:
        """For messages; who opens it would follow links."""
        return self.root.joinpath(*self.parts)

    def status(self) -> os.stat_result | None:
        """What is there (a link is a link); None where nothing is."""
        try:
            with self._folder() as folder:
                name = self.parts[-1] if self.parts else "."
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """What the folder here has in it, sorted."""
        with reached(self.root, self.parts, judged=self.judged) as folder:
            return sorted(os.listdir(folder))  # noqa: PTH208 - a descriptor has no path

    def target(self) -> str:
        """Where the symbolic link here points."""
        with self._folder() as folder:
            return os.readlink(self.parts[-1], dir_fd=folder)

    def read(self, limit: int) -> tuple[bytes, os.stat_result]:
        """Content and status of the regular file here, of ``limit`` bytes at most."""
        with self._folder() as folder:
            descriptor = opened(folder, self.parts[-1], os.O_RDONLY, self.path, judged=self.judged)
        try:
            return _within(descriptor, limit), os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _folder(self) -> AbstractContextManager[int]:
        """The folder that what lies here is in."""
        return reached(self.root, self.parts[:-1], judged=self.judged)


def read_named(path: Path, limit: int) -> bytes:
    """The regular file that a person named, of ``limit`` bytes at most. Raises as ``named``."""
    descriptor = named(path, stat.S_ISREG)
    try:
        return _within(descriptor, limit)
    finally:
        os.close(descriptor)


def named(path: Path, *kinds: Callable[[int], bool]) -> int:
    """A descriptor, for reading, of what a person named: links are followed. What is of none of
    ``kinds`` (``stat.S_ISREG`` and its like), as a device or a FIFO may be, is not even opened.
    Raises NotUsed for it, OSError."""
    _require_kind(path.stat(), kinds, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _require_kind(os.fstat(descriptor), kinds, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_kind(
    about: os.stat_result, kinds: tuple[Callable[[int], bool], ...], path: Path
) -> None:
    if not any(is_one(about.st_mode) for is_one in kinds):
        raise NotUsed(errno.EINVAL, _NO_FILE, path)


def _within(descriptor: int, limit: int) -> bytes:
    """All of an open file; OSError for one of more than ``limit`` bytes, which is not read where
    its size is known."""
    room = limit + 1
    data = read_at_most(descriptor, room) if os.fstat(descriptor).st_size < room else None
    if data is None or len(data) == room:
        raise OSError(errno.EFBIG, f"is larger than {limit} bytes")
    return data


def _require_regular(about: os.stat_result, path: Path, *, judged: bool) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise NotUsed(errno.ELOOP, _LINK, path)
    if not stat.S_ISREG(about.st_mode):
        raise NotUsed(errno.EINVAL, _NO_FILE, path)
    if judged and about.st_nlink > 1:
        why = f"has {about.st_nlink} names (hard links); copy it, so that it has one"
        raise NotUsed(errno.EMLINK, why, path)


def _judged(descriptor: int, path: Path) -> int:
    """``descriptor``, which is closed where what is open as it belongs to a stranger."""
    try:
        about = os.fstat(descriptor)
        reason = distrust(about, descriptor)
        if reason is not None:
            raise NotUsed(errno.EPERM, reason, path, advice=mend(about, reason, path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False

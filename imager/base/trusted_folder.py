"""A folder that a stranger may have filled: a rack that was cloned, a cache on a borrowed disk.

In: the path of a folder, as the person named it. Out: its files and folders, each reached step by
step from the folder's own descriptor (``below``). Below it no link is followed, a file must be a
regular one with a single name, and everything must belong to somebody who may decide what this
program does (``ownership``). So a rack that holds a link to /etc/shadow neither shows that file nor
changes it.

What is made belongs to the owner of the folder: after one ``sudo`` a person can still use their
own rack.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path

from imager.base.below import (
    FOLDER,
    PLAIN,
    NotUsed,
    opened,
    reached,
    read_at_most,
    require_plain,
)
from imager.base.durable import host_storage, how_to_be_allowed, make_folder, replace_in
from imager.base.errors import ConfigurationError, HostStorage
from imager.base.ownership import chown_words, give_to, give_tree_to, person, user_name

PRIVATE = ".picloud"
_IGNORE = ".gitignore"
_CHANGES = "changes.lock"


@dataclass(frozen=True, slots=True)
class TrustedFolder:
    """A folder that is judged before anything in it is used.

    ``root`` is what the person named and may be reached through links; ``below`` are the names of
    the folders from there, which may not. Nothing is looked at before the first call. Every method
    raises ConfigurationError that names the path and says how to allow it, when something on the
    way is a link or a stranger's; FileNotFoundError when it is not there; HostStorage for the
    troubles of the disk.
    """

    root: Path
    below: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> TrustedFolder:
        """The folder ``name`` (one name, not a path) in this one, whether or not it is there."""
        return TrustedFolder(self.root, (*self.below, _plain(name)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """For messages, and for other programs once ``make`` or ``exists`` has judged it."""
        return self.root.joinpath(*self.below)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    @property
    def parent(self) -> TrustedFolder:
        """The folder it is in. What is above the one a person named is not ours to judge:
        ValueError."""
        if not self.below:
            raise ValueError(f"{self.root} is the folder that was named")
        return TrustedFolder(self.root, self.below[:-1])

    # ── the folder itself ───────────────────────────────────────────────────────────────────

    def exists(self) -> bool:
        """Whether it is there."""
        try:
            with self.reached():
                return True
        except FileNotFoundError:
            return False

    def make(self, mode: int = 0o700) -> TrustedFolder:
        """Make it and what is missing on the way, with ``mode`` whatever the umask. A folder that
        is there keeps its mode. Returns itself."""
        with self.reached(make=mode):
            return self

    def make_private(self) -> TrustedFolder:
        """As ``make``; one that is there becomes mode 0700 too. Returns itself."""
        with self.reached(make=0o700) as folder, self._trouble():
            if stat.S_IMODE(os.fstat(folder).st_mode) != 0o700:
                os.fchmod(folder, 0o700)
        return self

    def private(self) -> TrustedFolder:
        """The folder ``.picloud`` in it, for what is nobody else's: made when absent, mode 0700,
        ignored by git."""
        kept = (self / PRIVATE).make_private()
        if _IGNORE not in kept.names():
            kept.write(_IGNORE, b"# Private keys: back this folder up, never publish it.\n*\n")
        return kept

    def adopt(self, made: Path, name: str) -> None:
        """Move the folder ``made``, which this program filled in private on the same filesystem,
        here as ``name``, durably; it belongs to whom this folder belongs."""
        with self.reached() as folder, self._trouble(name):
            give_tree_to(made, os.fstat(folder))
            os.rename(made, _plain(name), dst_dir_fd=folder)
            os.fsync(folder)

    def names(self) -> list[str]:
        """What is in it, sorted; nothing when it is not there."""
        try:
            with self.reached() as folder:
                return sorted(os.listdir(folder))  # noqa: PTH208 - a descriptor has no path
        except FileNotFoundError:
            return []

    def changed(self) -> int:
        """When a name in it last changed, in nanoseconds since 1970."""
        with self.reached() as folder:
            return os.fstat(folder).st_mtime_ns

    def sync(self) -> None:
        """Make the names in it durable (fsync(2): a file's own fsync does not cover them)."""
        with self.reached() as folder, self._trouble():
            os.fsync(folder)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold flock(2) for a change to a file in it that is replaced: a lock on such a file would
        be lost with it. Whoever can open what is locked can hold it for ever, so it is a file in
        the private folder; that one and the folder itself are made if absent."""
        with self.make(0o755).private().locked(_CHANGES):
            yield

    @contextmanager
    def reached(self, make: int | None = None) -> Iterator[int]:
        """Its descriptor, after everything on the way was judged; what is missing is made with
        the mode ``make``, where one is given."""
        with ExitStack() as held:
            with self._trouble():
                if make is not None:
                    make_folder(self.root, make)
                making = None if make is None else partial(_make_in, mode=make)
                folder = held.enter_context(reached(self.root, self.below, make=making))
            yield folder

    @contextmanager
    def _trouble(self, name: str = "") -> Iterator[None]:
        """Turn the troubles of the disk with ``name`` in it into HostStorage. What a run with sudo
        left to root can be given back; that is said."""
        try:
            yield
        except (FileNotFoundError, BlockingIOError):
            raise
        except NotUsed as error:
            raise _refusal(error) from None
        except PermissionError as error:
            take_back = (
                "if a run with sudo left it to root, take it back: "
                f"sudo chown -R {chown_words(person())} {shlex.quote(str(self.root))}"
            )
            raise HostStorage(
                f"{self.path / name}: {os.strerror(error.errno or 0)} for {user_name(person())}",
                hint=take_back if os.path.lexists(self.root) else how_to_be_allowed(),
            ) from error
        except OSError:
            with host_storage(self.path / name):
                raise

    # ── the files in it ─────────────────────────────────────────────────────────────────────

    @contextmanager
    def open(self, name: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
        """The descriptor of the file ``name``, opened with ``flags`` (of open(2)). With O_CREAT
        what is missing is made: the file with ``mode``, whatever the umask."""
        make = 0o700 if flags & os.O_CREAT else None
        with self.reached(make) as folder, self._trouble(name):
            made = _made_in(folder, _plain(name), flags, mode) if flags & os.O_CREAT else None
            if made is None:
                made = opened(folder, _plain(name), flags & ~os.O_CREAT, self.path / name)
        try:
            yield made
        finally:
            os.close(made)

    def read(self, name: str, limit: int) -> bytes:
        """All of the file ``name``; ConfigurationError when it has more than ``limit`` bytes."""
        with self.reached() as folder:
            return self._read_in(folder, _plain(name), limit)

    def read_each(self, names: Iterable[str], limit: int) -> dict[str, bytes]:
        """As ``read``, for each of ``names``; files that are not there are left out."""
        found = {}
        with self.reached() as folder:
            for name in names:
                with suppress(FileNotFoundError):
                    found[name] = self._read_in(folder, _plain(name), limit)
        return found

    def _read_in(self, folder: int, name: str, limit: int) -> bytes:
        path = self.path / name
        with self._trouble(name):
            descriptor = opened(folder, name, os.O_RDONLY, path)
            try:
                data = read_at_most(descriptor, limit + 1)
            finally:
                os.close(descriptor)
        if len(data) > limit:
            raise ConfigurationError(
                f"{path}: larger than {limit} bytes, which no such file is",
                hint="restore it from a backup, or move it away",
            )
        return data

    def require_file(self, name: str) -> None:
        """Raise as ``open`` for what is called ``name`` and is a link or no regular file. Whose it
        is and how many names it has does not matter to who only replaces it; nothing is fine."""
        with suppress(FileNotFoundError), self.reached() as folder, self._trouble(name):
            require_plain(folder, _plain(name), self.path / name, judged=False)

    def size(self, name: str) -> int:
        """The bytes of the file ``name``, which is opened for it: a link is refused."""
        with self.open(name) as descriptor:
            return os.fstat(descriptor).st_size

    def write(self, name: str, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
        """Replace the file ``name`` by ``data`` so that a reader sees the old file or the new one,
        whole; where it is ``durable``, also after a power cut. It has ``mode`` from birth, whatever
        the umask: a secret is never readable by others, not even for a moment."""
        with self.reached(make=0o755) as folder, self._trouble(name):
            require_plain(folder, _plain(name), self.path / name)
            owner = os.fstat(folder)
            replace_in(
                folder,
                name,
                data,
                mode,
                lambda descriptor: give_to(descriptor, owner),
                durable=durable,
            )

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[int]:
        """Hold flock(2) on the file ``name``, made if absent; yields its descriptor. It is private:
        who can open a file can lock it.

        With ``wait=False`` raises BlockingIOError at once when another process holds it. The
        kernel drops the lock when the holder dies, however it dies.
        """
        with self.open(name, os.O_RDWR | os.O_CREAT, 0o600) as descriptor:
            if os.fstat(descriptor).st_mode & 0o077:  # as versions before this one made it
                with suppress(PermissionError):
                    os.fchmod(descriptor, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield descriptor

    @contextmanager
    def locked_for_reading(self, name: str) -> Iterator[None]:
        """Wait for whoever changes what the file ``name`` guards, and keep it from changing; the
        file must be there and stays as it is."""
        with self.open(name) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield

    def is_locked(self, name: str) -> bool:
        """Whether another process holds ``locked`` on the file ``name``; looking holds it shared
        for an instant."""
        try:
            with self.open(name) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def rename(self, old: str, new: str) -> None:
        """Give what is called ``old`` the name ``new``, durably."""
        with self.reached() as folder, self._trouble(new):
            os.rename(_plain(old), _plain(new), src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def remove(self, name: str) -> None:
        """Remove the file ``name``, or the link itself where it is one; none is fine."""
        with suppress(FileNotFoundError), self.reached() as folder, self._trouble(name):
            os.unlink(_plain(name), dir_fd=folder)

    def remove_folder(self, name: str) -> None:
        """Remove the folder ``name`` with all that is in it, following no link; none is fine."""
        with suppress(FileNotFoundError), self.reached() as folder, self._trouble(name):
            shutil.rmtree(_plain(name), dir_fd=folder)


@contextmanager
def kept_file(path: Path) -> Iterator[BufferedReader]:
    """The file ``path`` of a folder in a cache, open for reading and judged anew: something else
    may have got its name since it was found there. Raises as ``TrustedFolder.open``."""
    with (
        TrustedFolder(path.parent).open(path.name) as descriptor,
        os.fdopen(descriptor, "rb", closefd=False) as file,
    ):
        yield file


def kept_bytes(path: Path, limit: int) -> bytes:
    """All of such a file, of ``limit`` bytes at most. Raises as ``TrustedFolder.read``, and
    HostStorage when it is gone."""
    with host_storage(path):
        return TrustedFolder(path.parent).read(path.name, limit)


def _plain(name: str) -> str:
    """``name``, which must be one name and no path; anything else is a mistake of ours."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of something in a folder")
    return name


def _make_in(folder: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=folder)
    except FileExistsError:
        return
    made = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.fchmod(made, mode)
        give_to(made, os.fstat(folder))
    finally:
        os.close(made)


def _made_in(folder: int, name: str, flags: int, mode: int) -> int | None:
    """Make and open one file; None where that name is there already."""
    with suppress(FileExistsError):
        made = os.open(name, flags | PLAIN | os.O_CREAT | os.O_EXCL, mode & 0o700, dir_fd=folder)
        os.fchmod(made, mode)
        give_to(made, os.fstat(folder))
        return made
    return None


def _refusal(error: NotUsed) -> ConfigurationError:
    if error.stranger:
        return ConfigurationError(
            f"{error.filename}: {error.stranger}, so it could tell this program what to do",
            hint=f"look at what is in it; if you trust it: {error.advice}",
        )
    return ConfigurationError(
        f"{error.filename}: {error.strerror}",
        hint="below a rack, a cache or a folder of images only plain files and folders are used: "
        "look what it is, then put the file or folder itself in its place, or remove it",
    )

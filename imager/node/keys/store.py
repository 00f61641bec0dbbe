"""Keeps keys on disk, in folders that are either complete or absent.

In: the files of one key pair or identity. Out: the same files, however often they are asked for,
also by several runs at once. A folder is filled under another name and renamed when it is complete,
so neither a second run nor a ``kill -9`` can leave half a pair that a later run would use.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from imager.base.durable import (
    fsync_folder,
    host_storage,
    locked,
    private_folder,
    remove_tree,
    write_atomically,
)
from imager.base.errors import ConfigurationError

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
_HALF_MADE = ".new-"
_ASIDE = ".old"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One file of the store; a private one is never readable by others."""

    content: bytes
    private: bool

    def __repr__(self) -> str:
        # No key may be shown when a value of this type is printed.
        return f"KeyFile({len(self.content)} bytes, private={self.private})"


@contextmanager
def store_locked(keys: Path) -> Iterator[None]:
    """Lock the key store ``keys`` against other runs; first mend what a killed run left half
    done."""
    private_folder(keys)
    with locked(keys / ".lock"):
        for left_over in keys.glob(f"*/{_HALF_MADE}*"):
            remove_tree(left_over)
        for aside in keys.glob(f"*/*{_ASIDE}"):
            if not aside.with_suffix("").exists():
                aside.rename(aside.with_suffix(""))
        yield


@contextmanager
def store_at_hand(keys: Path) -> Iterator[None]:
    """As ``store_locked``, but a store that does not exist is not made."""
    with store_locked(keys) if keys.is_dir() else nullcontext():
        yield


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """A folder of files that belong together, such as the two halves of a key pair.

    Call its methods with the store locked.
    """

    path: Path

    @property
    def is_there(self) -> bool:
        """Whether it exists; needs no lock."""
        return self.path.is_dir()

    def kept(
        self, names: tuple[str, ...], make: Callable[[], Mapping[str, KeyFile]]
    ) -> dict[str, bytes]:
        """The files ``names``. If the folder is absent, ``make`` makes them.

        Raises ConfigurationError that names the file when the folder exists but one of its files is
        missing: a new half would not fit the other one.
        """
        if not self.is_there:
            _publish(self.path, make())
        return {name: _read(self.path / name) for name in names}

    def damaged(self, name: str, why: str) -> ConfigurationError:
        """The error for the file ``name``, which cannot be used."""
        return damaged(self.path / name, why)

    def former(self) -> KeyFolder:
        """The files that the last ``replace`` kept aside; raises ConfigurationError if there are
        none."""
        aside = _aside(self.path)
        if not aside.is_dir():
            raise ConfigurationError(
                f"{aside}: no such folder, so there is nothing to go back to",
                hint="only the keys that the last rotation replaced are kept",
            )
        return KeyFolder(aside)

    def replace(self, make: Callable[[], Mapping[str, KeyFile]]) -> None:
        """Put new files into the folder, which must exist. The old ones are kept aside until the
        next time.

        A run that is killed at any moment leaves the old files or the new ones. If it is killed
        while the folder is absent, ``store_locked`` puts the old files back.
        """
        _publish(self.path, make(), aside=_aside(self.path))

    def restore(self) -> None:
        """Use the files again that were kept aside, and remove those in use until now.

        Raises ConfigurationError when nothing was kept.
        """
        aside = self.former().path
        with host_storage(self.path):
            _discard(self.path)
            aside.rename(self.path)
            fsync_folder(self.path.parent)


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """The folders of one node; they need not exist yet.

    ``card`` has its numbers, ``ssh`` its host keys, ``salt`` the pair of its minion, and ``master``
    the pair of the Salt master if the node is one.
    """

    card: KeyFolder
    ssh: KeyFolder
    salt: KeyFolder
    master: KeyFolder


def folders_of(keys: Path, node: str) -> NodeFolders:
    """All folders of ``node`` in the key store ``keys``."""
    home = keys / node
    return NodeFolders(*(KeyFolder(home / name) for name in ("card", "ssh", "salt", "master")))


def _aside(folder: Path) -> Path:
    """Where ``replace`` keeps the old files of ``folder``."""
    return folder.with_name(folder.name + _ASIDE)


def _publish(folder: Path, files: Mapping[str, KeyFile], aside: Path | None = None) -> None:
    parent = private_folder(folder.parent)
    unfinished = _unfinished(folder)
    with host_storage(folder):
        try:
            private_folder(unfinished)
            for name, file in files.items():
                mode = PRIVATE_MODE if file.private else PUBLIC_MODE
                write_atomically(unfinished / name, file.content, mode=mode)
            if aside is not None:
                _discard(aside)
                folder.rename(aside)
            unfinished.rename(folder)
            fsync_folder(parent)
        except BaseException:
            remove_tree(unfinished)
            raise


def _discard(folder: Path) -> None:
    """Remove ``folder``, if it exists. It is renamed first, so that a kill leaves no part of it."""
    if folder.is_dir():
        doomed = _unfinished(folder)
        folder.rename(doomed)
        remove_tree(doomed)


def _unfinished(folder: Path) -> Path:
    """A name beside ``folder`` for files that the next run removes if this one is killed."""
    return folder.with_name(f"{_HALF_MADE}{folder.name}-{secrets.token_hex(4)}")


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
    except PermissionError:
        with host_storage(path):
            raise
    except OSError as error:
        raise damaged(path, error.strerror or "cannot be read") from error
    if not data:
        raise damaged(path, "is empty")
    return data


def damaged(path: Path, why: str) -> ConfigurationError:
    """The error for a file of the store that cannot be used."""
    return ConfigurationError(
        f"{path}: {why}",
        hint=f"restore it from a backup; or remove the folder {path.parent} to have it made anew, "
        "and make the others forget the old one (salt-key -d NODE, ssh-keygen -R NODE)",
    )

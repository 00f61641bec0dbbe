"""Folders of keys that are whole or absent, on the rack's disk.

In: the files of one key pair or identity. Out: the same files, however often and by however many
runs they are asked for. A folder is filled under another name and renamed when complete, so
neither a second run nor a ``kill -9`` can leave half a pair that a later run would use.
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
        # Whatever prints a value of this type must not print a key.
        return f"KeyFile({len(self.content)} bytes, private={self.private})"


@contextmanager
def store_locked(keys: Path) -> Iterator[None]:
    """Keep other runs out of the key store ``keys``; what a killed run left half done is mended
    first."""
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
    """As ``store_locked``, but a store that is not there yet is not made."""
    with store_locked(keys) if keys.is_dir() else nullcontext():
        yield


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """A folder of files that belong together, as the two halves of a pair do.

    Call its methods with the store locked.
    """

    path: Path

    @property
    def is_there(self) -> bool:
        """Whether it was ever filled; needs no lock."""
        return self.path.is_dir()

    def kept(
        self, names: tuple[str, ...], make: Callable[[], Mapping[str, KeyFile]]
    ) -> dict[str, bytes]:
        """The files ``names``; ``make`` gives them when the folder is absent.

        Raises ConfigurationError that names the file when the folder is there but a file of it is
        not: making a new half would not fit the other.
        """
        if not self.is_there:
            _publish(self.path, make())
        return {name: _read(self.path / name) for name in names}

    def damaged(self, name: str, why: str) -> ConfigurationError:
        """The error for the file ``name``, which cannot be used."""
        return damaged(self.path / name, why)

    def former(self) -> KeyFolder:
        """The files kept aside; raises ConfigurationError when nothing was kept."""
        aside = _aside(self.path)
        if not aside.is_dir():
            raise ConfigurationError(
                f"{aside}: no such folder, so there is nothing to go back to",
                hint="only the keys that the last rotation replaced are kept",
            )
        return KeyFolder(aside)

    def replace(self, make: Callable[[], Mapping[str, KeyFile]]) -> None:
        """Fill the folder, which is there, anew; its files are kept aside until the next time.

        A run killed at any moment leaves the old files or the new ones: while the folder is away
        between the two, ``store_locked`` puts what is aside in its place.
        """
        _publish(self.path, make(), aside=_aside(self.path))

    def restore(self) -> None:
        """Put the files kept aside back in use; those in use until now are removed.

        Raises ConfigurationError when nothing was kept.
        """
        aside = self.former().path
        with host_storage(self.path):
            _discard(self.path)
            aside.rename(self.path)
            fsync_folder(self.path.parent)


@dataclass(frozen=True, slots=True)
class NodeFolders:
    """Where the store keeps what is one node's own; a folder may not be there yet.

    ``card`` has its numbers, ``ssh`` its host keys, ``salt`` its minion's pair, and ``master`` the
    pair of the Salt master if the node is one.
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
    """Where the files of ``folder`` are kept that ``replace`` took out of use."""
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
    """Remove ``folder``, if it is there, so that a kill never leaves a part of it in its place."""
    if folder.is_dir():
        doomed = _unfinished(folder)
        folder.rename(doomed)
        remove_tree(doomed)


def _unfinished(folder: Path) -> Path:
    """A name beside ``folder`` for what must not outlive a killed run."""
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

"""Keeps keys on disk, in folders that are either complete or absent.

In: the files of one key pair or identity. Out: the same files, however often they are asked for,
also by several runs at once. A folder is filled under another name and renamed when it is complete,
so neither a second run nor a ``kill -9`` can leave half a pair that a later run would use.
"""

from __future__ import annotations

import errno
import os
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imager.base.errors import ConfigurationError
from imager.base.trusted_folder import TrustedFolder

PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644
LARGEST_KEY = 1 << 16
_HALF_MADE = ".new-"
_ASIDE = ".old"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One file of the store; a private one is never readable by others."""

    content: bytes
    private: bool

    def __repr__(self) -> str:
        # No key may be shown when a value of this type is printed.
        return f"KeyFile({len(self.content)} bytes, private={self.private})"


KeyMaker = Callable[[], Mapping[str, KeyFile]]
"""Makes the files of one folder, by their names."""


@contextmanager
def store_locked(keys: TrustedFolder, nodes: Iterable[str] | None = None) -> Iterator[None]:
    """Keep other runs out of the key store ``keys``; what a killed run left half done of ``nodes``,
    or of all there are, is mended first."""
    with keys.make_private().locked(_LOCK):
        for node in nodes_in(keys) if nodes is None else nodes:
            home = keys / node
            for name in _half_done(home):
                if name.startswith(_HALF_MADE):
                    home.remove_folder(name)
                else:
                    home.rename(name, name.removesuffix(_ASIDE))
        yield


def filled_folders(keys: TrustedFolder, node: str) -> frozenset[str]:
    """The names of those folders of ``node`` that have files, as ``NodeFolders`` names them; with
    one look, because a large rack asks for each of its nodes."""
    return frozenset(name.removesuffix(_ASIDE) for name in (keys / node).names())


def is_half_done(keys: TrustedFolder, node: str) -> bool:
    """Whether a killed run left something of ``node`` that ``store_locked`` would mend."""
    return bool(_half_done(keys / node))


def _half_done(home: TrustedFolder) -> list[str]:
    """The folders in ``home`` that were never finished, and those set aside whose place is
    empty."""
    names = home.names()
    return [
        name
        for name in names
        if name.startswith(_HALF_MADE)
        or (name.endswith(_ASIDE) and name.removesuffix(_ASIDE) not in names)
    ]


@contextmanager
def store_at_hand(keys: TrustedFolder) -> Iterator[None]:
    """Keep others from changing the store while it is only looked at: nothing is made or mended,
    and a store that was never locked has nobody in it."""
    try:
        with keys.locked_for_reading(_LOCK):
            yield
    except FileNotFoundError:
        yield


def nodes_in(keys: TrustedFolder) -> list[str]:
    """The names of those that have keys in the store ``keys``."""
    return [name for name in keys.names() if not name.startswith(".")]


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """A folder of files that belong together, such as the two halves of a key pair.

    Call its methods with the store locked.
    """

    folder: TrustedFolder

    @property
    def path(self) -> Path:
        """For messages."""
        return self.folder.path

    @property
    def is_there(self) -> bool:
        """Whether it was ever filled; needs no lock."""
        return any(folder.exists() for folder in self._places)

    def kept(self, names: tuple[str, ...], make: KeyMaker) -> dict[str, bytes]:
        """The files ``names``. If the folder is absent, ``make`` makes them.

        Raises ConfigurationError that names the file when the folder exists but one of its files is
        missing: a new half would not fit the other one.
        """
        found = self.at_hand(names)
        if found is not None:
            return found
        _publish(self.folder, make())
        return _read(self.folder, names)

    def at_hand(self, names: tuple[str, ...]) -> dict[str, bytes] | None:
        """The files ``names``; None if the folder was never filled. Raises as ``kept``."""
        for folder in self._places:
            with suppress(FileNotFoundError):
                return _read(folder, names)
        return None

    def damaged(self, name: str, why: str) -> ConfigurationError:
        """The error for the file ``name``, which cannot be used."""
        return _damaged(self.folder, name, why)

    def former(self) -> KeyFolder:
        """The files kept aside; raises ConfigurationError when nothing was kept."""
        aside = _aside(self.folder)
        if not aside.exists():
            raise ConfigurationError(
                f"{aside}: no such folder, so there is nothing to go back to",
                hint="only the keys that the last rotation replaced are kept",
            )
        return KeyFolder(aside)

    def replace(self, make: KeyMaker) -> None:
        """Put new files into the folder, which must exist. The old ones are kept aside until the
        next time.

        A run that is killed at any moment leaves the old files or the new ones. If it is killed
        while the folder is absent, ``store_locked`` puts the old files back.
        """
        _publish(self.folder, make(), aside=_aside(self.folder))

    def restore(self) -> None:
        """Use the files again that were kept aside, and remove those in use until now.

        Raises ConfigurationError when nothing was kept.
        """
        aside = self.former().folder
        _discard(self.folder)
        self.folder.parent.rename(aside.name, self.folder.name)

    @property
    def _places(self) -> tuple[TrustedFolder, TrustedFolder]:
        """Where its files may be: aside, when a run was killed between the two steps of
        ``replace`` and nobody has mended that yet."""
        return self.folder, _aside(self.folder)


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


def folders_of(keys: TrustedFolder, node: str) -> NodeFolders:
    """All folders of ``node`` in the key store ``keys``."""
    home = keys / node
    return NodeFolders(*(KeyFolder(home / name) for name in ("card", "ssh", "salt", "master")))


def _aside(folder: TrustedFolder) -> TrustedFolder:
    """Where the files of ``folder`` are kept that ``replace`` took out of use."""
    return folder.parent / (folder.name + _ASIDE)


def _publish(
    folder: TrustedFolder, files: Mapping[str, KeyFile], aside: TrustedFolder | None = None
) -> None:
    home = folder.parent.make_private()
    unfinished = home / _unfinished(folder)
    try:
        unfinished.make_private()
        for name, file in files.items():
            mode = PRIVATE_MODE if file.private else PUBLIC_MODE
            unfinished.write(name, file.content, mode=mode)
        if aside is not None:
            _discard(aside)
            home.rename(folder.name, aside.name)
        home.rename(unfinished.name, folder.name)
    except BaseException:
        home.remove_folder(unfinished.name)
        raise


def _discard(folder: TrustedFolder) -> None:
    """Remove ``folder``, if it is there, so that a kill never leaves a part of it in its place."""
    if folder.exists():
        doomed = _unfinished(folder)
        folder.parent.rename(folder.name, doomed)
        folder.parent.remove_folder(doomed)


def _unfinished(folder: TrustedFolder) -> str:
    """A name beside ``folder`` for what must not outlive a killed run."""
    return f"{_HALF_MADE}{folder.name}-{secrets.token_hex(4)}"


def _read(folder: TrustedFolder, names: Sequence[str]) -> dict[str, bytes]:
    """The files ``names``; FileNotFoundError where there is no ``folder``."""
    files = folder.read_each(names, LARGEST_KEY)
    for name in names:
        if not files.get(name):
            why = "is empty" if name in files else os.strerror(errno.ENOENT)
            raise _damaged(folder, name, why)
    return files


def _damaged(folder: TrustedFolder, name: str, why: str) -> ConfigurationError:
    """The error for the file ``name`` of the store, which cannot be used."""
    folders = [folder.path]
    if (aside := _aside(folder)).exists():  # it would be put back, and may have been stolen
        folders.append(aside.path)
    return ConfigurationError(
        f"{folder.path / name}: {why}",
        hint="restore it from a backup; or have it made anew (rm -r "
        f"{shlex.join(map(str, folders))}) and make the others forget the old one "
        "(salt-key -d NODE, ssh-keygen -R NODE)",
    )

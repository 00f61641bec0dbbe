"""Folders named by the SHA-256 of their content: there whole or not at all, and never deleted.

In: files made in a private folder. Out: that folder under its final name, by one rename. A damaged
folder is renamed too, so that the right bytes can have its name.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from imager.base.cache import Cache
from imager.base.durable import fsync_folder, host_storage
from imager.base.errors import HostStorage, NotAuthentic
from imager.base.json_fields import JsonFault
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB

_LARGEST_RECORD = MiB
_THERE_ALREADY = (errno.ENOTEMPTY, errno.EEXIST)
"""What rename(2) says where a folder has that name; which of the two, the filesystem decides."""
_T = TypeVar("_T")
Damage = Callable[[Path, str], NotAuthentic]
"""The error for a file of a folder, and what is wrong with it."""


@contextmanager
def placed(cache: Cache, folder: Path) -> Iterator[Path]:
    """An empty private folder, which becomes ``folder`` when the block ends without an error.

    The block must fsync its files; their names are made durable here. Where another run has put the
    same content there meanwhile, as ``fetch`` beside ``archive import``, that one stays. Who placed
    it looks at it again: its signature may be another key's.
    """
    kept = cache.made(folder.parent.name)
    with host_storage(folder), cache.work_folder("archive") as work:
        staged = work / "entry"
        staged.mkdir()
        yield staged
        fsync_folder(staged)
        try:
            kept.adopt(staged, folder.name)
        except HostStorage as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _THERE_ALREADY:
                raise


def names_beside(signer: str) -> tuple[str, str]:
    """The names of record and signature of a key that signed the content, too, and was not the
    first."""
    return f"{signer}.json", f"{signer}.sig"


def set_aside(folder: TrustedFolder) -> Path:
    """Rename the damaged ``folder``; returns its new name. Where it is gone, another run has found
    the damage, too, and renamed it."""
    number = _last_aside(folder) + 1
    try:
        folder.parent.rename(folder.name, _aside(folder, number))
    except FileNotFoundError:
        number = _last_aside(folder)
    return folder.parent.path / _aside(folder, number)


def _aside(folder: TrustedFolder, number: int) -> str:
    return f"{folder.name}.damaged-{number}"


def _last_aside(folder: TrustedFolder) -> int:
    """The number of the last one that has such a name; 0 where none has."""
    taken, number = folder.parent.names(), 0
    while _aside(folder, number + 1) in taken:
        number += 1
    return number


def size_in(folder: TrustedFolder, name: str, damage: Damage) -> int:
    """The bytes of the file ``name`` of a folder, which must be there."""
    try:
        return folder.size(name)
    except FileNotFoundError:
        raise damage(folder.path / name, "the file is gone") from None


def record_in(folder: TrustedFolder, name: str, parse: Callable[[bytes], _T], damage: Damage) -> _T:
    """What ``parse`` makes of the file ``name`` of a folder; its JsonFault is damage."""
    path = folder.path / name
    try:
        return parse(folder.read(name, _LARGEST_RECORD))
    except FileNotFoundError:
        raise damage(path, "the file is gone") from None
    except JsonFault as error:
        raise damage(path, str(error)) from None

"""Folders named by the SHA-256 of their content: there whole or not at all, and never deleted.

In: files made in a private folder. Out: that folder under its final name, by one rename. A damaged
folder is renamed too, so that the right bytes can have its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from imager.base.cache import Cache
from imager.base.durable import fsync_folder, host_storage
from imager.base.errors import NotAuthentic
from imager.base.json_fields import JsonFault
from imager.base.trusted_folder import TrustedFolder
from imager.base.units import MiB

_LARGEST_RECORD = MiB
_T = TypeVar("_T")
Damage = Callable[[Path, str], NotAuthentic]
"""The error for a file of a folder, and what is wrong with it."""


@contextmanager
def placed(cache: Cache, folder: Path) -> Iterator[Path]:
    """An empty private folder, which becomes ``folder`` when the block ends without an error.

    The block must fsync its files; their names are made durable here.
    """
    kept = cache.made(folder.parent.name)
    with host_storage(folder), cache.work_folder("archive") as work:
        staged = work / "entry"
        staged.mkdir()
        yield staged
        fsync_folder(staged)
        kept.adopt(staged, folder.name)


def set_aside(folder: TrustedFolder) -> Path:
    """Rename the damaged ``folder``; returns its new name."""
    taken, number = folder.parent.names(), 1
    while (aside := f"{folder.name}.damaged-{number}") in taken:
        number += 1
    folder.parent.rename(folder.name, aside)
    return folder.parent.path / aside


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

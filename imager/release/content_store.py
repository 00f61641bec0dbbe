"""Folders named by the SHA-256 of their content: there whole or not at all, and never deleted.

In: files made in a private folder. Out: that folder under its final name, by one rename. A damaged
folder is renamed too, so that the right bytes can have its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import fsync_folder, host_storage, work_folder


@contextmanager
def placed(cache: Cache, folder: Path) -> Iterator[Path]:
    """An empty private folder, which becomes ``folder`` when the block ends without an error.

    The block must fsync its files; their names are made durable here.
    """
    with host_storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(cache.work, "archive") as work:
            staged = work / "entry"
            staged.mkdir()
            yield staged
            fsync_folder(staged)
            staged.rename(folder)
        fsync_folder(folder.parent)


def set_aside(folder: Path) -> Path:
    """Rename the damaged ``folder``; returns its new name."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    with host_storage(folder):
        folder.rename(aside)
    return aside

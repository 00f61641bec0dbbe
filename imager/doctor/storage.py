"""The cache: whether it is one and may be used, how much room it has, what is archived in it.

In: a cache. Out: Checkups. Only names, sizes and records are read, not the archive's gigabytes:
``fetch`` reads all of it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import free_bytes, require_links_lead_on
from imager.base.errors import HostStorage, PicloudError
from imager.base.ownership import user_name
from imager.base.units import GiB, format_size
from imager.doctor.checkup import Checkup, counted, failed, warned, well
from imager.release.archive import Archive

_AREA = "cache"
_ROOM_BYTES = 4 * GiB
"""A release, what it becomes, and the work in between take some 3 GiB."""


def cache_checkups(cache: Cache) -> Iterator[Checkup]:
    """What there is to say about ``cache``; one that is not there yet is fine."""
    try:
        cache.require_ours()
    except PicloudError as error:
        yield failed(_AREA, "folder", error)
        return
    yield place_checkup(_AREA, cache.root)
    yield room_checkup(_AREA, cache.root, _ROOM_BYTES, "put the cache elsewhere with --cache DIR")
    yield from _archived(cache)


def place_checkup(area: str, folder: Path) -> Checkup:
    """Whether whoever runs this may write in ``folder``, or make it."""
    try:
        require_links_lead_on(folder)
    except HostStorage as error:
        return failed(area, "folder", error)
    there = _nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        name = user_name(os.geteuid())
        what = f"{there}: {name} may not write there"
        hint = f"give it to {name}, or name another folder"
        return failed(area, "folder", HostStorage(what, hint=hint))
    made = "" if there == folder else ", made when it is first used"
    return well(area, "folder", f"{folder}{made}")


def room_checkup(area: str, folder: Path, need_bytes: int, instead: str) -> Checkup:
    """Whether the filesystem of ``folder`` has ``need_bytes`` left for whoever runs this."""
    free = free_bytes(folder)
    said = f"{format_size(free)} free"
    if free >= need_bytes:
        return well(area, "room", said)
    to_do = f"free some space, or {instead}"
    return warned(area, "room", f"{said}, and {format_size(need_bytes)} may be needed", to_do)


def _nearest(folder: Path) -> Path:
    """``folder``, or the nearest folder above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _archived(cache: Cache) -> Iterator[Checkup]:
    archive, sound = Archive(cache), 0
    for name in cache.looked_at("releases").names():
        try:
            sound += archive.find(name) is not None
        except PicloudError as error:
            yield warned(_AREA, "archive", error.what, error.hint)
    counts = (
        counted(sound, "release"),
        counted(len(cache.entries("packages")), "package"),
        counted(len(cache.entries("golden")), "golden image"),
    )
    yield well(_AREA, "archive", ", ".join(counts))

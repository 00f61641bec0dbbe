"""What a release says to pacman: its configuration, and the packages it is made of.

In: a VerifiedRelease. Out: a BaseSystem, kept in the cache, since reading it means unpacking the
whole tarball. Only texts are taken; nothing in them is used before it is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from imager.base.cache import Cache
from imager.base.errors import MalformedRelease
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.progress import Phase, Progress
from imager.base.trusted_folder import kept_file
from imager.base.units import MiB
from imager.packages.metadata import LARGEST_TEXT
from imager.release.archive import prove
from imager.release.tarball import (
    LARGEST_RELEASE,
    UNREADABLE,
    Unpacked,
    archive_of,
    members_of,
)
from imager.release.verified import VerifiedRelease

_SETTINGS = re.compile(r"etc/(pacman\.conf|pacman\.d/[A-Za-z0-9._-]+)\Z")
_ENTRY = re.compile(r"var/lib/pacman/local/([A-Za-z0-9@_+][A-Za-z0-9@._+:~-]{0,250})/desc\Z")
_MOST_ENTRIES = 20_000
_LARGEST_FILE = 64 * MiB
_MOST_TEXT = 32 * MiB
"""All of it is in memory; a desktop of 2,000 packages has 6 MiB."""


@dataclass(frozen=True, slots=True)
class BaseSystem:
    """``settings`` are the files below etc that pacman reads, by their path without a leading
    slash; ``local`` has the ``desc`` of each installed package by the name of its entry, such as
    ``glibc-2.40-1``. Both are empty for a release that has no pacman."""

    release: str
    settings: Mapping[str, str]
    local: Mapping[str, str]

    @property
    def has_pacman(self) -> bool:
        """Whether packages can be resolved against it."""
        return bool(self.local) and "etc/pacman.conf" in self.settings


def base_of(release: VerifiedRelease, cache: Cache, progress: Progress) -> BaseSystem:
    """The base system of ``release``, read from its tarball where the cache does not have it.

    Raises NotAuthentic when the archived tarball was altered, MalformedRelease, HostStorage.
    """
    kept = base_at_hand(release, cache)
    if kept is not None:
        return kept
    prove(release, cache, progress)
    with progress.phase(f"read the packages of {release.name}", release.size_bytes) as phase:
        base = _from_tarball(release, phase)
    text = json.dumps({"settings": dict(base.settings), "local": dict(base.local)})
    cache.made("databases").write(_file_of(release), text.encode())
    return base


def base_at_hand(release: VerifiedRelease, cache: Cache) -> BaseSystem | None:
    """The base system of ``release`` if the cache has it. Nothing is made or changed."""
    try:
        read = read_object(cache.looked_at("databases").read(_file_of(release), _LARGEST_FILE))
        settings, local = _texts(read, "settings"), _texts(read, "local")
    except (FileNotFoundError, JsonFault):
        return None
    return BaseSystem(release.name, settings, local)


def _file_of(release: VerifiedRelease) -> str:
    return f"{release.sha256}.json"


def _texts(read: JsonObject, name: str) -> Mapping[str, str]:
    child = read.child(name)
    return MappingProxyType({key: child.text(key) for key in child.values})


def _from_tarball(release: VerifiedRelease, phase: Phase) -> BaseSystem:
    settings: dict[str, str] = {}
    local: dict[str, str] = {}
    room, done = _MOST_TEXT, 0
    try:
        with (
            kept_file(release.tarball) as file,
            archive_of(Unpacked(file, LARGEST_RELEASE)) as archive,
        ):
            for info in members_of(archive):
                phase.advance(file.tell() - done)
                done = file.tell()
                name = info.name.removeprefix("./")
                place = settings if _SETTINGS.match(name) else local
                entry = _ENTRY.match(name)
                if len(local) > _MOST_ENTRIES:
                    raise ValueError("it has too many files")
                if info.isreg() and (entry or place is settings):
                    if info.size > LARGEST_TEXT:
                        raise ValueError(f"{name} is larger than such a file is")
                    room -= info.size
                    if room < 0:
                        raise ValueError(f"{name} makes its database of packages too large")
                    found = archive.extractfile(info)
                    text = (found.read() if found else b"").decode(errors="replace")
                    place[entry[1] if entry else name] = text
    except (*UNREADABLE, ValueError) as error:
        raise MalformedRelease(
            f"{release.tarball} cannot be read: {error or 'it ends early'}",
            hint="choose another release, and tell whoever publishes this one",
        ) from error
    return BaseSystem(release.name, MappingProxyType(settings), MappingProxyType(local))

"""A golden image made on a station, of what its archive has, in place of being fetched.

In: what the head says the image is made of. Out: whether it can be made here; the very image that
the head has, or an error. The archive is filled by a person (docs/stations.md); its own proofs hold
here, too.
"""

from __future__ import annotations

from contextlib import suppress

from imager.base.cache import Cache
from imager.base.durable import free_bytes
from imager.base.errors import HostStorage, MissingTool, PicloudError
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Progress
from imager.base.run import require_tools
from imager.image.compose.cache import golden_key
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.image.compose.ingredients import Ingredients
from imager.packages.fetch.archive import PackageArchive
from imager.packages.verified import PackageSet
from imager.release.archive import Archive, DamagedEntry, verified
from imager.release.salt.salt import salt_of
from imager.stations.wire.golden import wanted_golden
from imager.stations.wire.made_of import MadeOf
from imager.stations.wire.order import GoldenWanted


def can_make(wanted: GoldenWanted, its: MadeOf, cache: Cache) -> bool:
    """Whether ``wanted`` can be made here: all of it is archived, the programs here give the same
    bytes, there is room, and it was not tried before in vain. Nothing is changed."""
    if _failed(wanted) in cache.looked_at("golden").names():
        return False
    try:
        require_tools(*tools_for(ToolUse.COMPOSE, ToolUse.NODE))
        found = _at_hand(its, cache)
    except (MissingTool, DamagedEntry):
        return False
    return (
        found is not None
        and golden_key(found.release, found.salt, found.packages) == wanted.key
        and free_bytes(cache.root) > found.room_bytes
    )


def made_golden(wanted: GoldenWanted, its: MadeOf, cache: Cache, progress: Progress) -> GoldenImage:
    """Make ``wanted``, in the cache.

    Raises HostStorage where that fails, or gives other bytes than the head has; it is not tried
    again then, and the next order's image is fetched.
    """
    try:
        found = _at_hand(its, cache)
        if found is None:
            raise HostStorage("something is not there any more", hint="")
        golden = compose(found.release, cache, progress, found.salt, found.packages)
        if wanted_golden(golden) != wanted:
            raise HostStorage("it became another image than the head's", hint="")
    except PicloudError as error:
        with suppress(PicloudError):
            cache.made("golden", 0o700).write(_failed(wanted), f"{error.what}\n".encode())
        raise HostStorage(
            f"the golden image could not be made of this station's archive: {error.what}",
            hint="run the same command again: it is fetched from the head then",
        ) from error
    return golden


def _failed(wanted: GoldenWanted) -> str:
    """The file that says that making it failed."""
    return f"{wanted.key}.failed"


def _at_hand(its: MadeOf, cache: Cache) -> Ingredients | None:
    """What the archive has of it; None where something is missing. Raises DamagedEntry."""
    entry = Archive(cache).find(its.release)
    if entry is None:
        return None
    packages = [PackageArchive(cache).of_digest(sha256) for sha256 in its.packages]
    install = tuple(package for package in packages if package is not None)
    if len(install) < len(packages):
        return None
    salt = salt_of(its.salt, cache) if its.salt else None  # reads all of it, so it comes last
    if its.salt and salt is None:
        return None
    chosen = PackageSet(install, its.remove, frozenset(its.explicit), its.enable)
    return Ingredients(verified(entry, its.models), salt, chosen)

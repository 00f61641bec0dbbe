"""The databases of all repositories, from the first mirror that has sound ones.

In: where a release's packages come from. Out: one Database for each repository, all of the same
mirror: packages of two days do not fit together. A server that sends each request to another mirror
is therefore followed once, and that mirror asked for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote

from imager.base.errors import NetworkError
from imager.base.progress import Progress
from imager.base.units import MiB
from imager.packages.resolve.database import Database
from imager.packages.resolve.repositories import Repositories
from imager.release.transfer.download import locate
from imager.release.transfer.web import Web

_LARGEST_DATABASE = 64 * MiB
_Made = TypeVar("_Made")


def from_mirrors(
    use: Callable[[Sequence[Database]], _Made],
    repositories: Repositories,
    web: Web,
    progress: Progress,
) -> _Made:
    """What ``use`` makes of the databases of the first mirror that gives all of them, and of which
    it does not find, by a NetworkError, that they are not sound.

    Raises NetworkError when there is no such mirror, and what ``use`` raises else.
    """
    failures: list[str] = []
    mirrors = repositories.mirrors()
    web.forget_failures()
    for mirror in mirrors:
        try:
            with progress.phase("fetch databases") as phase:
                found = _from_mirror(web, mirror, patient=len(mirrors) == 1)
                phase.advance(sum(len(each.packed) for each in found))
            return use(found)
        except NetworkError as error:
            failures.append(error.what)
            if mirror != mirrors[-1]:
                progress.note(f"{error.what}; asking the next mirror")
    raise NetworkError(
        failures[0]
        if len(failures) == 1
        else f"none of {len(failures)} mirrors gave sound databases of packages",
        hint="check the network, then run it again",
        details=failures if len(failures) > 1 else (),
    )


def _from_mirror(
    web: Web, mirror: Sequence[tuple[str, str]], *, patient: bool
) -> tuple[Database, ...]:
    found: list[Database] = []
    moved = ("", "")
    for name, folder in mirror:
        place = folder
        if moved[0] and folder.startswith(moved[0]):
            place = moved[1] + folder.removeprefix(moved[0])
        else:
            place = _located(web, f"{folder}/{quote(name)}.db", patient=patient)
            moved = _moved(folder, place) if place != folder else ("", "")
        found.append(_database(web, name, place))
    return tuple(found)


def _located(web: Web, url: str, *, patient: bool) -> str:
    # Where there are mirrors, the next one is a better second attempt than the same one.
    at = web.patiently(lambda: locate(web, url)) if patient else locate(web, url)
    return at.url.rpartition("/")[0]


def _moved(asked: str, place: str) -> tuple[str, str]:
    """What one mirror's addresses begin with, and what those of the mirror it redirects to do."""
    same = 0
    while same < min(len(asked), len(place)) and asked[-1 - same] == place[-1 - same]:
        same += 1
    tail = asked[len(asked) - same :]
    tail = tail[tail.find("/") :] if "/" in tail else ""
    return asked.removesuffix(tail), place.removesuffix(tail)


def _database(web: Web, name: str, folder: str) -> Database:
    url = f"{folder}/{quote(name)}.db"
    packed = web.patiently(lambda: web.small_file(url, _LARGEST_DATABASE))
    try:
        return Database(name, folder, packed)
    except ValueError as error:
        raise NetworkError(
            f"{url} is no database of packages: {error}",
            hint="the server gave something else, a sign-in page perhaps; try another network",
        ) from error

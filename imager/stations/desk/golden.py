"""The golden image of an order: fetched from the head, or made of what this station's archive has.

In: what the head says of the image, and what it is made of. Out: the very image that the head has,
or an error; whether it can be made here. The archive is filled by a person (docs/stations.md); its
own proofs hold here, too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import free_bytes
from imager.base.errors import HostStorage, MissingTool, PicloudError
from imager.base.programs import ToolUse, tools_for
from imager.base.progress import Phase, Progress, Quiet
from imager.base.run import require_tools
from imager.image.compose.cache import golden_key
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.image.compose.ingredients import Ingredients
from imager.packages.fetch.archive import PackageArchive
from imager.packages.verified import PackageSet
from imager.rack.batch.card_progress import Moment
from imager.release.archive import Archive, DamagedEntry, verified
from imager.release.salt.salt import salt_of
from imager.stations.desk.desk import EVERY_SECONDS, Desk
from imager.stations.wire.golden import golden_at_hand, take_golden, wanted_golden
from imager.stations.wire.made_of import MadeOf
from imager.stations.wire.order import GoldenWanted, WorkOrder
from imager.stations.wire.report import NodeMoment, StationProgress


def ordered_golden(desk: Desk, order: WorkOrder, stop: Path) -> GoldenImage:
    """The image of ``order``: from the cache, or made of what is archived here, or fetched from the
    head.

    Raises HostStorage or NotAuthentic where it cannot be had; KeyboardInterrupt once the file
    ``stop`` is there. To be called in the main thread, where SIGTERM becomes a KeyboardInterrupt.
    """
    progress = _Fetching(desk, order)
    with _interrupted_by(stop):
        if order.made_of is not None and golden_at_hand(order.golden, desk.cache) is None:
            return made_golden(order.golden, order.made_of, desk.cache, progress)
        golden = take_golden(order.golden, desk.cache, desk.bring, progress)
    return replace(golden, again=partial(_forgotten, desk, order.golden))


def _forgotten(desk: Desk, golden: GoldenWanted, why: str, inode: int) -> GoldenImage:
    """See ``GoldenImage.again``: an image that was altered is removed. The head hands its pieces
    out only to who said before that it has none."""
    del inode
    desk.cache.looked_at("golden").remove_folder(golden.key)
    raise HostStorage(
        f"this station's golden image was altered: {why}",
        hint="run the same command again: the image is fetched anew",
    )


@contextmanager
def _interrupted_by(stop: Path) -> Iterator[None]:
    """While the block runs, have the main thread interrupted once the file ``stop`` is there: by a
    signal, as it may wait for a program, a lock or the head."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(EVERY_SECONDS):
            if stop.exists():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    looking = threading.Thread(target=look, name="stop")
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


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
        why = f"{error.what}\n".encode(errors="backslashreplace")
        with suppress(PicloudError):
            cache.made("golden", 0o700).write(_failed(wanted), why)
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
    return Ingredients(verified(entry, entry.record.name, its.models), salt, chosen)


class _Fetching(Quiet):
    """The Progress of having the golden image, which all cards of an order wait for."""

    def __init__(self, desk: Desk, order: WorkOrder) -> None:
        self._desk, self._order = desk, order

    @contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        """See Progress."""
        yield _Fetched(self._desk, self._order, Moment(name, 0, total_bytes, 0.0, 0, 0))

    @contextmanager
    def steps(self, name: str, count: int) -> Iterator[Phase]:
        """See Progress."""
        yield _Fetched(self._desk, self._order, Moment(name, 0, None, 0.0, 0, 0, 0, count))


class _Fetched:
    def __init__(self, desk: Desk, order: WorkOrder, moment: Moment) -> None:
        self._desk, self._order, self._moment = desk, order, moment
        self._began = time.monotonic()
        self._told, self._done = 0.0, 0
        self._lock = threading.Lock()

    def advance(self, done: int) -> None:
        with self._lock:
            self._done += done
            seconds = time.monotonic() - self._began
            if seconds - self._told < EVERY_SECONDS:
                return
            self._told = seconds
            steps, size = (self._done, 0) if self._moment.total_steps else (0, self._done)
            moment = replace(self._moment, phase_seconds=seconds, done_bytes=size, done_steps=steps)
        moments = (NodeMoment(card.node, moment) for card in self._order.cards)
        self._desk.tell(StationProgress(self._order.job, tuple(moments)))

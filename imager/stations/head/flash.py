"""A batch over many stations: every job is done, and the ledger has a line for each step.

In: orders and jobs, confirmed by a person, and a bus. Out: a result for each job. After Ctrl-C the
stations leave each card blank or whole, and the results say which. Killed, the head loses nothing:
the stations finish, and the next run collects.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from imager.base.cache import Cache
from imager.base.durable import remove_tree
from imager.image.compose.golden import GoldenImage
from imager.rack.batch.batch import begin_batch, end_batch
from imager.rack.batch.crew import Orders
from imager.rack.batch.workers import CardResult, Stop, Watch, interruptible
from imager.stations.head.crew import StationCrew
from imager.stations.head.lookouts import Lookouts
from imager.stations.head.remote import RemoteJob
from imager.stations.wire.bus import StationBus
from imager.stations.wire.golden import lay_out_pieces, published_name, wanted_golden
from imager.stations.wire.survey import Survey


@dataclass(frozen=True, slots=True)
class Head:
    """What the head works with: the ``bus``, what the stations said of themselves, and the cache in
    which the pieces of a golden image lie while they are handed out; the lookouts, if any."""

    bus: StationBus
    surveys: Mapping[str, Survey]
    cache: Cache
    lookouts: Lookouts | None = None


@contextmanager
def begun_on_stations(
    orders: Orders, nodes: Sequence[str], watch: Watch, head: Head
) -> Iterator[tuple[StationCrew, Stop]]:
    """A crew whose work on ``nodes`` is a batch in the ledger, and the stop that a signal sets.

    The caller holds ``batch_lock``. Raises HostStorage, before any card is begun, when this
    computer has no room for the ledger and the receipts.
    """
    folder = orders.rack.folder
    batch = begin_batch(folder, nodes)
    with head.cache.work_folder("pieces") as work:
        publish = _Publisher(head.bus, work).publish
        its = replace(orders, batch=batch)
        crew = StationCrew(its, watch, head.bus, head.surveys, publish, head.lookouts)
        with interruptible(crew) as stopped:
            yield crew, stopped
    end_batch(folder, batch, crew.results)


def flash_on_stations(
    orders: Orders, jobs: Sequence[RemoteJob], watch: Watch, head: Head
) -> tuple[CardResult, ...]:
    """Do every job and return the results in the order of ``jobs``; else as
    ``begun_on_stations``."""
    names = [job.name for job in jobs]
    with begun_on_stations(orders, names, watch, head) as (crew, stopped):
        crew.add(jobs)
        while crew.is_busy:
            crew.turn()
            if stopped.is_set():
                crew.stop()
    found = {result.job.name: result for result in crew.results}
    return tuple(found[name] for name in names)


class _Publisher:
    """Makes golden images readable for stations, each once in a batch."""

    def __init__(self, bus: StationBus, work: Path) -> None:
        self._bus, self._work = bus, work
        self._lock = threading.Lock()
        self._done: set[str] = set()

    def publish(self, golden: GoldenImage) -> None:
        """Lay ``golden`` out in pieces and hand it to the bus; the folder stays until the batch
        ends."""
        with self._lock:
            if golden.key in self._done:
                return
            folder = self._work / golden.key
            folder.mkdir()
            try:
                lay_out_pieces(golden, folder)
                self._bus.publish(published_name(wanted_golden(golden)), folder)
            except BaseException:
                remove_tree(folder)  # the next station's turn begins anew
                raise
            self._done.add(golden.key)

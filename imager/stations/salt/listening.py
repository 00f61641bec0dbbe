"""Hears the events of one session as they come, in a thread of its own.

In: a Door to the master, and which events are wanted: any minion may send others, as many and as
long as it likes, so these are dropped at once. Out: JSON objects, in order of arrival.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from subprocess import Popen, TimeoutExpired
from typing import IO, cast

from imager.base.errors import NetworkError
from imager.base.json_fields import JsonFault, JsonObject, read_object
from imager.base.run import running
from imager.rack.master.connection import Door
from imager.stations.salt.scripts import LISTENING, listening

_LONGEST_LINE = 2 << 20
"""No event of Salt is longer than 1 MiB, before it is written as JSON."""
_MOST_WAITING = 1000
_READY_SECONDS = 120.0
_GRACE_SECONDS = 5.0

Wanted = Callable[[JsonObject], bool]


class Listener:
    """What the master's event bus says of one session."""

    def __init__(self, process: Popen[bytes], door: Door, wanted: Wanted) -> None:
        self._process = process
        self._wanted = wanted
        self._door = door
        self._events: queue.Queue[JsonObject | None] = queue.Queue(_MOST_WAITING)
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._read, name="events of the master", daemon=True)
        self._thread.start()

    def wait_until_ready(self, answer: int) -> None:
        """Return when every event from now on is heard, and write a line into ``answer``."""
        if not self._is_ready.wait(_READY_SECONDS) or self._process.poll() is not None:
            raise self._gone()
        os.write(answer, b"\n")

    def next(self, seconds: float) -> JsonObject | None:
        """The next event; None when there is none within ``seconds``. Raises NetworkError when the
        master says nothing any more."""
        try:
            event = self._events.get(timeout=seconds) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        if event is None:
            self._events.put(None)
            raise self._gone()
        return event

    def wait_until_over(self, seconds: float) -> None:
        """Return when the master's program has ended, at most after so many seconds."""
        self._thread.join(seconds)

    def _gone(self) -> NetworkError:
        return NetworkError(
            f"{self._door.name}: its events are not heard any more",
            hint="look at the master itself: systemctl status salt-master",
        )

    def _read(self) -> None:
        said = cast("IO[bytes]", self._process.stdout)
        with suppress(ValueError):  # closed, because it did not end in time
            while line := said.readline(_LONGEST_LINE):
                tag, _, text = line.partition(b"\t")
                if tag.endswith(b"/" + LISTENING.encode()):
                    self._is_ready.set()
                    continue
                with suppress(JsonFault):
                    event = read_object(text)
                    if self._wanted(event):
                        self._events.put(event)
        self._is_ready.set()
        self._events.put(None)


@contextmanager
def listener(door: Door, session: str, wanted: Wanted) -> Iterator[Listener]:
    """Hear the ``wanted`` events of ``session`` until the block ends."""
    reading, writing = os.pipe()
    try:
        with running(door.command(listening(session)), stdin=reading) as process:
            os.close(reading)
            reading = -1
            hears = Listener(process, door, wanted)
            try:
                hears.wait_until_ready(writing)
                yield hears
            finally:
                os.close(writing)
                writing = -1
                with suppress(TimeoutExpired):
                    process.wait(_GRACE_SECONDS)
                hears.wait_until_over(_GRACE_SECONDS)
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)

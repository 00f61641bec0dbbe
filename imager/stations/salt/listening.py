"""Hears the events of one session as they come, in a thread of its own.

In: a Door to the master, and which events are wanted: any minion may send others, as many and as
long as it likes, so these are dropped at once. Out: JSON objects, in order of arrival.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from subprocess import TimeoutExpired
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
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 5.0

Wanted = Callable[[JsonObject], bool]


class Listener:
    """What one program says that prints the events of a session. ``heard_at`` is when the last one
    came (seconds of a monotonic clock), ``is_over`` whether the program has ended."""

    def __init__(self, said: IO[bytes], door: Door, wanted: Wanted) -> None:
        self._said = said
        self._wanted = wanted
        self._door = door
        self._events: queue.Queue[JsonObject | None] = queue.Queue(_MOST_WAITING)
        self._is_ready = threading.Event()
        self.heard_at = time.monotonic()
        self.is_over = False
        self._thread = threading.Thread(target=self._read, name="events of the master", daemon=True)
        self._thread.start()

    def wait_until_ready(self, answer: int, given_up: threading.Event) -> None:
        """Return when every event from now on is heard, and write a line into ``answer``. Raises
        NetworkError, also when that is ``given_up`` meanwhile."""
        until = time.monotonic() + _READY_SECONDS
        while not self._is_ready.wait(_LOOK_SECONDS):
            if given_up.is_set() or time.monotonic() > until:
                break
        if not self._is_ready.is_set() or self.is_over:
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
        with suppress(ValueError):  # closed, because it did not end in time
            while line := self._said.readline(_LONGEST_LINE):
                tag, _, text = line.partition(b"\t")
                if tag.endswith(b"/" + LISTENING.encode()):
                    self._is_ready.set()
                    continue
                with suppress(JsonFault):
                    event = read_object(text)
                    if self._wanted(event):
                        self.heard_at = time.monotonic()
                        self._events.put(event)
        self.is_over = True
        self._is_ready.set()
        self._events.put(None)


@contextmanager
def listener(
    door: Door, session: str, wanted: Wanted, given_up: threading.Event | None = None
) -> Iterator[Listener]:
    """Hear the ``wanted`` events of ``session`` until the block ends. Raises NetworkError as
    ``wait_until_ready`` does."""
    reading, writing = os.pipe()
    try:
        with running(door.command(listening(session)), stdin=reading) as process:
            os.close(reading)
            reading = -1
            hears = Listener(cast("IO[bytes]", process.stdout), door, wanted)
            try:
                hears.wait_until_ready(writing, given_up or threading.Event())
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

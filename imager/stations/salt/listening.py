"""Hears the events of one session as they come, in a thread of its own.

In: a Door to the master, and which events are wanted: any minion may send others, as many and as
long as it likes, so these are dropped at once. Out: JSON objects, in order of arrival.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
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
_MOST_WAITING_BYTES = 4 << 20
_READY_SECONDS = 120.0
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 5.0

Wanted = Callable[[JsonObject], bool]


class _Waiting:
    """Texts that wait to be taken, some MiB of them. Whoever adds more waits, and with it the
    master's program: a station that says more than is taken holds up itself."""

    def __init__(self) -> None:
        self._texts: deque[bytes] = deque()
        self._bytes = 0
        self._is_over = False
        self._changed = threading.Condition()

    def add(self, text: bytes) -> None:
        """Return when there is room for ``text``, or nothing more is to be added."""

        def has_room() -> bool:
            fits = self._bytes + len(text) <= _MOST_WAITING_BYTES
            return fits or not self._texts or self._is_over

        with self._changed:
            self._changed.wait_for(has_room)
            if not self._is_over:
                self._texts.append(text)
                self._bytes += len(text)
                self._changed.notify_all()

    def end(self) -> None:
        """Add nothing more; what waits can still be taken."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def take(self, seconds: float) -> bytes | None:
        """The next text; None when there is none within ``seconds``. Raises EOFError when none
        comes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts or self._is_over, seconds)
            if not self._texts:
                if self._is_over:
                    raise EOFError
                return None
            text = self._texts.popleft()
            self._bytes -= len(text)
            self._changed.notify_all()
            return text


class Listener:
    """What one program says that prints the events of a session. ``heard_at`` is when the last one
    came (seconds of a monotonic clock), ``is_over`` whether the program has ended."""

    def __init__(self, said: IO[bytes], door: Door, wanted: Wanted) -> None:
        self._said = said
        self._wanted = wanted
        self._door = door
        # As text: what it says may take many times as much memory.
        self._waiting = _Waiting()
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
            text = self._waiting.take(seconds)
        except EOFError:
            raise self._gone() from None
        return None if text is None else read_object(text)

    def wait_until_over(self, seconds: float) -> None:
        """Return when the master's program has ended, at most after so many seconds; then nothing
        more is heard."""
        self._thread.join(seconds)
        self._waiting.end()

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
                    if self._wanted(read_object(text)):
                        self.heard_at = time.monotonic()
                        self._waiting.add(text)
        self.is_over = True
        self._is_ready.set()
        self._waiting.end()


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

"""Hears a session for as long as it takes, whatever becomes of one listener.

In: how a listener is opened, and whether anything is expected now. Out: the events, in order. When
a listener ends, or nothing is heard while something is expected, another one is opened beside it,
and only then is it closed. So none is lost that came meanwhile, and what both heard comes twice.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from imager.base.errors import NetworkError, PicloudError
from imager.base.json_fields import JsonObject
from imager.stations.salt.listening import Listener

SILENT_SECONDS = 15.0
"""A station at work says something every second, so long as it is heard."""
_LOOK_SECONDS = 0.5
_AGAIN_SECONDS = 5.0

Open = Callable[[threading.Event], AbstractContextManager[Listener]]
"""Opens a listener; gives up with NetworkError once the event is set."""


class Hearing:
    """See ``hearing``, which makes one. Only one thread may use it."""

    def __init__(self, first: Listener) -> None:
        self._listeners = deque([first])
        self._told_of: Listener | None = None

    def next(self, seconds: float) -> JsonObject | None:
        """The next event; None when there is none within ``seconds``. Who waits gets NetworkError,
        once, when nothing is heard until another listener is open."""
        now = self._listeners[0]
        try:
            return now.next(seconds)
        except NetworkError:
            if len(self._listeners) > 1:
                self._listeners.popleft()
                return self.next(seconds)
            if seconds > 0 and self._told_of is not now:
                self._told_of = now
                raise
            time.sleep(seconds)
            return None

    def keep(
        self, held: ExitStack, open_one: Open, expects: Callable[[], bool], over: threading.Event
    ) -> None:
        """Open another listener whenever one is needed, until it is ``over``. ``held`` closes the
        one that there is."""
        patience, since, wait = SILENT_SECONDS, time.monotonic(), _LOOK_SECONDS
        while not over.wait(wait):
            last, wait = self._listeners[-1], _LOOK_SECONDS
            if last.heard_at > since:
                patience, since = SILENT_SECONDS, last.heard_at
            is_silent = expects() and time.monotonic() - since > patience
            if not (last.is_over or is_silent):
                continue
            with ExitStack() as another:
                try:
                    self._listeners.append(another.enter_context(open_one(over)))
                except PicloudError:
                    wait = _AGAIN_SECONDS
                    continue
                held.close()
                held.push(another.pop_all())
            # Where it is the stations that are silent, one more listener helps nobody.
            patience, since = 2 * patience, time.monotonic()


@contextmanager
def hearing(open_one: Open, expects: Callable[[], bool]) -> Iterator[Hearing]:
    """Hear what a listener hears until the block ends. Another one takes its place where it ended,
    or was silent for ``SILENT_SECONDS`` while the caller ``expects`` something. Raises NetworkError
    when the first one cannot be opened."""
    over = threading.Event()
    with ExitStack() as held:
        hears = Hearing(held.enter_context(open_one(over)))
        keeping = (held, open_one, expects, over)
        keeper = threading.Thread(target=hears.keep, args=keeping, name="keeper of listeners")
        keeper.start()
        try:
            yield hears
        finally:
            over.set()
            keeper.join()

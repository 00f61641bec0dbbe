"""How the program of a station speaks while it makes cards: to its minion, or on a note.

In: progress. Out: lines of JSON on standard output, said in a thread of their own; notes, once
nobody reads these. Whoever makes cards never waits for a listener.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from imager.base.errors import PicloudError
from imager.stations.wire.report import StationProgress

Say = Callable[..., None]
Note = Callable[[StationProgress], None]
_MOST_UNHEARD = 100
_LAST_WORDS_SECONDS = 5.0


class Voice:
    """See ``speaking``, which makes one."""

    def __init__(self, say: Say, note: Note) -> None:
        self._event, self._note = say, note
        self._lines: queue.Queue[Mapping[str, object] | None] = queue.Queue(_MOST_UNHEARD)
        self._one_at_a_time = threading.Lock()
        self._is_alone = False
        self._ended: list[str] = []
        self.thread = threading.Thread(target=self._speak, name="voice", daemon=True)

    def progress(self, said: StationProgress) -> None:
        """Say it soon, or note it."""
        self._ended += said.ended
        if not self._is_alone:
            with suppress(queue.Full):
                self._lines.put_nowait({"event": "progress", **said.to_json()})
                return
        with suppress(PicloudError):  # the cards are made all the same
            self._note(replace(said, told=(), ended=tuple(self._ended)))

    def now(self, document: Mapping[str, object]) -> None:
        """Say it now, to one who will answer."""
        self._say(document)

    def end(self) -> None:
        """Say the last words, if somebody listens."""
        try:
            self._lines.put(None, timeout=_LAST_WORDS_SECONDS)
        except queue.Full:
            return
        self.thread.join(_LAST_WORDS_SECONDS)

    def _speak(self) -> None:
        while (document := self._lines.get()) is not None:
            self._say(document)

    def _say(self, document: Mapping[str, object]) -> None:
        fields = dict(document)
        try:
            with self._one_at_a_time:
                self._event(str(fields.pop("event")), **fields)
        except (OSError, PicloudError):
            self._is_alone = True


@contextmanager
def speaking(say: Say, note: Note) -> Iterator[Voice]:
    """A voice until the block ends. ``say`` prints an event at once; ``note`` gets what nobody
    hears, with all that ever ended."""
    voice = Voice(say, note)
    voice.thread.start()
    try:
        yield voice
    finally:
        voice.end()

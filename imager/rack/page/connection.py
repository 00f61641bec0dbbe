"""A connection to the server that nobody can hold for long or for nothing.

In: what uvicorn's HTTP connection does. Out: the same within limits. There are only so many at a
time: the oldest that is at rest gives way to a new one. One that asks for nothing, asks too slowly
or does not read what it is sent is cut.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST, MOST_STREAMS = 64, 48
"""Connections at a time, and how many of them may be streams of changes."""
LIFE_SECONDS = 30.0
"""How long a connection that is no stream may be open."""
STUCK_SECONDS = 20.0
"""How long a reader may leave what it was sent where it is."""
STREAM = "/events"


class BoundedConnection(H11Protocol):
    """One connection. uvicorn makes it and calls its methods."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._began = time.monotonic()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def is_stream(self) -> bool:
        """Whether changes are being sent on it."""
        at_work = self.cycle is not None and not self.cycle.response_complete
        return at_work and self.cycle.response_started and self.scope["path"] == STREAM

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._after(LIFE_SECONDS, "life", self._judge)
        others = [one for one in self.connections if isinstance(one, BoundedConnection)]
        if len(others) > MOST:
            idle = [one for one in others if one is not self and not one.is_stream]
            min(idle, key=lambda one: one._began, default=self).cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in self._timers.values():
            timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol: what was sent is not read."""
        self._after(STUCK_SECONDS, "stuck", self.cut)
        super().pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if "stuck" in self._timers:
            self._timers.pop("stuck").cancel()
        super().resume_writing()

    def shutdown(self) -> None:
        """See uvicorn: the server ends, and nobody is waited for, as Python 3.12 would."""
        self.cut()

    def cut(self) -> None:
        """End it at once; what was not sent is not sent."""
        # The loop only hears of it later, and it must not be chosen again to give way.
        self.connections.discard(self)
        self.transport.abort()

    def _judge(self) -> None:
        if self.is_stream:
            self._after(LIFE_SECONDS, "life", self._judge)
        else:
            self.cut()

    def _after(self, seconds: float, name: str, call: Any) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()
        self._timers[name] = self.loop.call_later(seconds, call)

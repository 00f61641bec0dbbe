"""The newest page, for everybody who looks at it.

In: a Lookout. Out: pages, and the stream of what has changed. The rack is looked at once a second
at most however many look, and not at all while nobody does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from imager.rack.page.lookout import Lookout
from imager.rack.page.page import Page, Pages

SECONDS = 1.0
_SIGN_OF_LIFE_SECONDS = 5.0
"""Without one neither side would know that the other is gone. It is an event and no comment, which
a browser tells no script."""
_SIGN_OF_LIFE = "event: alive\ndata: 1\n\n"


class Feed:
    """The pages of one rack, one after the other."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout, self._pages = lookout, Pages()
        self._looking: asyncio.Task[Page] | None = None
        self._looked = float("-inf")

    async def newest(self) -> Page:
        """The page as it stands, at most a second old."""
        looking = self._looking
        if looking is None or (looking.done() and time.monotonic() - self._looked >= SECONDS):
            looking = self._looking = asyncio.create_task(self._look())
        # Who goes away while it is looked must not end that for the others: a thread goes on.
        return await asyncio.shield(looking)

    async def _look(self) -> Page:
        page = await asyncio.to_thread(lambda: self._pages.page(self._lookout.look()))
        self._looked = time.monotonic()
        return page

    async def changes(self, number: str) -> AsyncIterator[str]:
        """Server-sent events for a browser that shows the page of that ``number``, until it goes
        away: one a second at most, and only when something has changed."""
        page = await self.newest()
        shown = page if page.number == number else None
        quiet_since = time.monotonic()
        yield ": hello\n\n"
        while True:
            if page is not shown:
                yield _event(page, shown)
                shown, quiet_since = page, time.monotonic()
            elif time.monotonic() - quiet_since >= _SIGN_OF_LIFE_SECONDS:
                yield _SIGN_OF_LIFE
                quiet_since = time.monotonic()
            await asyncio.sleep(SECONDS)
            page = await self.newest()


def _event(page: Page, shown: Page | None) -> str:
    """JSON has no line break of its own, which would end the event."""
    return f"id: {page.number}\ndata: {json.dumps(page.since(shown))}\n\n"

"""However many look, one looks for all of them, and one at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from imager.rack.page import feed
from imager.rack.page.feed import Feed
from imager.rack.page.lookout import Lookout, RackNow
from tests.support.racks import rack_in


class Slow(Lookout):
    """One who takes his time, and notices when he is asked by two at once."""

    looks = 0
    at_once = 0
    most = 0
    lock = threading.Lock()

    def look(self) -> RackNow:
        with self.lock:
            self.looks += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.1)
        with self.lock:
            self.at_once -= 1
        return super().look()


@pytest.fixture
def lookout(tmp_path: Path) -> Slow:
    return Slow(rack_in(tmp_path, '[rack]\nnodes = "pi[0-3]"\n'))


def test_many_are_told_by_one_look(lookout: Slow) -> None:
    async def many() -> None:
        shared = Feed(lookout)
        pages = await asyncio.gather(*(shared.newest() for _ in range(50)))
        assert len({page.number for page in pages}) == 1
        assert await shared.newest() is pages[0]

    asyncio.run(many())
    assert lookout.looks == 1


def test_who_goes_away_ends_it_for_nobody(lookout: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SECONDS", 0.0)

    async def coming_and_going() -> None:
        shared = Feed(lookout)
        for _ in range(5):
            gone = asyncio.create_task(shared.newest())
            await asyncio.sleep(0.02)
            gone.cancel()
        await shared.newest()

    asyncio.run(coming_and_going())
    assert lookout.most == 1
    assert lookout.looks <= 3


def test_a_browser_hears_that_somebody_is_there(
    lookout: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SECONDS", 0.01)
    monkeypatch.setattr(feed, "_SIGN_OF_LIFE_SECONDS", 0.05)

    async def listening() -> list[str]:
        changes = Feed(lookout).changes("")
        return [(await anext(changes)).partition("\n")[0] for _ in range(4)]

    first, second, *signs = asyncio.run(listening())
    assert (first, second.partition("-")[0][:4]) == (": hello", "id: ")
    assert signs == ["event: alive"] * 2


def test_nobody_looks_while_nobody_is_there(lookout: Slow) -> None:
    async def idle() -> None:
        Feed(lookout)
        await asyncio.sleep(0.05)

    asyncio.run(idle())
    assert lookout.looks == 0

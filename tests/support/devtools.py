"""Chromium as a person uses it: told what to do while a page is open, through its debugging pipe.

In: an address, and what is done there. Out: what the page has become. Scripts may be off, the
network away, and nothing stands still meanwhile, as it does for ``tests.support.chromium``.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.chromium import QUIET

_SECONDS = 60.0


class Browser:
    """One tab of an open browser."""

    def __init__(self, told: int, tells: int) -> None:
        """``told`` is where commands are written, ``tells`` where answers and events are read."""
        self._told, self._tells = told, tells
        self._asked, self._session, self._rest = 0, "", b""
        self._events: list[str] = []
        (page,) = (
            target
            for target in self.ask("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        )
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.ask("Page.enable")

    def ask(self, method: str, **params: object) -> dict[str, Any]:
        """What the browser answers to a command of the DevTools protocol."""
        self._asked += 1
        asked: dict[str, object] = {"id": self._asked, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._told, json.dumps(asked).encode() + b"\0")
        while True:
            said = self._next(_SECONDS)
            assert said is not None, f"no answer to {method}"
            if said.get("id") == self._asked:
                assert "error" not in said, said
                answer: dict[str, Any] = said["result"]
                return answer

    def open(self, url: str, width: int) -> None:
        """Go there, on a screen of so many pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self._events.clear()
        self.ask("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait until a page is loaded, also one that was not asked for."""
        end = time.monotonic() + _SECONDS
        while "Page.loadEventFired" not in self._events:
            assert time.monotonic() < end, "nothing is loaded"
            self._next(1)
        self._events.clear()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth on the page, also where the page may run none."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = _SECONDS) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, expression
            self._next(0.2)

    def picture(self, out: Path) -> None:
        """Keep the whole page as it is seen now, however long it is, as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.ask(
            "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
        )
        out.write_bytes(base64.b64decode(shot["data"]))

    def _next(self, seconds: float) -> dict[str, Any] | None:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._tells], [], [], left)[0]:
                return None
            more = os.read(self._tells, 1 << 20)
            assert more, "the browser is gone"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(text)
        self._events.append(said.get("method", ""))
        return said


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, until the block ends."""
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        ours, theirs = os.pipe(), os.pipe()
        # The browser reads descriptor 3 and writes 4, which a shell gives it; sh knows none
        # above 9.
        words = ["chromium", *QUIET, f"--user-data-dir={folder}/profile", "--remote-debugging-pipe"]
        pipes = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *words, "about:blank"],
            env={"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(ours[0], theirs[1]),
        )
        for descriptor in (ours[0], theirs[1]):
            os.close(descriptor)
        for descriptor in (ours[1], theirs[0]):
            held.callback(os.close, descriptor)
        try:
            yield Browser(ours[1], theirs[0])
        finally:
            process.terminate()
            process.wait(30)

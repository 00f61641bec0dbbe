"""A Raspberry Pi 2 in QEMU that boots a card image, and what it says on its console.

In: an image whose size is a power of two. Out: the console, read as it comes. The machine writes
to the image as a node writes to its card.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BOOT_IN_QEMU = Path(__file__).resolve().parents[2] / "scripts" / "boot-in-qemu"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")


class Machine:
    """A running machine; ``console`` is all it has said so far, without colours."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._pipe = process.stdout
        self._said = b""
        os.set_blocking(self._pipe.fileno(), False)

    @property
    def console(self) -> str:
        return _COLOURS.sub("", self._said.decode(errors="replace"))

    def wait_for(self, words: str, *, seconds: float) -> float:
        """Read on until ``words`` were said; gives the seconds it took, fails after ``seconds``."""
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while words not in self.console:
                left = began + seconds - time.monotonic()
                assert left > 0, f"not said in {seconds} s: {words}\n{self.console[-4000:]}"
                if selector.select(left):
                    chunk = self._pipe.read(65536)
                    assert chunk, f"the machine ended before it said: {words}\n{self.console}"
                    self._said += chunk
        return time.monotonic() - began


@contextmanager
def booting(image: Path, *options: str) -> Iterator[Machine]:
    """Switch a Pi 2 with ``image`` in its slot on; it is switched off when the block ends."""
    process = subprocess.Popen(
        [BOOT_IN_QEMU, image, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield Machine(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

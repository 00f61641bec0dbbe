"""Single key presses, for as long as a command wants them; none where nobody is at a keyboard."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AT_MOST = 64


@contextmanager
def key_presses() -> Iterator[Callable[[], str]]:
    """A function that returns the keys pressed since it was last called, without waiting.

    Until the block ends, the terminal does not show the keys. Ctrl-C interrupts as always.
    """
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, _AT_MOST).decode(errors="replace")

    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

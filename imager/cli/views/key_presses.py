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
    """A function that gives the keys pressed since it was last asked, without waiting.

    The terminal does not echo them meanwhile; Ctrl-C stays what it is.
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

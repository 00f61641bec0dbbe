"""picloud-image on a real terminal of any width, and all that it shows there."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.screen import screen
from tests.support.starter import started

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """How it ended, and the letters and codes that came to its terminal."""

    status: int
    text: str

    @property
    def lines(self) -> list[str]:
        """What stands on each line in the end, without colours."""
        return screen(self.text)


def on_terminal(
    words: Sequence[str],
    columns: int,
    *,
    cwd: Path,
    typed: str = "",
    env: Mapping[str, str] | None = None,
) -> Shown:
    """Run ``picloud-image`` with ``words`` in ``cwd`` on a terminal on which ``typed`` was
    typed."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    known = {"PATH": os.environ["PATH"], "HOME": str(cwd), "TERM": "xterm"} | dict(env or {})
    said = b""
    try:
        os.write(ours, typed.encode())
        with started(words, [theirs] * 3, cwd=cwd, env=known) as ended:
            os.close(theirs)
            while piece := _read(ours):
                said += piece
            return Shown(ended(_SECONDS), said.decode())
    finally:
        os.close(ours)


def _read(terminal: int) -> bytes:
    if not select.select([terminal], [], [], _SECONDS)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: nobody has the other end any more
        return b""

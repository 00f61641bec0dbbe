"""A person at a shell in another root folder: types a line, answers when asked, sees what comes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

COLUMNS = 80
PROMPT = re.compile(r"\033\]2;(\d+)\a\$ ")
"""What the shell shows when it waits: how the last command ended, which is not seen, and "$ "."""
QUESTION = "Type yes to go on, anything else to stop: "
USER = 1000
_SECONDS = 600
_ENVIRONMENT = {
    "HOME": "/home/me",
    "USER": "me",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PS1": r"\e]2;$?\a$ ",
}


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell on a terminal, which waits; what comes to it is also shown on the terminal ``shown``,
    which begins its lines itself."""

    terminal: int
    shown: BinaryIO | None = None

    def type(self, line: str, answers: Sequence[str] = ()) -> tuple[str, int]:
        """Type ``line``, and ``answers`` when it asks: what came, and how it ended."""
        os.write(self.terminal, f"{line}\n".encode())
        _, _, said = self.until_it_waits(answers).partition("\r\n")
        (prompt,) = PROMPT.finditer(said)
        return said[: prompt.start()], int(prompt[1])

    def until_it_waits(self, answers: Sequence[str] = ()) -> str:
        """All that comes until the shell shows its prompt."""
        said, left = b"", [*answers]
        while not PROMPT.search(said[-40:].decode(errors="replace")):
            came, _, _ = select.select([self.terminal], [], [], _SECONDS)
            assert came, f"nothing more came after {said[-2000:].decode(errors='replace')}"
            piece = os.read(self.terminal, 1 << 16)
            if self.shown:
                self.shown.write(piece.replace(b"\r\n", b"\n"))
                self.shown.flush()
            said += piece
            if left and said.endswith(QUESTION.encode()):
                os.write(self.terminal, f"{left.pop(0)}\n".encode())
        return said.decode()


@contextmanager
def shell_in(root: Path) -> Iterator[Shell]:
    """A shell of the user ``me`` in ``root``, in its home folder; what it started ends with it."""
    words = ["--userspec", f"{USER}:{USER}", str(root), "env", "-i", "-C", _ENVIRONMENT["HOME"]]
    words += [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("chroot", ["chroot", *words, "bash", "--norc", "--noediting", "-i"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    try:
        shell = Shell(terminal)
        shell.until_it_waits()
        yield shell
    finally:
        os.close(terminal)
        os.waitpid(process, 0)

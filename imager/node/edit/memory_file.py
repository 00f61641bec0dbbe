"""Files that exist only in memory, for programs that need a path.

In: a size or bytes. Out: a descriptor, and a path for programs that inherit it. They are for
private keys: after a ``kill -9`` nothing of them is left on a disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imager.base.durable import write_all


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A file in memory; gone when its block ends (memfd_create(2))."""

    descriptor: int

    @property
    def path(self) -> str:
        """The path under which a program that inherits the descriptor can open the file."""
        return f"/dev/fd/{self.descriptor}"

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from byte ``offset``; zeros where nothing was written and behind the
        end."""
        return os.pread(self.descriptor, length, offset).ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at byte ``offset``."""
        done = 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], offset + done)


@contextmanager
def scratch(*, size_bytes: int = 0, content: bytes = b"") -> Iterator[MemoryFile]:
    """A file of ``size_bytes`` zeros, or with ``content``."""
    descriptor = os.memfd_create("picloud-image", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size_bytes)
        write_all(descriptor, content)
        yield MemoryFile(descriptor)
    finally:
        os.close(descriptor)

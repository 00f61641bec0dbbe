"""What was made durable: every fsync(2) of this process, really done and written down.

In: a block of code. Out: a path and a size for each call, in order. A test that cuts the power
would need a machine of its own; that the call is there, for the right file and after its last
byte, can be seen here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Sync:
    """One fsync: of what, under the name and with the size that it had then."""

    path: Path
    size_bytes: int


@contextmanager
def fsyncs() -> Iterator[list[Sync]]:
    """Write every fsync of the block into the list."""
    real, done = os.fsync, []

    def fsync(fd: int) -> None:
        real(fd)
        done.append(Sync(Path(os.readlink(f"/proc/self/fd/{fd}")), os.fstat(fd).st_size))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        yield done

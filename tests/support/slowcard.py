"""Loop devices as slow cards: a limit on bytes per second.

In: a loop device made here. Out: the same device, slow for as long as the ``with`` lasts. The
limit is a rule of cgroup v1's blkio controller in its root group, where it holds for direct I/O
and for the kernel's own writeback alike, and for no device but ours. A process killed with -9
leaves its rule behind, which the next one on that device replaces and removes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.loop import Loop, missing_abilities

_BLKIO = Path("/sys/fs/cgroup/blkio")
_RULES = {
    "write": _BLKIO / "blkio.throttle.write_bps_device",
    "read": _BLKIO / "blkio.throttle.read_bps_device",
}


def no_throttle() -> str:
    """Why cards cannot be made slow here; empty when they can."""
    if missing := missing_abilities():
        return missing
    if not all(os.access(rule, os.W_OK) for rule in _RULES.values()):
        return f"needs the blkio controller of cgroup v1 at {_BLKIO}"
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    if not any(line.endswith(":blkio:/") for line in groups):
        return "needs to run in the root group of cgroup v1's blkio controller"
    return ""


@contextmanager
def throttled(loop: Loop, *, write_bps: int, read_bps: int) -> Iterator[None]:
    """Limit ``loop`` to so many bytes per second."""
    loop.require_ours()
    number = Path(f"/sys/block/{loop.name}/dev").read_text().strip()
    try:
        _RULES["write"].write_text(f"{number} {write_bps}\n")
        _RULES["read"].write_text(f"{number} {read_bps}\n")
        yield
    finally:
        for rule in _RULES.values():
            rule.write_text(f"{number} 0\n")


@contextmanager
def all_throttled(loops: Sequence[Loop], *, write_bps: int, read_bps: int) -> Iterator[None]:
    """Limit each of ``loops`` so."""
    with ExitStack() as limits:
        for loop in loops:
            limits.enter_context(throttled(loop, write_bps=write_bps, read_bps=read_bps))
        yield

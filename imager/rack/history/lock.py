"""One batch at a time: the lock of a rack, ``.picloud/batch.lock``.

In: the folder of a rack. Out: the lock, held until a block ends, or who holds it. The file says
which process that is, since when.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import TargetRefused
from imager.base.trusted_folder import TrustedFolder
from imager.config.folder import ensure_state
from imager.config.rack import state_folder
from imager.rack.history.events import now

_LOCK = "batch.lock"
_LONGEST_HOLDER = 4096
_TRIES, _INSTANT_SECONDS = 5, 0.02


@contextmanager
def batch_lock(rack: Path) -> Iterator[None]:
    """Hold the lock under which a rack has one batch at a time. Raises TargetRefused that names
    the run that holds it."""
    state = ensure_state(rack)
    with ExitStack() as held:
        try:
            descriptor = _locked(state, held)
        except BlockingIOError:
            raise TargetRefused(
                f"cards of this rack are being written by another run ({_holder(state)})",
                hint="wait until it is done, or end it; then run this again",
            ) from None
        who = f"{_who(os.getpid())}, since {now()}"
        with host_storage(state.path / _LOCK):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, who.encode(), 0)
        yield


def is_batch_at_work(rack: Path, process: int) -> bool:
    """Whether that process holds the ``batch_lock`` of the rack now."""
    state = state_folder(rack)
    return state.is_locked(_LOCK) and _holder(state).startswith(f"{_who(process)},")


def _who(process: int) -> str:
    return f"process {process}"


def _locked(state: TrustedFolder, held: ExitStack) -> int:
    """The lock's descriptor, held until ``held`` is closed. Whoever only looks whether a batch is
    at work has the lock for an instant, and is waited for."""
    for left in reversed(range(_TRIES)):
        try:
            return held.enter_context(state.locked(_LOCK, wait=False))
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_INSTANT_SECONDS)
    raise AssertionError("it was tried at least once")


def _holder(state: TrustedFolder) -> str:
    said = state.read(_LOCK, _LONGEST_HOLDER).decode(errors="replace").strip()
    return said or "it does not say which"

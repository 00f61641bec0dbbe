"""A real block device that misbehaves on command: a loop device over a file in FUSE.

In: a size, then faults, each bound to bytes of the card and to a phase of the work. Out: a device
node for the engine, the file with what is really on the card, and how often each fault struck.
The same card has a speed model: bytes per second, and a price for scattered writes.

What a loop device makes of a FUSE file's answers was tried on Linux 6.18 (``test_faultcard``
keeps it so): EIO, ENOSPC and ENODEV reach the program as they are, EROFS becomes EIO; a short
write is reported as a whole one, so that it is a write that was lost; a flush arrives as fsync(2).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.disk.extents import Extent
from tests.support.faultfs import FILE
from tests.support.fusing import fuse_process, why_no_fuse
from tests.support.loop import Loop, loop_over, missing_abilities, sized_file, unseen_by_udevd

EVERY_TIME = -1
_TRANSFER_KIB = 512
"""Half of what one FUSE request carries at most."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with transfers (``on``: "write" or "read") that touch ``extent`` in one of
    the ``phases``, the first ``times`` times.

    ``kind`` is eio, enospc, flip (one bit of the extent's first byte), zeros, drop (the write
    changes nothing), stale (a write is lost at the next flush; a read gives something older),
    short (no more is taken than lies before the extent), read-only and vanish (from then on), or
    stall (for ``seconds``).
    """

    kind: str
    extent: Extent
    phases: tuple[str, ...]
    on: str = "write"
    times: int = EVERY_TIME
    seconds: float = 0.0


def why_not() -> str:
    """Why there can be no fault cards here; empty when there can."""
    if missing := missing_abilities():
        return missing
    return why_no_fuse()


@dataclass
class FaultCard:
    """A card made here; ``store`` holds its real content."""

    loop: Loop
    store: Path
    size_bytes: int
    process: subprocess.Popen[str]
    fired: list[int] = field(default_factory=list)

    @property
    def node(self) -> Path:
        """The device to write to."""
        return self.loop.node

    def arm(
        self,
        faults: Sequence[Fault] = (),
        *,
        worn: Sequence[int] = (),
        real_bytes: int = 0,
        keeps_beyond: bool = True,
    ) -> None:
        """Forget all earlier faults, be a working card again, and lay these in wait.

        ``worn`` are the numbers of sectors that can no longer be read, thousands of them if need
        be. ``real_bytes`` is where a fake card wraps around, or, unless it ``keeps_beyond``,
        forgets.
        """
        self._do(
            do="arm",
            faults=[
                {
                    "kind": fault.kind,
                    "low": fault.extent.offset,
                    "high": fault.extent.end,
                    "phases": list(fault.phases),
                    "on": fault.on,
                    "left": fault.times,
                    "seconds": fault.seconds,
                }
                for fault in faults
            ],
            worn=[*worn],
            real_bytes=real_bytes,
            keeps_beyond=keeps_beyond,
        )

    def phase(self, name: str) -> None:
        """The work has come to the phase ``name``."""
        self._do(do="phase", name=name)

    def set_speed(
        self,
        *,
        write_bps: float = 0,
        read_bps: float = 0,
        scatter_seconds: float = 0,
        buffer_seconds: float = 0,
    ) -> None:
        """Take as long as such a card; 0 is as fast as can be. A write that does not go on in
        the same or the next 4 MiB costs ``scatter_seconds`` more. Gaps between transfers up to
        ``buffer_seconds``, which FUSE and a busy host make, are made up for."""
        speed = {
            "write_bps": write_bps,
            "read_bps": read_bps,
            "scatter_seconds": scatter_seconds,
            "buffer_seconds": buffer_seconds,
        }
        self._do(do="speed", speed=speed)

    def forget_unflushed(self, on: bool) -> None:
        """Whether ``pull`` makes the card lose what was not flushed."""
        self._do(do="forgetful", on=on)

    def pull(self, seed: int) -> None:
        """Lose any 4 KiB pieces, by chance, of what was written since the last flush, as a card
        with a write cache does when it is pulled."""
        self._do(do="pull", seed=seed)

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """No transfer goes on while the block lasts: ``store`` is as at one moment."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            state = Path(f"/proc/{self.process.pid}/stat")
            while state.read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.001)
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def counts(self) -> dict[str, int]:
        """Bytes read and written since ``arm``, and flushes."""
        return self._do(do="ask")

    def end_abruptly(self) -> None:
        """End the process behind the device, as when a reader is pulled."""
        self.process.kill()
        self.process.wait()

    def holds(self, offset: int, length: int) -> bytes:
        """What is really on the card."""
        with self.store.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def _do(self, **words: object) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.fired = answer["fired"]
        counts: dict[str, int] = answer["counts"]
        return counts


@contextmanager
def fault_card(folder: Path, size_bytes: int) -> Iterator[FaultCard]:
    """A card of ``size_bytes`` full of nothing; everything is taken down at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    mountpoint = folder / "fuse"
    mountpoint.mkdir()
    store = sized_file(folder / "store", size_bytes)
    with (
        fuse_process("tests.support.faultfs", mountpoint, store) as process,
        unseen_by_udevd(mountpoint / FILE),  # a fault is for who writes the card
        loop_over(mountpoint / FILE) as loop,
        _one_transfer_each(loop),
    ):
        card = FaultCard(loop, store, size_bytes, process)
        try:
            yield card
        finally:
            if process.poll() is None:
                card.arm()
                card.set_speed()


@contextmanager
def _one_transfer_each(loop: Loop) -> Iterator[None]:
    """Let every request of the device be one of FUSE, too. The second half of one that was cut in
    two could fail, and the loop device would call what is then a short write a whole one."""
    limit = Path(f"/sys/block/{loop.name}/queue/max_sectors_kb")
    before = limit.read_text()
    limit.write_text(str(_TRANSFER_KIB))
    try:
        yield
    finally:
        limit.write_text(before)

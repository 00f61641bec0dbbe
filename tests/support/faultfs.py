"""A file in FUSE that behaves like a bad card: the process behind ``tests.support.faultcard``.

``python -m tests.support.faultfs MOUNTPOINT STORE`` serves ``MOUNTPOINT/card`` out of the file
STORE. Commands come as JSON lines on stdin, each answered by one on stdout. One thread serves, as
a card does one thing at a time, and nothing is cached: the file is opened with FUSE's direct I/O,
so every transfer of the loop device above arrives here. STORE holds what is really on the card.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import stat
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mfusepy

FILE = "card"
_UNIT = 4 << 20
_PAGE = 4096
_SECTOR = 512
_END_WITH_US = 1  # PR_SET_PDEATHSIG of prctl(2)
_SIGTERM = 15


@dataclass(slots=True)
class Fault:
    """One fault as the command says it; see ``tests.support.faultcard.Fault`` for the words."""

    kind: str
    low: int
    high: int
    phases: list[str]
    on: str
    left: int
    seconds: float
    fired: int = 0

    def strikes(self, phase: str, on: str, offset: int, end: int) -> bool:
        """Whether it happens to this transfer; counts that it did."""
        hit = (
            self.left != 0
            and on == self.on
            and phase in self.phases
            and offset < self.high
            and end > self.low
        )
        if hit:
            self.fired += 1
            self.left -= 1
        return hit


@dataclass(slots=True)
class Speed:
    """Bytes per second, and what each jump to another 4 MiB unit costs when writing. Gaps between
    transfers as short as ``buffer_seconds`` cost nothing, as with a card that has a buffer."""

    write_bps: float = 0.0
    read_bps: float = 0.0
    scatter_seconds: float = 0.0
    buffer_seconds: float = 0.0
    busy_until: float = 0.0
    unit: int = -1

    def spend(self, on: str, offset: int, length: int) -> None:
        """Sleep as long as a card of this speed would take."""
        rate = self.write_bps if on == "write" else self.read_bps
        if not rate:
            return
        cost = length / rate
        if on == "write":
            units = range(offset // _UNIT, (offset + length - 1) // _UNIT + 1)
            jumps = units[0] not in (self.unit, self.unit + 1)
            self.unit = units[-1]
            cost += self.scatter_seconds if jumps else 0.0
        now = time.monotonic()
        self.busy_until = max(self.busy_until, now - self.buffer_seconds) + cost
        time.sleep(max(0.0, self.busy_until - now))


@dataclass
class Card:
    """What is stored, which faults lie in wait, and what was seen."""

    store: int
    size_bytes: int
    faults: list[Fault] = field(default_factory=list)
    phase: str = ""
    real_bytes: int = 0
    keeps_beyond: bool = True
    locked: bool = False
    gone: bool = False
    speed: Speed = field(default_factory=Speed)
    unflushed: list[tuple[int, bytes]] = field(default_factory=list)
    forgetful: bool = False
    cached: list[tuple[int, bytes]] = field(default_factory=list)
    worn: bytearray = field(default_factory=bytearray)
    """A byte for each sector: 1 where it cannot be read."""
    counts: dict[str, int] = field(default_factory=lambda: {"read": 0, "write": 0, "flush": 0})

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size_bytes - offset))
        self._require_there()
        self.speed.spend("read", offset, length)
        self.counts["read"] += length
        if 1 in self.worn[offset // _SECTOR : -(-(offset + length) // _SECTOR)]:
            raise OSError(errno.EIO, "worn out")
        data = bytearray(self._load(offset, length))
        for fault in self._striking("read", offset, offset + length):
            self._fail(fault)
            low, high = max(fault.low, offset) - offset, min(fault.high - offset, length)
            if fault.kind == "flip":
                data[low] ^= 0x10
            elif fault.kind == "zeros":
                data[low:high] = bytes(high - low)
            elif fault.kind == "stale":
                data[low:high] = bytes(0x5A ^ (at * 7 & 0xFF) for at in range(low, high))
        return bytes(data)

    def write(self, offset: int, data: bytes) -> int:
        self._require_there()
        self.speed.spend("write", offset, len(data))
        self.counts["write"] += len(data)
        end = offset + len(data)
        striking = self._striking("write", offset, end)
        if self.locked:
            raise OSError(errno.EROFS, "read-only")
        kept = bytearray(data)
        taken = len(data)
        for fault in striking:
            self._fail(fault)
            low, high = max(fault.low, offset), min(fault.high, end)
            if fault.kind == "flip":
                kept[low - offset] ^= 0x10
            elif fault.kind == "zeros":
                kept[low - offset : high - offset] = bytes(high - low)
            elif fault.kind == "drop":
                kept[low - offset : high - offset] = self._load(low, high - low)
            elif fault.kind == "stale":
                self.unflushed.append((low, self._load(low, high - low)))
            elif fault.kind == "short":
                taken = min(taken, max(0, low - offset) // 512 * 512)
        if self.forgetful:
            self.cached.append((offset, self._load(offset, taken)))
        self._keep(offset, bytes(kept[:taken]))
        return taken

    def flush(self) -> None:
        self._require_there()
        self.counts["flush"] += 1
        for offset, old in self.unflushed:
            self._keep(offset, old)
        self.unflushed.clear()
        self.cached.clear()
        if self.locked:
            raise OSError(errno.EROFS, "read-only")

    def pull(self, seed: int) -> None:
        """Lose a random part of what was written since the last flush."""
        chance = random.Random(seed)
        for offset, old in reversed(self.cached):
            for at in range(0, len(old), _PAGE):
                if chance.random() < 0.5:
                    self._keep(offset + at, old[at : at + _PAGE])
        self.cached.clear()

    def _striking(self, on: str, offset: int, end: int) -> list[Fault]:
        return [f for f in self.faults if f.strikes(self.phase, on, offset, end)]

    def _require_there(self) -> None:
        if self.gone:
            raise OSError(errno.ENODEV, "gone")

    def _fail(self, fault: Fault) -> None:
        match fault.kind:
            case "eio":
                raise OSError(errno.EIO, "as told")
            case "enospc":
                raise OSError(errno.ENOSPC, "as told")
            case "read-only":
                self.locked = True
                raise OSError(errno.EROFS, "as told")
            case "vanish":
                self.gone = True
                raise OSError(errno.ENODEV, "as told")
            case "stall":
                time.sleep(fault.seconds)

    def _load(self, offset: int, length: int) -> bytes:
        parts = [
            os.pread(self.store, size, at) if at >= 0 else bytes(size)
            for at, size in self._where(offset, length)
        ]
        return b"".join(parts)

    def _keep(self, offset: int, data: bytes) -> None:
        done = 0
        for at, size in self._where(offset, len(data)):
            if at >= 0:
                os.pwrite(self.store, data[done : done + size], at)
            done += size

    def _where(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Real addresses of a stretch; -1 where the card has no memory at all."""
        if not self.real_bytes or offset + length <= self.real_bytes:
            return [(offset, length)]
        found = []
        while length:
            at = offset % self.real_bytes
            size = min(length, self.real_bytes - at)
            kept = self.keeps_beyond or offset < self.real_bytes
            found.append((at if kept else -1, size))
            offset, length = offset + size, length - size
        return found


class Filesystem(mfusepy.Operations):  # type: ignore[misc]
    """One file, ``/card``."""

    use_ns = True

    def __init__(self, card: Card) -> None:
        self.card = card

    def getattr(self, path: str, fh: object = None) -> dict[str, int]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == f"/{FILE}":
            return {
                "st_mode": stat.S_IFREG | 0o600,
                "st_nlink": 1,
                "st_size": self.card.size_bytes,
                "st_blksize": 512,
            }
        raise mfusepy.FuseOSError(errno.ENOENT)

    def open(self, path: str, fi: Any) -> int:
        fi.direct_io = 1
        return 0

    def read(self, path: str, size: int, offset: int, fi: object) -> bytes:
        return self.card.read(offset, size)

    def write(self, path: str, data: bytes, offset: int, fi: object) -> int:
        return self.card.write(offset, data)

    def fsync(self, path: str, datasync: int, fi: object) -> int:
        self.card.flush()
        return 0

    def flush(self, path: str, fi: object) -> int:
        return 0

    def release(self, path: str, fi: object) -> int:
        return 0


def obey(card: Card) -> None:
    """Carry out the commands on stdin until it ends."""
    for line in sys.stdin:
        words: dict[str, Any] = json.loads(line)
        match words["do"]:
            case "phase":
                card.phase = words["name"]
            case "arm":
                card.faults = [Fault(**fault) for fault in words["faults"]]
                card.real_bytes = words["real_bytes"]
                card.keeps_beyond = words["keeps_beyond"]
                card.worn = bytearray(card.size_bytes // _SECTOR)
                for sector in words["worn"]:
                    card.worn[sector] = 1
                card.locked = card.gone = False
                card.unflushed.clear()
                card.counts = dict.fromkeys(card.counts, 0)
            case "forgetful":
                card.forgetful = words["on"]
                card.cached.clear()
            case "pull":
                card.pull(words["seed"])
            case "speed":
                card.speed = Speed(**words["speed"])
        answer = {"fired": [fault.fired for fault in card.faults], "counts": card.counts}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)  # whoever commanded us is gone


def main() -> None:
    mountpoint, store = sys.argv[1], Path(sys.argv[2])
    ctypes.CDLL(None).prctl(_END_WITH_US, _SIGTERM)
    descriptor = os.open(store, os.O_RDWR)
    card = Card(descriptor, os.fstat(descriptor).st_size)
    threading.Thread(target=obey, args=(card,), daemon=True).start()
    with suppress(RuntimeError):  # how mfusepy says that a signal ended it
        mfusepy.FUSE(
            Filesystem(card),
            mountpoint,
            raw_fi=True,
            foreground=True,
            nothreads=True,
            fsname="picloud-faultcard",
        )


if __name__ == "__main__":
    main()

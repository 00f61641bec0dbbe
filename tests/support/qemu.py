"""A Raspberry Pi 2 in QEMU that boots a card image, and what it says on its console.

In: an image whose size is a power of two. Out: the console, read as it comes. The machine writes
to the image as a node writes to its card, and when it is switched off nobody tells it before.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from tests.support.salt import Wire

BOOT_IN_QEMU = Path(__file__).resolve().parents[2] / "scripts" / "boot-in-qemu"
LOGIN = "Reached target getty.target"
"""What the console says when somebody can log in. It is not the prompt on the serial line, which
systemd gives up where the machine is so slow that this line's device takes 90 s to appear."""
_EMULATOR_FAULTS = (
    "timeout waiting for hardware interrupt",  # of the SD controller
    "usb usb1-port1: attempt power cycle",  # the network adapter is not found
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
_STAMP = re.compile(r"^\[ *(\d+\.\d+)\] ", re.MULTILINE)
_LOOK_SECONDS = 0.2
_TRIES = 3
_T = TypeVar("_T")


class EmulatorFault(AssertionError):
    """What is emulated lost an interrupt, and the kernel then its card or its network.

    Seen on a busy computer only; it says nothing of the card.
    """


class Machine:
    """A running machine; ``console`` is all it has said so far, without colours.

    It has a clock of its own, which is slower than this computer's (scripts/boot-in-qemu).
    """

    def __init__(self, process: subprocess.Popen[bytes], console: BinaryIO) -> None:
        self._process = process
        self._console = console
        self._power_on = time.monotonic()

    @property
    def console(self) -> str:
        # pread: the machine's own writing position is left alone.
        size = os.fstat(self._console.fileno()).st_size
        said = os.pread(self._console.fileno(), size, 0)
        return _COLOURS.sub("", said.decode(errors="replace"))

    @property
    def seconds_on(self) -> float:
        """How long ago it was switched on, by this computer's clock."""
        return time.monotonic() - self._power_on

    @property
    def own_seconds(self) -> float:
        """How long its kernel had been running when it last said something, by its own clock."""
        return max(map(float, _STAMP.findall(self.console)), default=0.0)

    def wait_for(self, words: str, *, seconds: float, times: int = 1) -> float:
        """Read on until ``words`` were said, so many ``times`` since it was switched on; gives the
        seconds it took, fails after ``seconds``."""
        began = time.monotonic()
        while self.console.count(words) < times:
            self.require_running(f"before it said: {words}")
            waited = time.monotonic() - began
            assert waited < seconds, f"not said in {seconds} s: {words}\n{self.console[-4000:]}"
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    def require_running(self, when: str) -> None:
        """Fail with the end of its console if QEMU ended, or failed the node."""
        if any(words in self.console for words in _EMULATOR_FAULTS):
            raise EmulatorFault(f"QEMU failed the node {when}\n{self.console[-4000:]}")
        assert self._process.poll() is None, f"QEMU ended {when}\n{self.console[-4000:]}"

    @property
    def failed_units(self) -> list[str]:
        """What systemd says of units that failed, but for first boot itself: where the computer is
        so slow that its master is, it is tried again, and that is as it must be."""
        lines = [line for line in self.console.splitlines() if "[FAILED]" in line]
        return [line for line in lines if "picloud" not in line]


@contextmanager
def booting(image: Path, *words: str, on: Wire | None = None) -> Iterator[Machine]:
    """Switch a Pi 2 with ``image`` in its slot on; it loses its power when the block ends.

    ``words`` are options of scripts/boot-in-qemu; ``on`` is the network whose loopback its
    ports are on.
    """
    command: list[str | Path] = [*(on.entering if on else ()), BOOT_IN_QEMU, *words, image]
    with tempfile.TemporaryFile() as console, emulating(command, console) as process:
        yield Machine(process, console)


@contextmanager
def emulating(
    command: Sequence[str | Path], console: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    """A script that runs QEMU and speaks to ``console``; both are ended when the block ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def copied(card: Path, copy: Path) -> Path:
    """A copy that stays sparse."""
    subprocess.run(["cp", "--sparse=always", card, copy], check=True)
    return copy


def unless_the_emulator_fails(cards: Iterable[Path], boot: Callable[[], _T]) -> _T:
    """What ``boot`` gives; where it was the emulator that failed, ``boot`` is done again, with
    ``cards`` as they were."""
    before = {card: copied(card, card.with_suffix(".before")) for card in cards}
    for _ in range(_TRIES - 1):
        try:
            return boot()
        except EmulatorFault:
            for card, copy in before.items():
                copied(copy, card)
    return boot()

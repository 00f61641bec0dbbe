"""A PC in QEMU with card readers on a real USB bus, to which more can be plugged in.

In: image files that stand for the cards in the readers. Out: what a script that ran there left in a
folder that both have, and what the readers were told. scripts/pc-in-qemu says what the PC is.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.qemu import emulating
from tests.support.standin import ROOT

PC_IN_QEMU = ROOT / "scripts" / "pc-in-qemu"
HUB = ("-device", "usb-hub,bus=usb.0,port=1")
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Reader:
    """A reader with ``card`` in it at ``port``, such as ``2``, or ``1.3`` behind a hub."""

    port: str
    card: Path
    most: str = ""
    """How fast at most, as QEMU's ``throttling.`` options say it."""

    @property
    def name(self) -> str:
        """The serial number it tells."""
        return self.card.stem

    @property
    def drive(self) -> tuple[str, str]:
        """QEMU's options for the card."""
        # Nobody switches this computer off: what the PC flushes need not reach its disk.
        most = f",throttling.{self.most}" if self.most else ""
        return "-drive", f"if=none,id={self.name},format=raw,file={self.card},cache=unsafe{most}"

    @property
    def device(self) -> dict[str, Any]:
        """What QEMU's ``device_add`` takes for the reader; ``device_del`` takes its ``id``."""
        at = {"bus": "usb.0", "port": self.port, "removable": True, "id": f"usb-{self.name}"}
        return {"driver": "usb-storage", "drive": self.name, "serial": self.name, **at}

    @property
    def plugged_in(self) -> tuple[str, ...]:
        """QEMU's options for a reader that is there from the beginning."""
        return *self.drive, "-device", json.dumps(self.device)


class Pc:
    """A running PC whose script writes to files in ``folder``."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self._process = process

    def wait_until(self, is_so: Callable[[], bool], *, seconds: float) -> None:
        """Fail after ``seconds``, or where the PC is switched off before."""
        began = time.monotonic()
        while not is_so():
            said = (self.folder / "console").read_text(errors="replace")[-4000:]
            assert self._process.poll() is None, f"switched off\n{said}"
            assert time.monotonic() - began < seconds, f"not in {seconds} s\n{said}"
            time.sleep(_LOOK_SECONDS)

    def wait_for_end(self, *, seconds: float) -> None:
        """Until the script has ended and the PC is switched off."""
        assert self._process.wait(timeout=seconds) == 0

    def ask_qemu(self, command: str, **arguments: Any) -> Any:
        """What QEMU answers on its monitor."""
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(self.folder / "qmp"))
            lines = wire.makefile("rw")
            lines.readline()  # its greeting
            answer: dict[str, Any] = {}
            for request in (
                {"execute": "qmp_capabilities"},
                {"execute": command, "arguments": arguments},
            ):
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
            assert "return" in answer, answer
            return answer["return"]


@contextmanager
def pc(folder: Path, script: str, *options: str) -> Iterator[Pc]:
    """A PC that runs ``script`` in ``folder``; switched off when the block ends, if not before."""
    (folder / "script").write_text(f"cd {shlex.quote(str(folder))}\n{script}\n")
    qmp = ("-qmp", f"unix:{folder}/qmp,server=on,wait=off")
    command: list[str | Path] = [PC_IN_QEMU, folder, folder / "script", *options, *qmp]
    with (folder / "console").open("wb") as console, emulating(command, console) as process:
        yield Pc(folder, process)


def picloud_image(*words: str | Path) -> str:
    """The shell's line for the command of this checkout."""
    return f"PYTHONPATH={ROOT} " + shlex.join([sys.executable, "-m", "imager", *map(str, words)])

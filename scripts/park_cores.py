"""Put the cores of a Pi 2 in QEMU that the kernel leaves alone (maxcpus=1) to sleep.

usage: python3 scripts/park_cores.py SOCKET        the socket of QEMU's -gdb

Until a kernel asks for them, cores 1 to 3 wait in a loop of QEMU's own, at 0x300 in memory (smpboot
in QEMU's hw/arm/raspi.c), and read their mailboxes as fast as this computer can: three of its cores
are busy with nothing. The loop begins with "yield"; with "wfi" in its place they sleep. The device
tree keeps the first page of memory for that loop. Where another version of QEMU has something else
there, nothing is changed: the machine is slower then.
"""

from __future__ import annotations

import re
import socket
import sys
import time

_LOOP_BYTES = (0x300, 0x80)
"""Where the loop is looked for: address and length, in bytes."""
_YIELD = bytes.fromhex("01f020e3")
_WFI = bytes.fromhex("03f020e3")
_PATIENCE_SECONDS = 10


class _Debugger:
    """QEMU's side of GDB's remote protocol; the machine stands still while it is open.

    A packet is ``$text#xx``, xx the sum of its bytes modulo 256 (GDB manual, "Remote Protocol").
    """

    def __init__(self, path: str) -> None:
        began = time.monotonic()
        self._said = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE_SECONDS)
        while True:
            try:
                self._socket.connect(path)
                return
            except OSError:
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    raise
                time.sleep(0.05)

    def ask(self, text: str) -> str:
        """What QEMU answers. That the machine stopped (T) it tells at any time, unasked."""
        self._socket.sendall(f"${text}#{sum(text.encode()) % 256:02x}".encode())
        while True:
            while not (packet := re.match(rb"\+*\$([^#]*)#..", self._said)):
                if not (more := self._socket.recv(4096)):
                    raise ConnectionError("QEMU ended")
                self._said += more
            self._said = self._said[packet.end() :]
            self._socket.sendall(b"+")
            if not packet[1].startswith(b"T"):
                return packet[1].decode()


def main(path: str) -> None:
    debugger = _Debugger(path)
    try:
        debugger.ask("Qqemu.PhyMemMode:1")
        start, length = _LOOP_BYTES
        loop = bytes.fromhex(debugger.ask(f"m{start:x},{length:x}"))
        if loop.count(_YIELD) == 1:
            debugger.ask(f"M{start + loop.index(_YIELD):x},{len(_WFI)}:{_WFI.hex()}")
    finally:
        debugger.ask("D")  # detached: it runs on


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"park_cores: {error}: the idle cores of the machine keep this computer busy")

"""Have the kernel of a Pi 2 in QEMU keep what it says of its page tables to the one core that runs.

usage: python3 scripts/flush_alone.py SOCKET        the socket of QEMU's -gdb

A kernel for several cores tells all of them which translations of addresses are no longer true
(TLBIMVAIS and its like: ARM Architecture Reference Manual ARMv7-A, "TLB maintenance operations"),
also where all but one are switched off. QEMU queues, fetches and does that as a piece of work for
each of them: a third of all its time. Once the kernel runs, its instructions for that get their
other form in the machine's memory, the one for this core alone (TLBIMVA). The card is not touched.
Where the kernel has no such instruction, nothing is changed and the machine is slower.
"""

from __future__ import annotations

import re
import socket
import sys
import time

_CODE_BYTES = 20 << 20
"""In the first so many bytes of memory is all of a kernel's own code."""
_KERNEL_SPACE = 0xC0000000
"""From this address on everything is the kernel's; what unpacks it runs far below."""
_CHUNK_BYTES = 2048
"""As much as QEMU puts into one answer."""
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 120
_TO_ALL_CORES = re.compile(rb"(?=[\x13\x33\x53\x73][\x0f-\xef]\x08[\x0e-\xee])")
"""MCR p15, 0, Rt, c8, c3, opc2 in memory: the opc2 of TLBI...IS is 0 to 3; Rt and the condition are
the first four bits of their bytes, of which the last four are looked at below."""
_OTHER_FORM = 3 ^ 7
"""c8, c3 is for all cores, c8, c7 for this one; it is the lowest byte's."""


class _Debugger:
    """QEMU's side of GDB's remote protocol; the machine stands still but in ``run_on``.

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
        """What QEMU answers."""
        self._send(text)
        while (answer := self._receive()).startswith("T"):
            pass  # that it stopped, which it may say at any time
        return answer

    def run_on(self, seconds: float) -> None:
        """Let the machine run for so long."""
        self._send("c")
        time.sleep(seconds)
        self._socket.sendall(b"\x03")
        while not self._receive().startswith("T"):
            pass

    def _send(self, text: str) -> None:
        self._socket.sendall(f"${text}#{sum(text.encode()) % 256:02x}".encode())

    def _receive(self) -> str:
        while not (packet := re.match(rb"\+*\$([^#]*)#..", self._said)):
            if not (more := self._socket.recv(1 << 16)):
                raise ConnectionError("QEMU ended")
            self._said += more
        self._said = self._said[packet.end() :]
        self._socket.sendall(b"+")
        return packet[1].decode()


def main(path: str) -> None:
    debugger = _Debugger(path)
    began = time.monotonic()
    try:
        while _program_counter(debugger) < _KERNEL_SPACE:
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"no kernel runs after {_PATIENCE_SECONDS} s")
            debugger.run_on(_LOOK_SECONDS)
        debugger.ask("Qqemu.PhyMemMode:1")
        for start in range(0, _CODE_BYTES, _CHUNK_BYTES):
            code = bytes.fromhex(debugger.ask(f"m{start:x},{_CHUNK_BYTES:x}"))
            for at in _instructions(code):
                debugger.ask(f"M{start + at:x},1:{code[at] ^ _OTHER_FORM:02x}")
    finally:
        debugger.ask("D")  # detached: it runs on


def _program_counter(debugger: _Debugger) -> int:
    """r15, the last of the 16 registers of 4 bytes with which the answer to "g" begins."""
    return int.from_bytes(bytes.fromhex(debugger.ask("g"))[60:64], "little")


def _instructions(code: bytes) -> list[int]:
    """Where in ``code`` all cores are told."""
    found = (match.start() for match in _TO_ALL_CORES.finditer(code))
    return [
        at for at in found if at % 4 == 0 and code[at + 1] & 15 == 15 and code[at + 3] & 15 == 14
    ]


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"flush_alone: {error}: the machine is slower than it could be")

"""The first program: what the kernel or the initramfs starts on the root filesystem.

In: an ext4, the words of the command line, the width of the kernel. Out: the program's path, or why
none can start. The names are those of the kernel's init/main.c; a program is told by its first
bytes, and the loader or interpreter that it names must be a program too (fs/exec.c,
fs/binfmt_elf.c, fs/binfmt_script.c). A 64-bit kernel may run programs of either width.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from imager.base.units import MiB
from imager.disk.budget import OverBudget
from imager.disk.ext4.filesystem import Ext4, Inode

_INITS = ("/sbin/init", "/etc/init", "/bin/init")
_ARM, _ARM64 = 40, 183
_FOREIGN = {
    3: "a PC of 32 bits",
    62: "a PC",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC",
    243: "RISC-V",
}
_INTERPRETER = 3
_MOST_HEADERS = 64
_MOST_STEPS = 5
"""So many programs may lead to one another: a script to its interpreter, that one to its loader."""
_LINE_BYTES = 256
_BLANK = re.compile(rb"[ \t\0]")


@dataclass(frozen=True, slots=True)
class FirstProgram:
    """``fault`` says why none can start, ``missing`` which file of those that lead to it is not
    there; both are empty where it can. ``path`` is the file itself, every link followed."""

    fault: str = ""
    missing: str = ""
    path: str = ""

    @property
    def is_systemd(self) -> bool:
        """Whether it is seen to be systemd, which waits for what is in fstab."""
        return self.path.endswith("/systemd")


def first_program(files: Ext4, named: str | None, bits: int | None = None) -> FirstProgram:
    """What a kernel of ``bits`` would start (None: that is not known); ``named`` is the value of
    init=, beside which nothing is tried. Raises OverBudget."""
    tried = [_judged(files, path, bits) for path in ((named,) if named else _INITS)]
    good = next((one for one in tried if not one.fault), None)
    there = next((one for one in tried if not one.missing), None)
    return good or there or tried[0]


def _judged(files: Ext4, name: str, bits: int | None) -> FirstProgram:
    try:
        path = files.resolve(name)
        inode = files.lookup(path)
        leads = name if path == name else f"{name} leads to {path}, which"
        if inode is None:
            what = f"{leads} is missing" if path != name else f"there is no {name}"
            return FirstProgram(what, missing=path)
        fault = _fault(files, inode, bits, _MOST_STEPS)
    except OverBudget:
        raise
    except (ValueError, struct.error) as error:
        return FirstProgram(f"{name} cannot be read: {error}")
    return FirstProgram(f"{leads} {fault}" if fault else "", path=path)


def _fault(files: Ext4, inode: Inode, bits: int | None, steps: int) -> str:
    """Why a kernel of ``bits`` does not start the program, which may lead to ``steps`` others."""
    if not inode.is_file:
        return "is no file"
    if not inode.size_bytes:
        return "is empty"
    if not inode.mode & 0o111:
        return "may not be executed"
    head = next(iter(files.content_in_pieces(inode)), b"")[:MiB]
    if head.startswith(b"#!"):
        # A return before the end of the line belongs to the name, as for the kernel.
        line = head[2:_LINE_BYTES].split(b"\n")[0].strip(b" \t")
        return _needs(files, _BLANK.split(line)[0], bits, steps)
    if not head.startswith(b"\x7fELF"):
        return "is no program"
    machine = int.from_bytes(head[18:20], "little")
    if machine in _FOREIGN:
        return f"is a program for {_FOREIGN[machine]}, not for a Raspberry Pi"
    if machine == _ARM64 and bits == 32:
        return "is a 64-bit program, and the kernel is a 32-bit one"
    loader = _loader(head) if machine in (_ARM, _ARM64) else b""
    return _needs(files, loader, bits, steps) if loader else ""


def _needs(files: Ext4, name: bytes, bits: int | None, steps: int) -> str:
    """Why the program or loader ``name`` cannot be started, which another one needs."""
    if not steps:
        return "leads from one script to the next, more than a kernel follows"
    path = name.decode(errors="replace")
    found = files.lookup(path) if path else None
    if found is None or not found.is_file or not found.size_bytes:
        return f"needs {path or 'a program that is not named'}, which is missing or empty"
    fault = _fault(files, found, bits, steps - 1)
    return f"needs {path}, which {fault}" if fault else ""


def _loader(head: bytes) -> bytes:
    """The loader that an ELF program names; empty where it needs none, or none can be read."""
    wide = head[4:5] == b"\2"
    if len(head) < 64:
        return b""
    start = struct.unpack_from("<Q" if wide else "<I", head, 32 if wide else 28)[0]
    size, count = struct.unpack_from("<HH", head, 54 if wide else 42)
    for number in range(min(count, _MOST_HEADERS)):
        at = start + number * size
        if at + 56 > len(head):
            return b""
        if struct.unpack_from("<I", head, at)[0] == _INTERPRETER:
            place, length = (
                struct.unpack_from("<8xQ16xQ", head, at) if wide
                else struct.unpack_from("<4xI8xI", head, at)
            )  # fmt: skip
            return bytes(head[place : place + min(length, 256)].split(b"\0")[0])
    return b""

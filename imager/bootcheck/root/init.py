"""The first program: what the kernel or the initramfs starts on the root filesystem.

In: an ext4 and the words of the command line. Out: the program's path, or why none can start. The
names are those of the kernel's init/main.c; a program is told by its first bytes, and the loader
that it names must be there too.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class FirstProgram:
    """``fault`` says why none can start, ``missing`` which file of those that lead to it is not
    there; both are empty where it can."""

    fault: str = ""
    missing: str = ""


def first_program(files: Ext4, named: str | None) -> FirstProgram:
    """What would be started; ``named`` is the value of init=, beside which nothing is tried.
    Raises OverBudget."""
    tried = [_judged(files, path) for path in ((named,) if named else _INITS)]
    good = next((one for one in tried if not one.fault), None)
    there = next((one for one in tried if not one.missing), None)
    return good or there or tried[0]


def _judged(files: Ext4, name: str) -> FirstProgram:
    try:
        path = files.resolve(name)
        inode = files.lookup(path)
        leads = name if path == name else f"{name} leads to {path}, which"
        if inode is None:
            what = f"{leads} is missing" if path != name else f"there is no {name}"
            return FirstProgram(what, missing=path)
        fault = _fault(files, inode)
    except OverBudget:
        raise
    except (ValueError, struct.error) as error:
        return FirstProgram(f"{name} cannot be read: {error}")
    return FirstProgram(f"{leads} {fault}" if fault else "")


def _fault(files: Ext4, inode: Inode) -> str:
    if not inode.is_file:
        return "is no file"
    if not inode.size_bytes:
        return "is empty"
    if not inode.mode & 0o111:
        return "may not be executed"
    head = next(iter(files.content_in_pieces(inode)), b"")[:MiB]
    if head.startswith(b"#!"):
        words = head[2:256].split(b"\n")[0].split()
        return _needs(files, words[0] if words else b"")
    if not head.startswith(b"\x7fELF"):
        return "is no program"
    machine = int.from_bytes(head[18:20], "little")
    if machine in _FOREIGN:
        return f"is a program for {_FOREIGN[machine]}, not for a Raspberry Pi"
    loader = _loader(head) if machine in (_ARM, _ARM64) else b""
    return _needs(files, loader) if loader else ""


def _needs(files: Ext4, name: bytes) -> str:
    path = name.decode(errors="replace")
    found = files.lookup(path) if path.startswith("/") else None
    if found is None or not found.is_file or not found.size_bytes:
        return f"needs {path or 'a program that is not named'}, which is missing or empty"
    return ""


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

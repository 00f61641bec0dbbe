"""A flattened device tree, as far as the boot check must understand it.

In: the bytes of a .dtb. Out: whether it is whole, and which boards it says it is for. Pure. The
format is that of the Devicetree Specification, chapter 5.
"""

from __future__ import annotations

import struct

from imager.disk.budget import Budget

_MAGIC = 0xD00DFEED
_COMPATIBLE = b"compatible\0"
_MAX_COMPATIBLE = 4096
_BEGIN, _END, _PROPERTY, _NOP, _FINISH = 1, 2, 3, 4, 9


class FdtError(ValueError):
    """The bytes are no whole device tree; the message says why."""


def root_compatible(data: bytes, budget: Budget | None = None) -> tuple[str, ...]:
    """The strings of the root node's ``compatible``, most specific first.

    Walks the whole tree, so a tree that is cut off or scrambled raises FdtError, and one that
    costs more than ``budget`` OverBudget.
    """
    if len(data) < 40:
        raise FdtError(f"it has {len(data)} bytes, less than a device tree's header")
    magic, total, struct_at, strings_at, _, version, _, _, strings_size, struct_size = (
        struct.unpack_from(">10I", data)
    )
    if magic != _MAGIC:
        raise FdtError(f"it begins with {magic:08x}, not with d00dfeed")
    if total > len(data):
        raise FdtError(f"it is {len(data)} bytes long and says it should be {total}")
    if version < 17:
        raise FdtError(f"it is of version {version}, older than 17")
    if struct_at + struct_size > total or strings_at + strings_size > total:
        raise FdtError("its parts lie outside of it")
    (budget or Budget()).step(total >> 3)
    strings = data[strings_at : strings_at + strings_size]
    return _walk(data[struct_at : struct_at + struct_size], strings)


def _walk(blocks: bytes, strings: bytes) -> tuple[str, ...]:
    compatible: tuple[str, ...] = ()
    at = depth = 0
    while at + 4 <= len(blocks):
        (token,) = struct.unpack_from(">I", blocks, at)
        at += 4
        if token == _BEGIN:
            end = blocks.find(b"\0", at)
            if end < 0:
                break
            at = _aligned(end + 1)
            depth += 1
        elif token == _END:
            depth -= 1
        elif token == _PROPERTY and at + 8 <= len(blocks):
            size, name_at = struct.unpack_from(">II", blocks, at)
            value = blocks[at + 8 : at + 8 + size]
            if len(value) != size or name_at >= len(strings):
                break
            if depth == 1 and strings.startswith(_COMPATIBLE, name_at):
                text = value[:_MAX_COMPATIBLE].rstrip(b"\0").decode("ascii", errors="replace")
                compatible = tuple(text.split("\0"))
            at = _aligned(at + 8 + size)
        elif token == _FINISH and depth == 0:
            return compatible
        elif token != _NOP:
            break
    raise FdtError(f"its structure breaks off at byte {at} of {len(blocks)}")


def _aligned(offset: int) -> int:
    return offset + 3 & ~3

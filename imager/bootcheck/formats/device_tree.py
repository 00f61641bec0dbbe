"""A flattened device tree, as far as the boot check must understand it.

In: the bytes of a .dtb or .dtbo. Out: whether it is whole, which boards it says it is for, and what
an overlay map says of each overlay. Pure. The format is that of the Devicetree Specification,
chapter 5; what is refused is what dtc refuses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imager.disk.budget import Budget, OverBudget

_MAGIC = 0xD00DFEED
_HEADER_BYTES = 40
_MAX_COMPATIBLE = 4096
_MAX_MAPPED = 10_000
_LONGEST_NAME = 256
"""In bytes; the Devicetree Specification (0.4, 2.2.4.1) allows 31. What is longer is cut."""
_BEGIN, _END, _PROPERTY, _NOP, _FINISH = 1, 2, 3, 4, 9
_VERSION = 17


class FdtError(ValueError):
    """The bytes are no whole device tree; the message says why."""


@dataclass(frozen=True, slots=True)
class _Property:
    """A property of a node: ``depth`` is 1 for the root, ``node`` its name."""

    depth: int
    node: str
    name: bytes
    value: bytes

    @property
    def strings(self) -> tuple[str, ...]:
        text = self.value[:_MAX_COMPATIBLE].rstrip(b"\0").decode("ascii", errors="replace")
        return tuple(text.split("\0"))


def root_compatible(data: bytes, budget: Budget | None = None) -> tuple[str, ...]:
    """The strings of the root node's ``compatible``, most specific first.

    Walks the whole tree, so a tree that is cut off or scrambled raises FdtError, and one that
    costs more than ``budget`` OverBudget.
    """
    compatible: tuple[str, ...] = ()
    for found in _properties(data, budget):
        if found.depth == 1 and found.name == b"compatible":
            compatible = found.strings
    return compatible


def overlay_map(data: bytes, budget: Budget | None = None) -> Mapping[str, Mapping[str, str]]:
    """What overlays/overlay_map.dtb says: for each overlay its ``renamed``, ``deprecated``, or a
    platform such as ``bcm2711`` with the overlay's name there. Raises as ``root_compatible``, and
    OverBudget for more names than any has."""
    nodes: dict[str, dict[str, str]] = {}
    mapped = (found for found in _properties(data, budget) if found.depth == 2)
    for count, found in enumerate(mapped):
        if count >= _MAX_MAPPED:
            raise OverBudget(f"it maps more than {_MAX_MAPPED} names")
        name = found.name.decode("ascii", errors="replace")
        nodes.setdefault(found.node, {})[name] = found.strings[0]
    return nodes


def _properties(data: bytes, budget: Budget | None) -> Iterator[_Property]:
    """Every property of the tree in its order; raises FdtError where it is not whole."""
    if len(data) < _HEADER_BYTES:
        raise FdtError(f"it has {len(data)} bytes, less than a device tree's header")
    magic, total, struct_at, strings_at, reserved_at, version, oldest, _, strings_size, size = (
        struct.unpack_from(">10I", data)
    )
    if magic != _MAGIC:
        raise FdtError(f"it begins with {magic:08x}, not with d00dfeed")
    if total > len(data):
        raise FdtError(f"it is {len(data)} bytes long and says it should be {total}")
    if version < _VERSION:
        raise FdtError(f"it is of version {version}, older than {_VERSION}")
    if oldest > _VERSION:
        raise FdtError(f"it is of version {version}, for programs that know version {oldest}")
    if struct_at + size > total or strings_at + strings_size > total:
        raise FdtError("its parts lie outside of it")
    (budget or Budget()).step(total >> 3)
    _check_reservations(data[:total], reserved_at)
    strings = data[strings_at : strings_at + strings_size]
    yield from _walk(data[struct_at : struct_at + size], strings)


def _check_reservations(data: bytes, at: int) -> None:
    """The block of reserved memory is pairs of an address and a size, which is 0 at the end."""
    while at + 16 <= len(data):
        if data.startswith(bytes(8), at + 8):
            return
        at += 16
    raise FdtError("its list of reserved memory does not end")


def _walk(blocks: bytes, strings: bytes) -> Iterator[_Property]:
    nodes: list[str] = []
    last_end = strings.rfind(b"\0")
    at, roots = 0, 0
    while at + 4 <= len(blocks):
        (token,) = struct.unpack_from(">I", blocks, at)
        at += 4
        if token == _BEGIN:
            end = blocks.find(b"\0", at)
            if end < 0:
                break
            roots += not nodes
            if roots > 1:
                raise FdtError(f"a second root node begins at byte {at - 4} of its structure")
            nodes.append(blocks[at:end].decode("ascii", errors="replace"))
            at = _aligned(end + 1)
        elif token == _END and nodes:
            nodes.pop()
        elif token == _PROPERTY and nodes and at + 8 <= len(blocks):
            size, name_at = struct.unpack_from(">II", blocks, at)
            value = blocks[at + 8 : at + 8 + size]
            if len(value) != size or name_at > last_end:
                break
            # Thousands of properties may name the same megabyte.
            name = strings[name_at : name_at + _LONGEST_NAME].partition(b"\0")[0]
            yield _Property(len(nodes), nodes[-1], name, value)
            at = _aligned(at + 8 + size)
        elif token == _FINISH and not nodes and roots:
            return
        elif token != _NOP:
            break
    raise FdtError(f"its structure breaks off at byte {at} of {len(blocks)}")


def _aligned(offset: int) -> int:
    return offset + 3 & ~3

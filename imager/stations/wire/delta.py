"""A node's delta as bytes: what makes a golden image this node's, with its private keys.

In: a Delta, on the head. Out: bytes, to be handed to the one station that makes the card; there
they become a Delta again. On both sides they are in memory only. Whoever sent the bytes proves
nothing by them: the stamp among them, signed with the rack's key, does.

Format: zlib of ``PICDELTA``, the number of pieces (8 bytes, little-endian), for each piece its
offset and length (8 bytes each), then the pieces' bytes one after the other.
"""

from __future__ import annotations

import struct
import zlib

from imager.base.units import MiB
from imager.disk.mbr import MAX_DISK_BYTES
from imager.node.image import Delta

MAGIC = b"PICDELTA"
MOST_BYTES = 64 * MiB
"""Of the unpacked delta; a node's is some hundred KiB."""
_MOST_PIECES = 100_000
"""A node's has some hundred."""
_COUNT = struct.Struct("<Q")
_PIECE = struct.Struct("<QQ")


class DeltaFault(ValueError):
    """The bytes are no delta; the message says why and has none of them."""


def pack_delta(delta: Delta) -> bytes:
    """The bytes of ``delta``."""
    pieces = delta.pieces
    table = b"".join(_PIECE.pack(offset, len(data)) for offset, data in pieces)
    body = b"".join(data for _, data in pieces)
    return zlib.compress(MAGIC + _COUNT.pack(len(pieces)) + table + body)


def unpack_delta(packed: bytes) -> Delta:
    """The delta in ``packed``; raises DeltaFault, having unpacked no more than ``MOST_BYTES``."""
    data = _inflated(packed)
    start = len(MAGIC) + _COUNT.size
    if len(data) < start or not data.startswith(MAGIC):
        raise DeltaFault("it does not begin as a delta does")
    (count,) = _COUNT.unpack_from(data, len(MAGIC))
    if count > _MOST_PIECES:
        raise DeltaFault(f"it has more than {_MOST_PIECES} pieces")
    position = start + count * _PIECE.size
    if position > len(data):
        raise DeltaFault(f"it ends before its {count} pieces")
    pieces = []
    for offset, length in _PIECE.iter_unpack(data[start:position]):
        if length > len(data) - position or offset + length > MAX_DISK_BYTES:
            raise DeltaFault(f"a piece of {length} bytes at byte {offset} cannot be")
        pieces.append((offset, data[position : position + length]))
        position += length
    if position != len(data):
        raise DeltaFault(f"{len(data) - position} bytes follow its last piece")
    try:
        return Delta(pieces)
    except ValueError as error:
        raise DeltaFault(str(error)) from None


def _inflated(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, MOST_BYTES)
    except zlib.error:
        raise DeltaFault("it cannot be unpacked") from None
    if not unpacker.eof or unpacker.unused_data:
        raise DeltaFault(f"it is cut short, or larger than {MOST_BYTES} bytes")
    return data

"""A reader that may be asked for more than there is.

In: a way to read a disk, and its size. Out: the same, with zeros behind the end. A disk that was
copied only in part, or a table that points beyond it, is then looked at like any other.
"""

from __future__ import annotations

from imager.disk.manifest import Reader


def padded(read: Reader, size_bytes: int) -> Reader:
    """As ``read``, of a disk of ``size_bytes``, with zeros for what lies behind its end."""

    def reading(offset: int, length: int) -> bytes:
        inside = max(0, min(length, size_bytes - offset))
        data = read(offset, inside) if inside else b""
        return data + bytes(length - len(data))

    return reading

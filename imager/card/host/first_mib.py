"""A card's first MiB, by which it is known again: partition table, stamp, or whatever is there.

In: a disk. Out: its first MiB as it is on the medium, and a digest to compare it with later. No
two cards of ours have the same one, and no writing of a card leaves it as it was.
"""

from __future__ import annotations

import hashlib

from imager.base.errors import CardIOError
from imager.card.medium.reopen import FreshRead, fresh_read, reader_of
from imager.disk.layout import FIRST_MIB


def first_mib(fresh: FreshRead) -> bytes:
    """The first MiB, or all of something smaller; raises CardIOError."""
    return reader_of(fresh.raw)(0, min(FIRST_MIB.length, fresh.raw.size_bytes))


def first_mib_at(node: str, size_bytes: int, block_bytes: int) -> bytes | None:
    """The first MiB of the disk ``node``; None where there is no medium, or it cannot be read by
    this user or at all."""
    if not size_bytes:
        return None
    try:
        with fresh_read(node, node, size_bytes, block_bytes) as fresh:
            return first_mib(fresh)
    except (CardIOError, OSError):
        return None


def digest_of(first: bytes) -> str:
    """What tells one first MiB from another."""
    return hashlib.sha256(first).hexdigest()

"""An ext4 filesystem that remembers what it was asked.

In: what ``Ext4`` takes. Out: an Ext4 that finds a path once and reads a small file once. It is for
an image that is copied a thousand times, each time with the same questions.
"""

from __future__ import annotations

from functools import lru_cache, partial

from imager.disk.ext4.filesystem import MAX_FILE_BYTES, Ext4, Inode
from imager.disk.ext4.volume import Volume

_PATHS = 4096
"""Some MB of memory, however many paths a stranger asks for."""
_FILES, _SMALL_BYTES = 256, 1 << 14


class RememberedExt4(Ext4):
    """Its disk must not change. Threads may share it."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self._looked_up = lru_cache(_PATHS)(partial(Ext4.lookup, self))
        self._resolved = lru_cache(_PATHS)(partial(Ext4.resolve, self))
        self._contents = lru_cache(_FILES)(partial(Ext4.content, self))

    def lookup(self, path: str, *, follow: bool = True) -> Inode | None:
        """As ``Ext4.lookup``."""
        return self._looked_up(path, follow=follow)

    def resolve(self, path: str) -> str:
        """As ``Ext4.resolve``."""
        return self._resolved(path)

    def content(self, inode: Inode, *, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
        """As ``Ext4.content``."""
        if inode.size_bytes > _SMALL_BYTES:
            return super().content(inode, limit_bytes=limit_bytes)
        return self._contents(inode, limit_bytes=limit_bytes)

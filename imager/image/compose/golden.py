"""The golden image: one disk image per release, from which the cards of all nodes are made.

In: nothing; only ``compose`` makes a GoldenImage. Out: its facts, and its file to be read. The file
is sparse, lies in the cache under the hash of all that it was made of, and is never written again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imager.base.durable import host_storage
from imager.base.errors import HostStorage
from imager.disk.layout import Layout
from imager.disk.manifest import Manifest
from imager.image.compose.file_digests import FileDigests


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """A composed, checked disk image.

    ``models`` are the boards (``pi2``) whose boot files it was checked to hold;
    ``manifest`` covers every byte that must be written to a card (not the holes); ``boot_files``
    maps each path on the boot partition (``overlays/x.dtbo``, no leading slash) to its SHA-256 in
    hex; ``files`` has the digest of every file of the root partition. ``mtime_ns`` is when the
    image file was finished; None where that was not recorded.
    """

    path: Path
    key: str
    release_name: str
    release_sha256: str
    models: tuple[str, ...]
    layout: Layout
    manifest: Manifest
    boot_files: Mapping[str, str]
    files: FileDigests = field(default_factory=FileDigests)
    mtime_ns: int | None = None

    @contextmanager
    def open(self) -> Iterator[int]:
        """A file descriptor of the image, open until the block ends.

        Raises HostStorage when the file cannot be read, or when it was changed since it was
        finished, before the block or during it. Cards are compared with what is read here: if
        the image changes, a wrong card looks right.
        """
        with host_storage(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = self._state(descriptor)
            if self.mtime_ns not in (None, before[1]):
                raise self._altered()
            yield descriptor
            if self._state(descriptor) != before:
                raise self._altered()
        finally:
            os.close(descriptor)

    @staticmethod
    def _state(descriptor: int) -> tuple[int, int]:
        status = os.fstat(descriptor)
        return status.st_size, status.st_mtime_ns

    def _altered(self) -> HostStorage:
        return HostStorage(
            f"{self.path}: the golden image was altered while it was in use",
            hint="run the same command again: the image is then composed anew",
        )

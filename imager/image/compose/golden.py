"""The golden image: one raw disk image per release, shared read-only by every node.

A GoldenImage is made by ``compose`` alone; its file is sparse, lies in the cache under the hash
of everything that went into it, and is never written again.
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
    ``manifest`` covers every byte a card must be given (not the holes); ``boot_files`` maps each
    path on the boot partition (``overlays/x.dtbo``, no leading slash) to its SHA-256 in hex;
    ``files`` has the digest of every file of the root partition. ``mtime_ns`` is when the file was
    finished; None for one that nobody noted.
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
        """A descriptor of the file for as long as the block lasts.

        Raises HostStorage when the file cannot be read, or is not, before and after, the file
        that was finished: a card is compared with what is read here, and a golden file that
        somebody alters meanwhile would make a wrong card look right.
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

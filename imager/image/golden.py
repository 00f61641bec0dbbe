"""The golden image: one raw disk image per release, shared read-only by every node.

A GoldenImage is made by ``compose`` alone; its file is sparse, lies in the cache under the hash
of everything that went into it, and is never written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imager.image.file_digests import FileDigests
from imager.image.layout import Layout
from imager.image.manifest import Manifest


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """A composed, checked disk image.

    ``models`` are the boards (``pi2``) whose boot files it was checked to hold;
    ``manifest`` covers every byte a card must be given (not the holes); ``boot_files`` maps each
    path on the boot partition (``overlays/x.dtbo``, no leading slash) to its SHA-256 in hex;
    ``files`` has the digest of every file of the root partition.
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

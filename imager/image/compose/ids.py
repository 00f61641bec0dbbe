"""The ids of a golden image: the same release always gets the same ones.

In: the SHA-256 of a release. Out: disk id, volume id and UUIDs of its golden image. The image of
each node has its own instead.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilesystemIds:
    """The numbers by which a disk and its filesystems are told from others."""

    disk_id: int
    volume_id: int
    root_uuid: uuid.UUID
    hash_seed: uuid.UUID


def golden_identity(release_sha256: str) -> FilesystemIds:
    """The ids of the golden image of a release."""

    def derived(purpose: str) -> bytes:
        return hashlib.sha256(f"picloud golden {purpose} {release_sha256}".encode()).digest()

    return FilesystemIds(
        # To the kernel and to mtools zero means that there is no id.
        disk_id=int.from_bytes(derived("disk")[:4]) or 1,
        volume_id=int.from_bytes(derived("volume")[:4]) or 1,
        root_uuid=uuid.UUID(bytes=derived("root")[:16], version=4),
        hash_seed=uuid.UUID(bytes=derived("hash seed")[:16], version=4),
    )

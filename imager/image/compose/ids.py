"""Numbers a golden image needs and nobody chooses: the same release gives the same ones.

In: the SHA-256 of a release. Out: disk id, volume id and UUIDs of its golden image, which every
node replaces by its own.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilesystemIds:
    """What tells one filesystem from another."""

    disk_id: int
    volume_id: int
    root_uuid: uuid.UUID
    hash_seed: uuid.UUID


def golden_identity(release_sha256: str) -> FilesystemIds:
    """The identity of the golden image of a release."""

    def derived(purpose: str) -> bytes:
        return hashlib.sha256(f"picloud golden {purpose} {release_sha256}".encode()).digest()

    return FilesystemIds(
        # Zero means "no id" to the kernel and to mtools alike.
        disk_id=int.from_bytes(derived("disk")[:4]) or 1,
        volume_id=int.from_bytes(derived("volume")[:4]) or 1,
        root_uuid=uuid.UUID(bytes=derived("root")[:16], version=4),
        hash_seed=uuid.UUID(bytes=derived("hash seed")[:16], version=4),
    )

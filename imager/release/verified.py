"""The type that stands for proof: a release whose signature and bytes were checked.

Only ``imager.release`` makes one, after the OpenPGP check, from the content-addressed archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A signed root-filesystem tarball in the archive.

    ``name`` is the built-in name or the tarball's stem, ``models`` the boards it boots (``pi2``…),
    ``sha256`` the hex digest of the tarball, which also names its folder in the archive,
    ``fingerprint`` the OpenPGP primary key that signed it (40 hex digits, upper case).
    """

    name: str
    models: tuple[str, ...]
    sha256: str
    tarball: Path
    size_bytes: int
    fingerprint: str
    source_url: str
    fetched_at: str

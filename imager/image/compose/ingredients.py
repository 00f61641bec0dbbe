"""What a golden image is made of.

In: values that are proven. Out: one object with all of them, which an image keeps, so that it can
be made again, here or on another computer.
"""

from __future__ import annotations

from dataclasses import dataclass

from imager.base.units import MiB
from imager.packages.verified import PackageSet
from imager.release.verified import VerifiedRelease, VerifiedSalt

_UNPACKED_PER_PACKED = 3
"""A root filesystem is about three times as large as its gzip file. Used only to say early that a
disk is too full."""
METADATA_BYTES = 128 * MiB
"""What the two filesystems take for themselves, at most."""


@dataclass(frozen=True, slots=True)
class Ingredients:
    """A release, the Salt and the packages that are put into it."""

    release: VerifiedRelease
    salt: VerifiedSalt | None
    packages: PackageSet | None

    @property
    def room_bytes(self) -> int:
        """About how much room composing takes: all files beside the image that they go into."""
        salt = self.salt.source.size_bytes if self.salt else 0
        packages = self.packages.install if self.packages else ()
        packed = self.release.size_bytes + salt + sum(each.size_bytes for each in packages)
        return 2 * _UNPACKED_PER_PACKED * packed + METADATA_BYTES

"""What a package says of itself is found near its beginning, or not at all."""

from __future__ import annotations

import lzma
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from imager.base.errors import NotAuthentic
from imager.base.units import MiB
from imager.packages.metadata import UNREADABLE, read_pkginfo
from imager.packages.plan import offer_of
from imager.packages.verified import VerifiedPacman


def test_an_archived_package_that_is_none_any_more_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x-1-1-any.pkg.tar.xz"
    path.write_bytes(b"\xfd7zXZ\0 and then nothing that is xz")
    package = VerifiedPacman("x", "1-1", "any", path.name, "0" * 64, 1, "F" * 40, path, path)
    with pytest.raises(NotAuthentic, match="was altered since it was archived: "):
        offer_of(package)


def test_a_description_behind_much_else_is_not_looked_for() -> None:
    """Ten kilobytes of xz with a window of a gigabyte would fill a gigabyte of memory."""
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        big = tarfile.TarInfo("usr/big")
        big.size = 65 * MiB
        archive.addfile(big, BytesIO(bytes(big.size)))
        about = tarfile.TarInfo(".PKGINFO")
        about.size = 4
        archive.addfile(about, BytesIO(b"a=b\n"))
    with pytest.raises(UNREADABLE, match="unpacks to more than 64 MiB"):
        read_pkginfo(BytesIO(lzma.compress(stream.getvalue(), preset=0)))

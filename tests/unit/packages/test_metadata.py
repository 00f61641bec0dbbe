"""What a package says of itself is found near its beginning, or not at all."""

from __future__ import annotations

import lzma
import tarfile
from io import BytesIO

import pytest

from imager.base.units import MiB
from imager.packages.metadata import UNREADABLE, read_pkginfo


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

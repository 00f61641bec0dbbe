"""What a package says of itself is found near its beginning, or not at all."""

from __future__ import annotations

import lzma
import random
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from imager.base.errors import NotAuthentic
from imager.base.units import MiB
from imager.packages.metadata import read_pkginfo
from imager.packages.plan import offer_of
from imager.packages.verified import VerifiedPacman
from imager.release.tarball import UNREADABLE, Unpacked


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


STREAMS = [random.Random(n).randbytes(200_000 + n) for n in range(3)]
CONTENT = b"".join(STREAMS)


def in_xz(padding: int = 0) -> BytesIO:
    return BytesIO(b"".join(lzma.compress(part) + bytes(padding) for part in STREAMS))


@pytest.mark.parametrize("padding", [0, 4, 200_000])
def test_all_streams_of_xz_are_one_content(padding: int) -> None:
    assert Unpacked(in_xz(padding)).read(MiB) == CONTENT


def test_a_place_in_xz_is_found_before_and_behind() -> None:
    """As tarfile does: on, and back by a byte, which may be where what was read ahead begins."""
    unpacked = Unpacked(in_xz())
    for place in [*range(1, 600_000, 16_383), 600_002]:
        for near in (place, place - 1):
            assert unpacked.seek(near) == near
        assert unpacked.read(2) == CONTENT[place - 1 : place + 1]


@pytest.mark.parametrize("left", [600_000, 400_000, 300_000, 20, 7])
def test_xz_that_ends_early_or_goes_on_as_something_else(left: int) -> None:
    packed = in_xz().getvalue()
    with pytest.raises(UNREADABLE):
        Unpacked(BytesIO(packed[:left])).read(MiB)
    with pytest.raises(UNREADABLE):
        Unpacked(BytesIO(packed + b"more")).read(MiB)

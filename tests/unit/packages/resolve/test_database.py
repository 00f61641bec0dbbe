"""A database of a stranger costs little, whatever is in it, and is no authority."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from io import BytesIO

import pytest

from imager.base.units import MiB
from imager.packages.resolve.database import LARGEST_UNPACKED, Database, PackageOffer, own_database

RUNC = PackageOffer(
    "runc", "1:1.2-1", "armv7h", "runc-1:1.2-1-armv7h.pkg.tar.xz", "ab" * 32, 7,
    ("glibc>=2.40",), ("oci=1",), ("crun",), ("runc-old",),
)  # fmt: skip


def described(text: str) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        about = tarfile.TarInfo("x-1-1/desc")
        about.size = len(text.encode())
        archive.addfile(about, BytesIO(text.encode()))
    return file.getvalue()


def test_what_is_written_is_what_is_read() -> None:
    made = own_database("own", [RUNC])
    assert made.names == {"runc"}
    assert made.offer("runc") == RUNC
    assert made.offer("crun") is None
    assert dict(made.providers) == {"oci": ("runc",)}
    odd = described(RUNC.description().replace("%PROVIDES%", " %PROVIDES%"))
    assert not Database("core", "http://m", odd).providers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("runc-1:1.2-1-armv7h.pkg.tar.xz", "../../etc/passwd"),
        ("runc-1:1.2-1-armv7h.pkg.tar.xz", "x\n/y.pkg.tar.xz"),
        ("%VERSION%\n1:1.2-1", "%VERSION%\n../1-1"),
        ("ab" * 32, "zz" * 32),
        ("%CSIZE%\n7", "%CSIZE%\n-7"),
        ("%CSIZE%\n7", "%CSIZE%\n" + "9" * 5000),
        ("%ARCH%\narmv7h", "%ARCH%"),
    ],
)
def test_what_could_not_be_fetched_is_not_offered(old: str, new: str) -> None:
    database = Database("core", "http://m", described(RUNC.description().replace(old, new)))
    with pytest.raises(ValueError, match=r"its \w+ is|tells no"):
        database.offer("runc")


def test_a_database_without_end_is_refused_early() -> None:
    with pytest.raises(ValueError, match="unpacks to more than"):
        Database("core", "http://m", gzip.compress(bytes(LARGEST_UNPACKED + MiB), 1))
    with pytest.raises(ValueError, match="cannot be read"):
        Database("core", "http://m", b"<html>sign in</html>".ljust(2048))
    with pytest.raises(ValueError, match="cannot be read"):
        Database("core", "http://m", b"<html>".ljust(124) + b"8" * 12 + bytes(512))
    with pytest.raises(ValueError, match="too short"):
        Database("core", "http://m", b"<html>sign in</html>")
    assert not own_database("empty", []).names


def test_a_window_of_xz_that_no_computer_has_room_for_is_refused() -> None:
    """The header of a few bytes claims one of 4 GiB."""
    own = own_database("own", [RUNC])
    assert Database("core", "http://m", lzma.compress(own.packed, preset=9)).offer("runc")
    with pytest.raises(ValueError, match="Memory usage limit exceeded"):
        Database("core", "http://m", with_window(lzma.compress(own.packed), 40))


def with_window(packed: bytes, size: int) -> bytes:
    """``packed`` with another size of its window in the header of its first block: LZMA2 is filter
    0x21 with one byte of properties (xz-file-format.txt, 3.1 and 5.3.1)."""
    changed = bytearray(packed)
    length = (changed[12] + 1) * 4
    at = changed.index(b"\x21\x01", 12) + 2
    assert at < 12 + length
    changed[at] = size
    checked = changed[12 : 12 + length - 4]
    changed[12 + length - 4 : 12 + length] = zlib.crc32(checked).to_bytes(4, "little")
    return bytes(changed)

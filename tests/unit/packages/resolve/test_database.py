"""A database of a stranger costs little, whatever is in it, and is no authority."""

from __future__ import annotations

import gzip
import tarfile
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

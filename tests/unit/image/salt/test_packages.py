"""What pacman packages say of themselves, and why first boot could not install them."""

from __future__ import annotations

import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imager.base.errors import ConfigurationError
from imager.image.salt.packages import described, faults_of
from imager.image.unpack import tar_stream
from imager.image.unpack.members import EntryKind
from imager.packages.metadata import PacmanPackage, parse_description, parse_pkginfo
from tests.support.pacman import description, package

GLIBC = PacmanPackage("glibc", "2.40-1", "armv7h", provides=("ld-linux-armhf.so",))
PSUTIL = PacmanPackage("python-psutil", "6.1-1", "armv7h", depends=("glibc", "python"))
PYTHON = PacmanPackage("python", "3.13.1-1", "armv7h", depends=("glibc", "ld-linux-armhf.so"))


def test_what_a_package_says_and_brings(tmp_path: Path) -> None:
    path = package(
        tmp_path,
        "python",
        "3.13.1-1",
        {"usr/bin/python3": "->python3.13", "usr/lib/python3.13/os.py": "#\n", ".MTREE": "x"},
        arch="armv7h",
        depend=["glibc>=2.40", "libcrypto.so=3-32", "expat"],
        provides=["python3", "libpython3.13.so=1.0-32"],
    )
    said, files = described(path.read_bytes(), path)
    assert said == PacmanPackage(
        "python",
        "3.13.1-1",
        "armv7h",
        ("glibc", "libcrypto.so", "expat"),
        ("python3", "libpython3.13.so"),
    )
    assert set(files) == {"usr/bin/python3", "usr/lib/python3.13/os.py"}
    assert (files["usr/bin/python3"].kind, files["usr/bin/python3"].target) == (
        EntryKind.SYMLINK,
        "python3.13",
    )


def test_what_the_database_says_of_an_installed_one() -> None:
    told = description("glibc", "2.40-1", "armv7h", ("ld-linux-armhf.so=3-32",))
    assert parse_description(told) == GLIBC


def test_a_sound_bundle_has_no_fault() -> None:
    assert list(faults_of([PSUTIL, PYTHON], [GLIBC], "alarm")) == []
    assert list(faults_of([PSUTIL, PYTHON, GLIBC], [GLIBC], "alarm")) == [], "there already"


@pytest.mark.parametrize(
    ("packages", "fault"),
    [
        ([PSUTIL], "python-psutil 6.1-1 needs python, in neither alarm nor the folder"),
        (
            [PYTHON, PacmanPackage("glibc", "2.41-1", "armv7h")],
            "glibc 2.41-1 would replace 2.40-1, which alarm has",
        ),
        (
            [PacmanPackage("expat", "2.6-1", "aarch64")],
            "expat 2.6-1 is for aarch64, and alarm is armv7h",
        ),
        (
            [PYTHON, PacmanPackage("python", "3.12.1-1", "armv7h")],
            "python 3.13.1-1 and 3.12.1-1 are both there: which one is meant?",
        ),
    ],
)
def test_why_it_could_not_be_installed(packages: list[PacmanPackage], fault: str) -> None:
    assert list(faults_of(packages, [GLIBC], "alarm")) == [fault]


def test_a_package_of_any_architecture_goes_everywhere() -> None:
    anywhere = PacmanPackage("python-tornado", "6.5-1", "any")
    assert list(faults_of([anywhere], [GLIBC], "alarm")) == []
    assert len(list(faults_of([PYTHON], [], "alarm"))) == 1, "a release without a database"


@pytest.mark.parametrize("keep", [0, 10, 60, -20])
def test_what_is_no_whole_package(tmp_path: Path, keep: int) -> None:
    path = package(tmp_path, "python", "3.13.1-1", {"usr/lib/x": "text\n" * 999})
    with pytest.raises(ConfigurationError, match="is not a whole pacman package"):
        described(path.read_bytes()[:keep], path)


@pytest.mark.parametrize(
    ("info", "why"),
    [({"pkgname": ""}, "does not tell its pkgname"), ({"pkgver": ""}, "tell its pkgver")],
)
def test_one_that_does_not_say_what_it_is(tmp_path: Path, info: dict[str, str], why: str) -> None:
    path = package(tmp_path, "python", "1-1", {}, **info)
    with pytest.raises(ConfigurationError, match=why):
        described(path.read_bytes(), path)


def test_one_that_climbs_out(tmp_path: Path) -> None:
    path = package(tmp_path, "python", "1-1", {"../etc/passwd": "x"})
    with pytest.raises(ConfigurationError, match=r"climbs out with \.\."):
        described(path.read_bytes(), path)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_pkginfo, parse_description):
        with suppress(ValueError):
            assert parse(text).name


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(ConfigurationError):
        described(data, Path("a.pkg.tar.xz"))


def test_a_package_of_more_members_than_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two million empty ones pack to 10 MB, and took minutes and gigabytes."""
    monkeypatch.setattr(tar_stream, "MOST_MEMBERS", 1000)
    about = tarfile.TarInfo(".PKGINFO")
    about.size = 512
    text = b"pkgname = x\npkgver = 1-1\narch = any\n".ljust(512, b"\n")
    member = tarfile.TarInfo("x").tobuf()
    with pytest.raises(ConfigurationError, match="it has more than 1000 members"):
        described(about.tobuf() + text + member * 1001, Path("a.pkg.tar"))

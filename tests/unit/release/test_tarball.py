"""What is signed by a release's key need not be a release."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from imager.base.errors import MalformedRelease
from imager.release.tarball import require_release
from tests.support.pacman import package
from tests.support.release import ReleaseTree, build_release, everyday_tree

URL = "http://mirror/os/x.tar.gz"


def told(tarball: Path) -> str:
    with pytest.raises(MalformedRelease) as caught:
        require_release(tarball, URL)
    assert caught.value.what.startswith(f"{URL} is signed by the right key and is no release: ")
    return caught.value.what.partition("no release: ")[2]


def made(tmp_path: Path, *names: str, kind: bytes = tarfile.DIRTYPE) -> Path:
    tree = ReleaseTree()
    for name in names:
        tree.add(name, kind, mode=0o755)
    return build_release(tmp_path, tree).tarball


def test_a_release_is_one(tmp_path: Path) -> None:
    require_release(build_release(tmp_path, everyday_tree()).tarball, URL)
    require_release(made(tmp_path, "boot/x", "etc/y", kind=tarfile.REGTYPE), URL)


def test_it_is_read_no_further_than_needed(tmp_path: Path) -> None:
    tarball = made(tmp_path, ".", "./boot", "./etc")
    tarball.write_bytes(tarball.read_bytes() + b"no gzip")
    require_release(tarball, URL)


def test_a_package_is_called_by_its_name(tmp_path: Path) -> None:
    """Also one that brings the folders of a release."""
    files = {"etc/": "", "boot/": ""}
    assert told(package(tmp_path, "docker", "1:1.5.0-1", files)) == (
        "it is the package docker 1:1.5.0-1"
    )


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("./etc", "./usr"), "it has no boot"),
        (("./boot",), "it has no etc"),
        (("./etcetera", "./usr/etc", "./usr/boot"), "it has no boot and no etc"),
    ],
)
def test_what_it_lacks_is_named(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    assert told(made(tmp_path, *names)) == why


@pytest.mark.parametrize(
    "content", [b"", b"\x28\xb5\x2f\xfd zstd", b"text", gzip.compress(b"x", mtime=0)]
)
def test_what_is_no_archive_is_said_to_be_unreadable(tmp_path: Path, content: bytes) -> None:
    tarball = tmp_path / "release.tar.gz"
    tarball.write_bytes(content)
    assert told(tarball).startswith(("it cannot be read", "it has no boot and no etc"))


def test_many_members_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imager.release.tarball._MOST_MEMBERS", 10)
    assert told(made(tmp_path, *["./usr/x"] * 20)) == "it cannot be read: it has too many files"

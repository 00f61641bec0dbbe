"""The rack's own pacman packages: which files of a folder they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError, HostStorage
from imager.packages.rack_folder import bundle_in, package_bytes

NAMES = (
    "python-3.13.1-1-armv7h.pkg.tar.xz",
    "python-3.13.1-1-armv7h.pkg.tar.xz.sig",
    "salt-deps-1-1-any.pkg.tar",
)


def test_packages_and_their_signatures_by_their_names(tmp_path: Path) -> None:
    for name in (*reversed(NAMES), "README", "python.pkg.tar.xz", "core.db.tar.gz"):
        (tmp_path / name).write_text(name)
    found = bundle_in(tmp_path)
    assert tuple(file.name for file in found) == NAMES
    for file in found:
        assert file.size_bytes == len(file.name)
        assert file.sha256 == hashlib.sha256(file.name.encode()).hexdigest()


@pytest.mark.parametrize("names", [(), ("README",), (NAMES[1],)])
def test_a_folder_without_one_is_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ConfigurationError, match="holds no pacman package") as told:
        bundle_in(tmp_path)
    assert "pkg.tar.xz" in told.value.hint


def test_one_that_is_packed_in_a_way_python_does_not_read(tmp_path: Path) -> None:
    (tmp_path / "python-3.13.1-1-armv7h.pkg.tar.zst").touch()
    with pytest.raises(ConfigurationError, match=r"packed with zst,") as told:
        bundle_in(tmp_path)
    assert "zstd -d" in told.value.hint


@pytest.mark.parametrize("name", NAMES[:2], ids=["package", "signature"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    """A signature goes on the card as it is: a link to one would bring any file of root's."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / NAMES[2]).touch()
    (tmp_path / "secret").write_text("secret")
    if kind == "link":
        (folder / name).symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(ConfigurationError, match=f"{name} is no regular file") as told:
        bundle_in(folder)
    assert "copy" in told.value.hint


def test_a_file_with_a_second_name_is_taken(tmp_path: Path) -> None:
    """It may be a hard link into pacman's own cache."""
    (tmp_path / "elsewhere").write_bytes(b"package")
    (tmp_path / NAMES[0]).hardlink_to(tmp_path / "elsewhere")
    assert package_bytes(tmp_path / NAMES[0]) == b"package"


def test_one_that_is_gone_is_the_disks_fault(tmp_path: Path) -> None:
    with pytest.raises(HostStorage, match=NAMES[0]):
        package_bytes(tmp_path / NAMES[0])


def test_one_of_terabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / NAMES[0]).open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(ConfigurationError, match="larger than 256 MiB"):
        bundle_in(tmp_path)


def test_a_file_that_became_a_link_is_refused(tmp_path: Path) -> None:
    """What is put on the card is read a second time, when the image is composed."""
    path = tmp_path / NAMES[0]
    path.symlink_to("/etc/shadow")
    with pytest.raises(ConfigurationError, match="no regular file"):
        package_bytes(path)

"""The kernel itself mounts the composed root filesystem and sees what the archive packed."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose.compose import compose
from tests.support.loop import missing_abilities
from tests.support.release import ReleaseTree, build_release, everyday_tree

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(missing_abilities()), reason=missing_abilities() or "able"),
]


def tree() -> ReleaseTree:
    made = everyday_tree()
    acl = {"SCHILY.acl.access": "user::rw-,user:1000:r--,group::r--,mask::r--,other::---"}
    made.file("./etc/acl", "x", 0o640, pax_headers=acl)
    return made


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """(tarball, where its root filesystem is mounted)."""
    folder = tmp_path_factory.mktemp("mounted")
    release = build_release(folder, tree())
    golden = compose(release, Cache(folder / "cache"), Quiet())
    where = folder / "mnt"
    where.mkdir()
    options = f"loop,ro,noload,offset={golden.layout.root.offset}"
    done = subprocess.run(
        ["mount", "-t", "ext4", "-o", options, golden.path, where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    try:
        yield release.tarball, where
    finally:
        subprocess.run(["umount", where], check=True)


def test_every_member_is_as_packed(mounted: tuple[Path, Path]) -> None:
    tarball, where = mounted
    seen = 0
    with tarfile.open(tarball, errors="surrogateescape") as archive:
        for info in archive:
            path = where / info.name
            if info.name.startswith("./boot/") or info.islnk():
                continue
            status = path.lstat()
            assert status.st_mode & 0o7777 == info.mode, info.name
            assert (status.st_uid, status.st_gid) == (info.uid, info.gid), info.name
            assert status.st_mtime_ns // 10**9 == int(info.mtime // 1), info.name
            if info.isreg():
                file = archive.extractfile(info)
                assert file is not None
                assert path.read_bytes() == file.read(), info.name
            elif info.issym():
                assert os.readlink(path) == info.linkname
            elif info.isblk() or info.ischr():
                assert os.major(status.st_rdev) == info.devmajor
                assert os.minor(status.st_rdev) == info.devminor
            seen += 1
    assert seen > 700


def test_attributes_links_and_access_lists_are_understood(mounted: tuple[Path, Path]) -> None:
    _, where = mounted
    ping = where / "usr/bin/ping"
    assert os.getxattr(ping, "security.capability").hex().startswith("0100000200040000")
    assert os.getxattr(ping, "user.note") == b"a\0b\xff"
    assert ping.samefile(where / "usr/bin/ping4")
    assert ping.stat().st_nlink == 2
    assert os.getxattr(where / "etc/acl", "system.posix_acl_access").hex() == (
        "02000000" "01000600ffffffff" "02000400e8030000"
        "04000400ffffffff" "10000400ffffffff" "20000000ffffffff"
    )  # fmt: skip
    assert (where / "etc/exact-time").stat().st_mtime_ns % 10**9 == 123_456_789

"""What real pacman does with the same packages, and what it says of an image that has them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from imager.base.cache import Cache
from imager.base.run import find_tool
from imager.image.compose.compose import compose
from imager.image.compose.golden import GoldenImage
from imager.release.verified import VerifiedRelease
from tests.support.alpm import LaidOut, laid_out, unpacked_release
from tests.support.makepkg import built, set_of
from tests.support.pacman import with_pacman
from tests.support.proving import Heard
from tests.support.release import build_release, plain_tree, release_of
from tests.support.svc import LIBSVC, MARK, SVC_1, SVC_2

pytestmark = pytest.mark.skipif(
    not all(find_tool(tool) for tool in ("pacman", "makepkg", "fakeroot")),
    reason="pacman, makepkg or fakeroot is not installed",
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> VerifiedRelease:
    """A release that pacman itself installed svc 1.0 in, and somebody changed two files of."""
    folder = tmp_path_factory.mktemp("release")
    plain = build_release(folder, with_pacman(plain_tree()))
    node = unpacked_release(folder / "root", plain.tarball)
    node.pacman("-U", built(LIBSVC), built(SVC_1))
    for name in ("left", "old"):
        (node.root / f"etc/svc/{name}").write_text("changed\n")
    tarball = folder / "stand-in-rpi-armv7-latest.tar.gz"
    node.run("tar", "-C", node.root, "--numeric-owner", "-cf", folder / "tar", ".")
    tarball.write_bytes(gzip.compress((folder / "tar").read_bytes(), 1, mtime=0))
    return release_of(tarball)


@pytest.fixture(scope="module")
def golden(release: VerifiedRelease, tmp_path_factory: pytest.TempPathFactory) -> GoldenImage:
    packages = set_of(built(SVC_2))
    cache = Cache(tmp_path_factory.mktemp("cache"))
    return compose(release, cache, Heard(), packages=packages)


@pytest.fixture(scope="module")
def ours(golden: GoldenImage, tmp_path_factory: pytest.TempPathFactory) -> LaidOut:
    return laid_out(tmp_path_factory.mktemp("ours") / "root", golden)


def without_dates(laid: LaidOut) -> dict[str, Any]:
    """The files of a root, without what only a clock, a trust database or the boot partition
    decides."""
    files = {
        path: facts
        for path, facts in laid.files().items()
        if not path.startswith(("boot/", "lost+found", "dev/", "var/lib/picloud", "etc/systemd"))
    }
    for path, facts in files.items():
        if re.match(r"var/lib/pacman/local/[^/]+/desc\Z", path):
            text = (laid.root / path).read_text()
            text = re.sub(r"(%INSTALLDATE%\n)\d+", r"\1", text)
            text = re.sub(r"(%VALIDATION%\n)\w+", r"\1", text)
            facts[4:] = [text]
        elif re.match(r"var/lib/pacman/local/[^/]+/files\Z", path):
            facts[5] = 0
    return files


def test_an_upgrade_leaves_what_pacman_leaves(
    release: VerifiedRelease, ours: LaidOut, tmp_path: Path
) -> None:
    theirs = unpacked_release(tmp_path / "theirs", release.tarball)
    said = theirs.pacman("-U", built(SVC_2))
    assert "installed as" in said or (theirs.root / "etc/svc/left.pacnew").exists()
    wanted, found = without_dates(theirs), without_dates(ours)
    assert found.keys() == wanted.keys()
    assert {path: facts for path, facts in found.items() if wanted[path] != facts} == {}
    assert wanted["etc/svc/old.pacsave"]


def test_new_packages_are_what_pacman_installs(tmp_path: Path) -> None:
    plain = build_release(tmp_path, with_pacman(plain_tree()))
    theirs = unpacked_release(tmp_path / "theirs", plain.tarball)
    theirs.pacman("-U", "--asdeps", built(LIBSVC))
    theirs.pacman("-U", built(SVC_2))
    packages = set_of(built(LIBSVC), built(SVC_2), explicit=("svc",))
    golden = compose(plain, Cache(tmp_path / "cache"), Heard(), packages=packages)
    ours = laid_out(tmp_path / "ours", golden)
    assert without_dates(ours) == without_dates(theirs)
    assert ours.pacman("-Qd") == "libsvc 1.0-1\n"
    assert ours.pacman("-Qe") == "glibc 2.40-1\nsvc 2.0-1\n"


def test_pacman_finds_nothing_wrong_with_the_image(ours: LaidOut) -> None:
    assert ours.pacman("-Q") == "glibc 2.40-1\nlibsvc 1.0-1\nsvc 2.0-1\n"
    assert ours.pacman("-Dk") == "No database errors have been found!\n"
    checked = ours.pacman("-Qkk", "libsvc", "svc")
    assert "libsvc: 4 total files, 0 altered files\n" in checked
    assert re.search(r"^svc: \d+ total files, 0 altered files$", checked, re.MULTILINE)
    assert "etc/svc/left (Modification" in checked, "as it should of a file somebody changed"


def test_nothing_of_the_packages_was_run_here(golden: GoldenImage, ours: LaidOut) -> None:
    assert not Path(MARK).exists()
    queue = (ours.root / "var/lib/picloud/packages/queue").read_text()
    assert tuple(queue.splitlines()) == golden.first_boot
    assert queue.splitlines() == [
        "users",
        "scriptlet pre_upgrade svc 2.0-1 1.0-1",
        "scriptlet post_upgrade svc 2.0-1 1.0-1",
        "folders",
        "hook svc-mark.hook",
    ]
    targets = ours.root / "var/lib/picloud/packages/hooks/svc-mark.hook.targets"
    assert targets.read_text().split() == [
        "usr/lib/svc/",
        "usr/lib/svc/data",
        "usr/lib/svc/second-name",
    ]


def test_the_database_has_the_date_of_the_image(golden: GoldenImage, ours: LaidOut) -> None:
    dates = {
        re.search(r"%INSTALLDATE%\n(\d+)\n", path.read_text())[1]  # type: ignore[index]
        for path in ours.root.glob("var/lib/pacman/local/svc-*/desc")
    }
    newest = max(path.lstat().st_mtime for path in ours.root.glob("etc/svc/*"))
    assert dates == {str(int(newest))}

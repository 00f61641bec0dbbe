"""Golden images with packages: which are one, and that their bytes depend on nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from imager.base.cache import Cache
from imager.base.errors import NotAuthentic
from imager.base.progress import Quiet
from imager.image.compose.cache import golden_key
from imager.image.compose.compose import cached_golden, compose
from imager.packages.verified import PackageSet
from tests.support.makepkg import set_of
from tests.support.pacman import package, python_package, with_pacman
from tests.support.proving import Heard
from tests.support.pypi import verified_salt
from tests.support.release import build_release, plain_tree
from tests.support.workplace import ROOT

_ORDINARY_USER = 65534


def test_the_key_is_of_what_makes_the_image(tmp_path: Path) -> None:
    release = build_release(tmp_path, with_pacman(plain_tree()))
    one = package(tmp_path, "one", "1-1", {"usr/one": "1"})
    other = package(tmp_path / "other", "one", "1-1", {"usr/one": "2"})
    packages = set_of(one)
    assert golden_key(release, None, PackageSet(())) == golden_key(release)
    keys = [
        golden_key(release, None, each)
        for each in (
            PackageSet(()),
            packages,
            set_of(other),
            set_of(one, explicit=("one",)),
            replace(packages, remove=("two",)),
            replace(packages, enable=("a.service",)),
        )
    ]
    assert len(set(keys)) == len(keys)
    unrelated = set_of(one, explicit=("of-the-release",))
    assert golden_key(release, None, unrelated) == golden_key(release, None, packages)


def test_packages_bring_what_salt_needs_and_what_they_leave_is_told(tmp_path: Path) -> None:
    release = build_release(tmp_path, with_pacman(plain_tree()))
    library = package(tmp_path / "packages", "lib", "1-1", {"usr/lib/lib.so.1": ""})
    packages = set_of(python_package(tmp_path / "packages"), library)
    cache, salt = Cache(tmp_path / "cache"), verified_salt(tmp_path)
    for _ in ("composed", "from the cache"):
        told = Heard()
        golden = compose(release, cache, told, salt, packages)
        assert "left by packages for first boot: libraries" in told.notes
    assert cached_golden(release, cache, salt, packages) == replace(golden, again=None)
    assert cached_golden(release, cache, salt) is None


def test_a_package_that_was_altered_in_the_archive_is_put_aside(tmp_path: Path) -> None:
    """So that what the error says to run can fetch it anew."""
    release, cache = build_release(tmp_path, with_pacman(plain_tree())), Cache(tmp_path / "cache")
    packages = set_of(package(tmp_path, "one", "1-1", {"usr/one": "1"}))
    (one,) = packages.install
    place = cache.packages / one.sha256
    place.mkdir(parents=True)
    data = one.path.read_bytes()
    kept = replace(one, path=place / one.file_name)
    kept.path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(NotAuthentic, match="altered since it was archived") as no:
        compose(release, cache, Quiet(), packages=replace(packages, install=(kept,)))
    assert no.value.hint.startswith("run picloud-image lock to get it anew")
    assert [each.name for each in cache.packages.iterdir()] == [f"{one.sha256}.damaged-1"]


PROGRAM = """
import sys
from pathlib import Path
from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.image.compose.compose import compose
from tests.support.makepkg import set_of
from tests.support.release import release_of
folder = Path(sys.argv[1])
packages = set_of(*sorted(folder.glob("*.pkg.tar.xz")))
release, cache = release_of(next(folder.glob("*.gz"))), Cache(folder / "cache")
golden = compose(release, cache, Quiet(), None, packages)
print(golden.path)
"""


@pytest.mark.long(minutes=1)
@pytest.mark.skipif(os.geteuid() != 0, reason="compares root with somebody else")
def test_everybody_composes_the_same_bytes(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        release = build_release(folder, with_pacman(plain_tree()))
        script = {".INSTALL": "post_install() { :; }\n", "etc/one": "1", "usr/lib/one.so": "1"}
        package(folder, "one", "1-1", script, backup="etc/one")
        packages = set_of(*folder.glob("*.pkg.tar.xz"))
        ours = compose(release, Cache(tmp_path / "cache"), Quiet(), None, packages)
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, _ORDINARY_USER, _ORDINARY_USER)
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={_ORDINARY_USER}", f"--regid={_ORDINARY_USER}"),
                *("--clear-groups", sys.executable, "-c", PROGRAM, name),
            ],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": name, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).read_bytes() == ours.path.read_bytes()

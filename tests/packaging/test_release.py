"""scripts/release, and what it makes: installed into clean Debians, which are thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cleandebian import in_a_clean_debian, release_into, released, tour_with
from tests.support.standin import StandIn

TRY = """\
set -eu
cd /root
picloud-image --version
picloud-image docs exit-codes
picloud-image rack flash --help
python3 - <<'READ'
import importlib, pkgutil, sys
sys.path.insert(0, "/usr/lib/picloud-image")
import imager.cli
for found in pkgutil.walk_packages(imager.cli.__path__, "imager.cli."):
    importlib.import_module(found.name)
print("every command was read, from", imager.cli.__path__[0])
READ
dpkg --verify picloud-image
apt-get -q remove -y picloud-image
[ ! -e /usr/lib/picloud-image ]
echo 'all of it went well'
"""
"""What is run inside, as root, when the tour is over."""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a Debian as root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("mmdebstrap", "dh", "lintian", "makepkg"))),
        reason="needs mmdebstrap, debhelper, lintian and makepkg",
    ),
]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param("12", marks=pytest.mark.long(minutes=5)),
        pytest.param("13", marks=pytest.mark.long(minutes=9)),
    ],
)
def test_the_tour_with_the_package_in_a_clean_debian(
    number: str, stand_in: StandIn, tmp_path: Path
) -> None:
    """README is typed word for word, from apt install to the end of the five minutes."""
    (tmp_path / "try").write_text(TRY)
    done = in_a_clean_debian(
        number,
        [
            tour_with(released(f"*+deb{number}_*.deb")),
            f"copy-in {tmp_path / 'try'} /tmp",
            'chroot "$1" sh /tmp/try',
        ],
        tmp_path,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    for words in ("all of it went well", "every command was read, from /usr/lib/picloud-image"):
        assert words in said


@pytest.mark.long(minutes=7)
def test_the_tour_with_pipx(stand_in: StandIn, tmp_path: Path) -> None:
    """The wheel, installed by the distribution's pipx as docs/install.md says."""
    done = in_a_clean_debian("12", [tour_with(released("*.whl"))], tmp_path, "sudo,pipx")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.long(minutes=3)
def test_pacman_takes_the_package(tmp_path: Path) -> None:
    package = released("*.pkg.tar.zst")
    (tmp_path / "db").mkdir()
    pacman = ["pacman", "--root", str(tmp_path), "--dbpath", str(tmp_path / "db"), "--noconfirm"]
    pacman += ["--config", "/dev/null", "--hookdir", str(tmp_path), "--noscriptlet"]
    subprocess.run([*pacman, "-Udd", package], check=True, capture_output=True)
    folder = tmp_path / "usr/lib/picloud-image"
    assert (folder / "imager/data/docs/salt.md").exists()
    assert (folder / "ClusterShell/NodeSet.py").exists()
    assert os.access(tmp_path / "usr/bin/picloud-image", os.X_OK)
    subprocess.run([*pacman, "-Rdd", "picloud-image"], check=True, capture_output=True)
    assert not folder.exists()


@pytest.mark.long(minutes=7)
def test_the_same_commit_makes_the_same_bytes(tmp_path: Path) -> None:
    again = release_into(tmp_path / "again")
    assert (again / "SHA256SUMS").read_text() == released("SHA256SUMS").read_text()

"""scripts/release, and what it makes: installed into clean Debians, which are thrown away."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build/release-of-tests"
SUITES = {"12": "bookworm", "13": "trixie"}
TRY = """\
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get -q install -y --no-install-recommends /tmp/*.deb
mkdir /root/try
cd /root/try
picloud-image --version
picloud-image docs exit-codes
picloud-image rack init --rack rack --nodes 'pi[0-3]' --master pi0
picloud-image rack show --rack rack
picloud-image write x.img --size 4GiB --node pi1 --rack rack --cache cache --dry-run
picloud-image devices
list() { picloud-image $1 --help | sed -n '/^Commands:/,/^$/s/^  \\([a-z][a-z-]*\\)  .*/\\1/p'; }
for command in $(list '') $(list rack | sed 's/^/rack~/'); do
    echo "help of $command"
    picloud-image $(echo "$command" | tr '~' ' ') --help >/dev/null
done
dpkg --verify picloud-image
apt-get -q remove -y picloud-image
[ ! -e /usr/lib/picloud-image ]
echo 'all of it went well'
"""
"""What is run inside, as root."""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a Debian as root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("mmdebstrap", "dh", "lintian", "makepkg"))),
        reason="needs mmdebstrap, debhelper, lintian and makepkg",
    ),
]


def release_into(folder: Path) -> Path:
    done = subprocess.run([ROOT / "scripts/release", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def released() -> Path:
    """The release of what was committed last, made by whoever asks first."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for older in KEPT.glob("[0-9a-f]*"):
            if older.name != commit:
                shutil.rmtree(older)
        if not (KEPT / commit / "SHA256SUMS").exists():
            release_into(KEPT / commit)
    return KEPT / commit


def mirror() -> str:
    """Debian's archive as this computer's apt knows it, else the public name of it."""
    words = ["apt-get", "indextargets", "--format", "$(ORIGIN)/$(LABEL) $(REPO_URI)"]
    known = subprocess.run(
        [*words, "Created-By: Packages"], capture_output=True, text=True
    ).stdout.splitlines()
    found = (line.split()[1] for line in known if line.startswith("Debian/Debian "))
    return next(found, "http://deb.debian.org/debian")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param("12", marks=pytest.mark.long(minutes=3)),
        pytest.param("13", marks=pytest.mark.long(minutes=7)),
    ],
)
def test_the_package_works_in_a_clean_debian(number: str, tmp_path: Path) -> None:
    """mmdebstrap makes it, unmounts what it mounted in it, and keeps nothing of it."""
    (package,) = released().glob(f"*+deb{number}_*.deb")
    (tmp_path / "try").write_text(TRY)
    done = subprocess.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=null"),
            f"--customize-hook=copy-in {package} {tmp_path / 'try'} /tmp",
            '--customize-hook=chroot "$1" sh /tmp/try',
            *(SUITES[number], "/dev/null", mirror()),
        ],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    for words in ("all of it went well", "help of rack~flash", "Nothing was touched (--dry-run)."):
        assert words in said


@pytest.mark.long(minutes=3)
def test_pacman_takes_the_package(tmp_path: Path) -> None:
    (package,) = released().glob("*.pkg.tar.zst")
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
    assert (again / "SHA256SUMS").read_text() == (released() / "SHA256SUMS").read_text()

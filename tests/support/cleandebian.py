"""A Debian that has nothing yet, in a folder, and what was released last to be installed there.

    python -m tests.support.cleandebian

takes README's tour in a Debian 12 on this terminal: ``scripts/record-tour`` records that.
mmdebstrap makes it, unmounts what it mounted in it, and keeps nothing of it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build/release-of-tests"
SUITES = {"12": "bookworm", "13": "trixie"}


def release_into(folder: Path) -> Path:
    """Make a release there."""
    done = subprocess.run([ROOT / "scripts/release", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def released(pattern: str) -> Path:
    """The file so called of the release of what was committed last, made by whoever asks first."""
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
    (found,) = (KEPT / commit).glob(pattern)
    return found


def mirror() -> str:
    """Debian's archive as this computer's apt knows it, else the public name of it."""
    words = ["apt-get", "indextargets", "--format", "$(ORIGIN)/$(LABEL) $(REPO_URI)"]
    known = subprocess.run(
        [*words, "Created-By: Packages"], capture_output=True, text=True
    ).stdout.splitlines()
    found = (line.split()[1] for line in known if line.startswith("Debian/Debian "))
    return next(found, "http://deb.debian.org/debian")


def tour_with(package: Path, terminal: str = "") -> str:
    """The hook that installs ``package`` and takes README's tour."""
    return f'cd {ROOT} && {sys.executable} -m tests.support.tourguide "$1" {package} {terminal}'


def in_a_clean_debian(
    number: str, hooks: list[str], folder: Path, include: str = "sudo"
) -> subprocess.CompletedProcess[str]:
    """Make a Debian in ``folder``, run ``hooks`` with its place as ``$1``, and throw it away."""
    return subprocess.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=null"),
            # It need not outlast a power cut.
            *("--dpkgopt=force-unsafe-io", f"--include={include}"),
            *(f"--customize-hook={hook}" for hook in hooks),
            *(SUITES[number], "/dev/null", mirror()),
        ],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )


if __name__ == "__main__":
    stand_in = [ROOT / "scripts/stand-in", ROOT / "build/stand-in"]
    subprocess.run(stand_in, check=True, stderr=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        hook = tour_with(released("*+deb12_*.deb"), "/dev/tty")
        done = in_a_clean_debian("12", [hook], Path(folder))
    raise SystemExit(done.returncode and (done.stdout + done.stderr)[-6000:])

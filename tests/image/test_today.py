"""Today's stand-in and its repositories, as the real pacman of this computer sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.run import find_tool
from imager.image.compose.cache import load
from imager.image.salt.needs import NEEDS
from imager.release.verified import VerifiedRelease
from tests.support.alpm import laid_out
from tests.support.bootrack import boot_rack
from tests.support.standin import StandIn

pytestmark = [
    pytest.mark.image,
    pytest.mark.long(minutes=8),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to unpack what is root's"),
    pytest.mark.skipif(find_tool("pacman") is None, reason="pacman is not installed"),
]
RACK = '[rack]\nnodes = "pi7"\nmodel = "pi2"\n[salt]\nversion = "3008.3"\n'
SALTS_NEEDS = ["python", *(need.arch for need in NEEDS)]


@dataclass(frozen=True, slots=True)
class Pacman:
    """pacman, with a release unpacked in ``root`` and the repositories of ``today``."""

    today: StandIn
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def __call__(self, *words: str | Path) -> str:
        """What it says, on both its outputs; it must end with 0."""
        places: list[str | Path] = ["--root", self.root, "--dbpath", self.folder / "db"]
        places += [
            "--gpgdir",
            self.folder,
            "--cachedir",
            self.folder,
            "--logfile",
            self.folder / "log",
        ]
        done = subprocess.run(
            ["pacman", "--config", self.folder / "conf", *places, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def pacman(today: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Pacman:
    asked = Pacman(today, tmp_path_factory.mktemp("today"))
    asked.root.mkdir()
    subprocess.run(["tar", "-xzf", today.tarball, "-C", asked.root], check=True)
    shutil.copytree(asked.root / "var/lib/pacman", asked.folder / "db")
    servers = (f"[{it}]\nServer = file://{today.repositories}/{it}\n" for it in ("core", "extra"))
    (asked.folder / "conf").write_text("[options]\nArchitecture = armv7h\n" + "".join(servers))
    asked("-Sy")
    return asked


def test_its_database_and_its_files_agree(pacman: Pacman) -> None:
    assert "No database errors" in pacman("-Dk")
    said = pacman("-Qkk").splitlines()
    assert len(said) > 100
    assert [line for line in said if not line.endswith(" 0 altered files")] == []


def test_it_has_what_a_base_tarball_has_and_no_python(pacman: Pacman) -> None:
    assert {"glibc", "linux-rpi", "pacman", "systemd"} <= set(pacman("-Qq").split())
    assert not list(pacman.root.glob("usr/bin/python3*"))
    assert "alpm:x:969:" in (pacman.root / "etc/passwd").read_text()
    owned = pacman("-Qo", pacman.root / "boot/kernel7.img", pacman.root / "boot/start.elf").split()
    assert {"linux-rpi", "raspberrypi-bootloader"} <= set(owned)


def test_what_salt_needs_is_resolved_from_its_repositories(pacman: Pacman) -> None:
    said = pacman("-Sp", "--needed", "--print-format", "%r %n", *SALTS_NEEDS)
    found = {name: repository for repository, name in map(str.split, said.splitlines())}
    assert set(SALTS_NEEDS) <= set(found)
    assert (found["python"], found["zeromq"], found["python-pyzmq"]) == ("core", "core", "extra")
    assert not set(found) & set(pacman("-Qq").split()), "the release has these"


def test_each_package_is_signed_by_the_releases_key(today: StandIn, tmp_path: Path) -> None:
    keyring = tmp_path / "key.gpg"
    subprocess.run(["gpg", "--dearmor", "--output", keyring, today.signing_key], check=True)
    packages = sorted(today.repositories.glob("*/*.pkg.tar.xz"))
    assert len(packages) > len(SALTS_NEEDS)
    for package in packages:
        said = subprocess.run(
            ["gpgv", "--status-fd", "1", "--keyring", keyring, f"{package}.sig", package],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        ).stdout
        valid = next(line for line in said.splitlines() if b" VALIDSIG " in line)
        assert valid.split()[-1].decode() == today.fingerprint, package.name


def test_an_image_of_it_has_what_salt_needs_and_its_own_pacman_agrees(
    today: StandIn, tmp_path: Path
) -> None:
    rack = boot_rack(tmp_path, tmp_path / "cache", today, RACK)
    said = json.loads(rack.command("compose", "--offline", "--json").splitlines()[-1])
    about = (said["release"], ("pi2",), said["release_sha256"], today.tarball)
    release = VerifiedRelease(*about, 0, today.fingerprint, source_url="", fetched_at="")
    golden = load(release.sha256, Cache(tmp_path / "cache"), said["key"])
    assert golden is not None
    laid = laid_out(tmp_path / "root", golden)
    assert "No database errors" in laid.pacman("-Dk")
    assert set(SALTS_NEEDS) <= set(laid.pacman("-Qq").split())
    said_of_files = laid.pacman("-Qkk", ok=(0, 1)).splitlines()
    assert len(said_of_files) > 130
    boot = f"{laid.root}/boot"  # the other partition, which is not laid out
    altered = [line for line in said_of_files if line.startswith("warning: ") and boot not in line]
    assert altered == []

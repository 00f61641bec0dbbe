"""The distribution's package manager, the real one: its keyring, and Salt from packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from imager.base.run import find_tool
from tests.support.fakenode import FakeNode
from tests.support.pacman import package

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="pacman needs root"),
    pytest.mark.skipif(find_tool("pacman") is None, reason="pacman is not installed"),
]

KEYRING, SALT = "40-keyring", "50-salt"
UNIT = "usr/lib/systemd/system/salt-minion.service"


# --- the keyring


@pytest.fixture
def keyring_node() -> Iterator[FakeNode]:
    """pacman-key is a bash script that wants half of coreutils, as on a node."""
    with TemporaryDirectory(prefix="fb") as folder:  # an agent's socket bears no long path
        node = FakeNode(Path(folder))
        node.write("etc/pacman.conf", "[options]\n")
        outer = "PATH=/usr/bin:/bin:/usr/sbin:/sbin"
        node.fake_tool("pacman-key", f'{outer} exec {find_tool("pacman-key")} "$@"\n')
        yield node


def trusted_keys(node: FakeNode) -> int:
    done = subprocess.run(
        ["gpg", "--homedir", node.root / "etc/pacman.d/gnupg", "--with-colons", "--list-keys"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sum(line.startswith("pub:f:") for line in done.stdout.splitlines())


def command_lines() -> Iterator[str]:
    """Of every process there is."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield process.read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue


@pytest.mark.long(minutes=1)
def test_a_keyring_is_made_once_and_one_cut_in_the_making_is_made_anew(
    keyring_node: FakeNode,
) -> None:
    node = keyring_node
    gnupg = node.root / "etc/pacman.d/gnupg"
    gnupg.mkdir(parents=True)
    # As a cut leaves it when pacman-key works in place: its keys without trust.
    (gnupg / "trustdb.gpg").write_bytes(b"")
    (gnupg / "pubring.gpg").write_bytes(b"")
    boot = node.boot()
    assert boot.status == 0, node.read("boot/picloud/firstboot.log")
    assert node.note(KEYRING) == "made, trusting: archlinux"
    assert trusted_keys(node) > 0
    assert not [path for path in gnupg.iterdir() if path.is_socket()]
    assert not gnupg.with_name("gnupg.new").exists()
    assert not [words for words in command_lines() if str(node.root) in words], "an agent is left"

    secret = sorted((gnupg / "private-keys-v1.d").iterdir())
    assert [b"Ed25519" in key.read_bytes() for key in secret] == [True], "RSA takes a Pi minutes"
    node.forget(KEYRING)
    assert node.boot().status == 0
    assert node.note(KEYRING) == "made already"
    assert sorted((gnupg / "private-keys-v1.d").iterdir()) == secret


def test_a_keyring_that_trusts_nobody_is_a_failure(keyring_node: FakeNode) -> None:
    keyring_node.fake_tool("pacman-key", 'mkdir -p "$2" && : >"$2/trustdb.gpg"\n')
    assert keyring_node.boot().status == 1
    assert keyring_node.note(KEYRING) == "pacman-key made a keyring that trusts nobody"
    assert not (keyring_node.root / "etc/pacman.d/gnupg").exists()


def test_a_release_without_pacman_says_so(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    assert node.boot().status == 0
    assert node.note(KEYRING) == "no pacman in this release"


# --- Salt from packages


def salt(folder: Path, **info: str) -> Path:
    return package(folder, "salt", "3008.3-1", {UNIT: "[Service]\n"}, **info)


def repository(folder: Path, *packages: Path) -> Path:
    database = folder / "rack.db.tar.gz"
    subprocess.run(["repo-add", "-q", database, *packages], check=True, capture_output=True)
    return folder


@pytest.fixture
def bare_node(tmp_path: Path) -> FakeNode:
    """A node whose release has pacman and no Salt; it has the package libzmq 4-1."""
    node = FakeNode(tmp_path / "pi7", salt=False)
    node.real_tool("pacman")
    node.remove_tool("gpg")
    (node.root / "var/lib/pacman").mkdir(parents=True)
    node.write("etc/pacman.conf", "[options]\nArchitecture = auto\nSigLevel = Never\n")
    old = package(tmp_path / "release", "libzmq", "4-1", {"usr/lib/libzmq.so": "old\n"})
    pacman(node, "-U", old)
    return node


def pacman(node: FakeNode, *words: str | Path) -> str:
    conf = node.root / "etc/pacman.conf"
    done = subprocess.run(
        ["pacman", "--root", node.root, "--config", conf, "--noconfirm", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def offer(node: FakeNode, folder: Path) -> None:
    with (node.root / "etc/pacman.conf").open("a") as conf:
        conf.write(f"[rack]\nSigLevel = Never\nServer = file://{folder}\n")


def test_the_cards_own_packages_come_before_any_repository(bare_node: FakeNode) -> None:
    bundle = bare_node.root / "usr/lib/picloud/packages"
    salt(bundle, depend="python-tornado")
    package(bundle, "python-tornado", "6.5-1", {"usr/lib/tornado.py": "\n"})
    boot = bare_node.boot()
    assert boot.status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from the card's own packages"
    assert bare_node.note("80-await-master") == "joined pi0"
    assert pacman(bare_node, "-Q").split() == (
        "libzmq 4-1 python-tornado 6.5-1 salt 3008.3-1".split()  # noqa: SIM905
    )


def test_packages_bring_what_a_salt_in_the_image_needs(bare_node: FakeNode) -> None:
    """A signature beside one is pacman's to read; the master, which waited, is started."""
    bare_node.write(UNIT, "[Service]\n")
    bare_node.write("enabled/salt-master.service", "")
    bundle = bare_node.root / "usr/lib/picloud/packages"
    python = package(bundle, "python", "3.13.1-1", {"usr/bin/python3.13": "\n"})
    python.with_name(f"{python.name}.sig").write_bytes(b"")
    boot = bare_node.boot()
    assert boot.status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from the card's own packages"
    assert "python 3.13.1-1" in pacman(bare_node, "-Q")
    assert "systemctl start --no-block salt-master.service" in boot.calls


def test_files_of_an_install_that_lost_its_power_are_not_in_the_way(bare_node: FakeNode) -> None:
    """Nor is an overlay's configuration, which stays as it is."""
    bundle = bare_node.root / "usr/lib/picloud/packages"
    conf = "etc/salt/minion"
    files = {UNIT: "[Service]\n", "usr/lib/salt.py": "whole\n", conf: "# the package's\n"}
    package(bundle, "salt", "3008.3-1", files, backup=conf)
    bare_node.write("usr/lib/salt.py", "ha")
    bare_node.write(conf, "id: pi7\n")
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.read("usr/lib/salt.py") == "whole\n"
    assert bare_node.read(conf) == "id: pi7\n"


def test_salt_comes_from_a_repository_and_nothing_else_changes(
    bare_node: FakeNode, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    offered = [
        salt(folder, depend="libzmq"),
        package(folder, "libzmq", "5-1", {"usr/lib/libzmq.so": "new\n"}),
    ]
    offer(bare_node, repository(folder, *offered))
    boot = bare_node.boot()
    assert boot.status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from a repository"
    assert pacman(bare_node, "-Q").splitlines() == ["libzmq 4-1", "salt 3008.3-1"]
    assert bare_node.read("usr/lib/libzmq.so") == "old\n"
    sync = bare_node.root / "var/lib/pacman/sync"
    assert not sync.exists() or not list(sync.iterdir()), "no later -S may mix old and new"


def test_a_salt_that_would_replace_a_package_is_refused(
    bare_node: FakeNode, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    offered = [
        salt(folder, depend="libzmq>=5"),
        package(folder, "libzmq", "5-1", {"usr/lib/libzmq.so": "new\n"}),
    ]
    offer(bare_node, repository(folder, *offered))
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT) == (
        "the repository's Salt would replace libzmq, and nothing is upgraded here"
    )
    assert "write the card again" in bare_node.hint(SALT)
    assert bare_node.read("usr/lib/libzmq.so") == "old\n"


def test_a_repository_out_of_reach_is_asked_again_later(
    bare_node: FakeNode, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    offer(bare_node, folder)
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT) == "the repositories in /etc/pacman.conf cannot be read"
    repository(folder, salt(folder))
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from a repository"


def test_a_repository_without_salt_is_no_salt(bare_node: FakeNode, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    offer(bare_node, repository(folder, package(folder, "other", "1-1", {"usr/other": "\n"})))
    assert bare_node.boot().status == 0
    assert bare_node.note(SALT).startswith("no-salt: Salt is neither in this release nor in")


def test_an_install_that_was_cut_off_is_done_again(bare_node: FakeNode) -> None:
    bundle = bare_node.root / "usr/lib/picloud/packages"
    salt(bundle)
    (bare_node.root / "var/lib/pacman/db.lck").write_text("")
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from the card's own packages"


def test_a_package_manager_that_runs_keeps_its_lock(bare_node: FakeNode) -> None:
    bundle = bare_node.root / "usr/lib/picloud/packages"
    salt(bundle)
    lock = bare_node.write("var/lib/pacman/db.lck", "")
    bare_node.write("proc/421/comm", "pacman\n")
    assert bare_node.boot().status == 1
    assert lock.exists()
    assert bare_node.note(SALT) == "pacman could not install Salt from the card's own packages"


def test_a_package_that_is_damaged_is_said(bare_node: FakeNode) -> None:
    bundle = bare_node.root / "usr/lib/picloud/packages"
    path = salt(bundle)
    path.write_bytes(path.read_bytes()[:100])
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT) == "pacman could not install Salt from the card's own packages"


def test_a_node_without_a_minion_gets_none(bare_node: FakeNode) -> None:
    bare_node.configure(MINION="no")
    shutil.rmtree(bare_node.root / "var/lib/pacman")
    assert bare_node.boot().status == 0
    assert bare_node.note(SALT) == "this node has no Salt minion"

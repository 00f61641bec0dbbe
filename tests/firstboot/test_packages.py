"""The distribution's package manager, the real one: its keyring, and Salt from packages."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from imager.base.run import find_tool
from tests.support.cutting import boot_and_gather, cards_in
from tests.support.fakenode import FakeNode
from tests.support.fusing import why_no_fuse
from tests.support.pacman import description, package
from tests.support.sampling import a_part_of

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
    assert bare_node.note("70-start-minion") == "not before Salt is on this node"
    repository(folder, salt(folder))
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "installed from a repository"
    assert bare_node.note("80-await-master") == "joined pi0"


@pytest.mark.parametrize("what", ["a sign-in page", "half of it", "nothing"])
def test_what_is_no_database_is_no_repository_without_salt(
    bare_node: FakeNode, tmp_path: Path, what: str
) -> None:
    """pacman takes either for a database of no packages, and ends well."""
    folder = tmp_path / "repository"
    offer(bare_node, repository(folder, salt(folder)))
    database = folder / "rack.db"
    whole = database.read_bytes()
    page = b"<html><body>Please sign in</body></html>\n"
    instead = {"a sign-in page": page, "half of it": whole[: len(whole) // 2], "nothing": b""}
    database.write_bytes(instead[what])
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT) == "the repositories in /etc/pacman.conf cannot be read"
    database.write_bytes(whole)
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note("80-await-master") == "joined pi0"


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


WAYS = {
    "card": "installed from the card's own packages",
    "repository": "installed from a repository",
}
"""Where Salt comes from -> the note."""
WHOLE = {UNIT: "[Service]\n", "usr/lib/salt.py": "whole\n"}
ENTRY = "$PICLOUD_ROOT/var/lib/pacman/local/salt-3008.3-1"
LEAVES = {
    "nothing of the entry": f'rm "{ENTRY}"/*; : >"$PICLOUD_ROOT/usr/lib/salt.py"\n',
    "half of the entry": f'rm "{ENTRY}/files"; : >"{ENTRY}/desc"\n',
    "files without their data": ': >"$PICLOUD_ROOT/usr/lib/salt.py"\n',
    "no entry": f'rm -r "{ENTRY}" "$PICLOUD_ROOT/usr/lib/salt.py"\n',
}
"""What a card can hold after an install that lost its power: what makes it so."""


def bring(node: FakeNode, way: str) -> None:
    """Salt and a package it needs, on the card or in a repository that the node reaches."""
    bundle = node.root / "usr/lib/picloud/packages"
    folder = bundle if way == "card" else node.root.with_name("repository")
    brought = [
        package(folder, "python-tornado", "6.5-1", {"usr/lib/tornado.py": "\n"}, depend="libzmq"),
        package(folder, "salt", "3008.3-1", WHOLE, depend="python-tornado"),
    ]
    if way == "repository":
        offer(node, repository(folder, *brought))


def pacman_ends(node: FakeNode, leaving: str, ending: str) -> None:
    """Let an install be pacman's own, then spoilt as ``leaving`` says, and end as ``ending``."""
    node.fake_tool(
        "pacman",
        f"""{find_tool("pacman")} "$@" || exit
case " $* " in *" --overwrite "*) {leaving}{ending} ;; esac
""",
    )


def the_salt_is_whole(node: FakeNode) -> None:
    assert {path: node.read(path) for path in WHOLE} == WHOLE
    assert pacman(node, "-Q").splitlines() == [
        *("libzmq 4-1", "python-tornado 6.5-1", "salt 3008.3-1"),
    ]
    assert "0 missing files" in pacman(node, "-Qk", "salt")


@pytest.mark.parametrize("leaving", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("way", WAYS)
def test_an_install_that_lost_its_power_is_done_again_whole(
    bare_node: FakeNode, way: str, leaving: str
) -> None:
    bring(bare_node, way)
    before = bare_node.root / "var/lib/pacman/local/libzmq-4-1/desc"
    age = before.stat().st_mtime_ns
    pacman_ends(bare_node, leaving, "kill -9 0")
    assert bare_node.boot().status == -signal.SIGKILL
    bare_node.real_tool("pacman")
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == WAYS[way]
    the_salt_is_whole(bare_node)
    assert before.stat().st_mtime_ns == age, "what was there before is left alone"
    assert not [name for name in bare_node.state if name.startswith(f"{SALT}.begun")]


@pytest.mark.parametrize("ending", ["exit 1", "kill -9 0"])
def test_a_package_that_came_and_had_not_its_name_yet_is_loaded_again(
    bare_node: FakeNode, ending: str
) -> None:
    """pacman goes on where it was in such a file, and fails at its end, each time anew."""
    bring(bare_node, "repository")
    loaded = bare_node.root / "var/cache/pacman/pkg"
    unnamed = f'for it in "{loaded}"/salt-*; do mv "$it" "$it.part"; done\n'
    folder_of_pacman_7 = loaded / "download-aB3dE9"
    leaving = f'{LEAVES["no entry"]}{unnamed}mkdir "{folder_of_pacman_7}"\n'
    pacman_ends(bare_node, leaving, ending)
    assert bare_node.boot().status != 0
    bare_node.real_tool("pacman")
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    the_salt_is_whole(bare_node)
    assert sorted(path.suffix for path in loaded.iterdir()) == [".xz", ".xz"]


@pytest.mark.long(minutes=1)
@pytest.mark.skipif(bool(why_no_fuse()), reason=why_no_fuse())
@pytest.mark.parametrize("way", WAYS)
def test_an_install_is_whole_wherever_the_power_fails(
    bare_node: FakeNode, way: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Between any two changes of any file, with and without the data that was not synced."""
    bring(bare_node, way)
    bare_node.configure(SWAP_BYTES="0")
    boot = boot_and_gather(bare_node, tmp_path / "states")
    assert boot.status == 0, boot.output
    the_salt_is_whole(bare_node)
    running = f"var/lib/picloud/firstboot/{SALT}.running"
    cards = [card for card in cards_in(tmp_path / "states") if (card / running).exists()]
    assert len(cards) > 50
    if not pytestconfig.getoption("--all"):
        cards = a_part_of(cards, 1 / 16)
    for card in cards:
        shutil.rmtree(bare_node.root)
        shutil.move(card, bare_node.root)
        # pacman throws away a package that it loaded and whose data was lost, and fails once.
        again = bare_node.boot()
        if again.status and way == "repository":
            again = bare_node.run()
        assert again.status == 0, f"{card.name}: {again.output}"
        the_salt_is_whole(bare_node)


@pytest.mark.parametrize("way", WAYS)
def test_what_pacman_could_not_finish_is_installed_again(bare_node: FakeNode, way: str) -> None:
    """As on a card that is full: pacman goes on and notes the package. What is installed by hand
    before the next try stays."""
    bring(bare_node, way)
    pacman_ends(bare_node, LEAVES["files without their data"], "exit 1")
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT).startswith("pacman could not install Salt from ")
    assert pacman(bare_node, "-Q").splitlines() == ["libzmq 4-1"]
    by_hand = package(bare_node.root.parent, "python-tornado", "6.5-1", {"usr/by-hand": "\n"})
    pacman(bare_node, "-U", by_hand)
    bare_node.real_tool("pacman")
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == WAYS[way]
    the_salt_is_whole(bare_node)
    assert (bare_node.root / "usr/by-hand").exists()


def test_a_repository_out_of_reach_after_a_cut_costs_nothing_installed_by_hand(
    bare_node: FakeNode,
) -> None:
    bring(bare_node, "repository")
    pacman_ends(bare_node, LEAVES["nothing of the entry"], "kill -9 0")
    bare_node.boot()
    bare_node.real_tool("pacman")
    away = bare_node.root.with_name("away")
    bare_node.root.with_name("repository").rename(away)
    assert bare_node.boot().status == 1, "the unit alone is no Salt"
    assert bare_node.note(SALT) == "the repositories in /etc/pacman.conf cannot be read"
    by_hand = package(away, "vim", "9-1", {"usr/bin/vim": "\n"})
    pacman(bare_node, "-U", by_hand)
    away.rename(bare_node.root.with_name("repository"))
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert pacman(bare_node, "-Q").split()[::2] == ["libzmq", "python-tornado", "salt", "vim"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_installed_between_a_cut_and_the_next_try_stays(
    bare_node: FakeNode, way: str
) -> None:
    """An upgrade by hand renames entries: what was there at the cut is not what stays."""
    bring(bare_node, way)
    pacman_ends(bare_node, LEAVES["files without their data"], "kill -9 0")
    bare_node.boot()
    bare_node.real_tool("pacman")
    newer = package(bare_node.root.parent, "libzmq", "5-1", {"usr/lib/libzmq.so": "new\n"})
    pacman(bare_node, "-U", newer)
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert pacman(bare_node, "-Q").splitlines() == [
        *("libzmq 5-1", "python-tornado 6.5-1", "salt 3008.3-1"),
    ]
    assert {path: bare_node.read(path) for path in WHOLE} == WHOLE


def test_a_salt_that_somebody_installed_after_a_failure_stays_theirs(bare_node: FakeNode) -> None:
    bring(bare_node, "repository")
    pacman_ends(bare_node, LEAVES["files without their data"], "exit 1")
    assert bare_node.boot().status == 1
    bare_node.real_tool("pacman")
    mine = {UNIT: "[Service]\n# mine\n"}
    pacman(bare_node, "-U", package(bare_node.root.parent, "salt", "3007.1-1", mine))
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == "on this node already"
    assert bare_node.read(UNIT) == mine[UNIT]
    assert "salt 3007.1-1" in pacman(bare_node, "-Q")


@pytest.mark.parametrize("version", ["3008.3-1", "3008.4-1"])
def test_a_salt_that_somebody_installed_after_a_cut_is_whole(
    bare_node: FakeNode, version: str
) -> None:
    """They waited until their pacman had a turn; one of the same version is installed again."""
    bring(bare_node, "repository")
    pacman_ends(bare_node, LEAVES["files without their data"], "kill -9 0")
    bare_node.boot()
    bare_node.real_tool("pacman")
    theirs = package(bare_node.root.parent, "salt", version, {UNIT: "[Service]\n# theirs\n"})
    pacman(bare_node, "-U", "--overwrite", "*", theirs)
    boot = bare_node.boot()
    assert boot.status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert f"salt {version}" in pacman(bare_node, "-Q")
    assert ("theirs" in bare_node.read(UNIT)) == (version != "3008.3-1")
    assert bare_node.note("80-await-master") == "joined pi0"


def test_what_an_install_adds_must_be_known_before_it(bare_node: FakeNode) -> None:
    bring(bare_node, "repository")
    listing = 'case " $* " in *" --print-format %n-%v "*) exit 137 ;; esac'
    bare_node.fake_tool("pacman", f'{listing}\nexec {find_tool("pacman")} "$@"\n')
    assert bare_node.boot().status == 1
    assert bare_node.note(SALT) == "pacman could not install Salt from a repository"
    assert pacman(bare_node, "-Q") == "libzmq 4-1\n"


def test_a_repository_names_nothing_outside_the_database(bare_node: FakeNode) -> None:
    """What an install adds is listed as the repository calls it, and undone by that list."""
    bring(bare_node, "repository")
    precious = bare_node.root / "var/lib/precious-1"
    precious.mkdir()
    bare_node.fake_tool(
        "pacman",
        f"""case " $* " in
*" --print-format %n-%v "*) printf '%s\\n' "" . .. ../../precious-1 "$PICLOUD_ROOT" ;;
*" --overwrite "*) exit 1 ;;
*) exec {find_tool("pacman")} "$@" ;;
esac
""",
    )
    assert bare_node.boot().status == 1
    assert precious.exists()
    assert pacman(bare_node, "-Q") == "libzmq 4-1\n"


def test_a_package_cut_while_it_was_replaced_is_installed(bare_node: FakeNode) -> None:
    """The card's own packages may be newer than the release's: of the old one an entry without
    its description is left."""
    bring(bare_node, "card")
    bundle = bare_node.root / "usr/lib/picloud/packages"
    package(bundle, "libzmq", "5-1", {"usr/lib/libzmq.so": "new\n"})
    old = "$PICLOUD_ROOT/var/lib/pacman/local/libzmq-4-1"
    new = "$PICLOUD_ROOT/var/lib/pacman/local/libzmq-5-1"
    pacman_ends(bare_node, f'rm -r "{new}"; mkdir "{old}"; ', "kill -9 0")
    bare_node.boot()
    bare_node.real_tool("pacman")
    assert bare_node.boot().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert pacman(bare_node, "-Q").split() == (
        "libzmq 5-1 python-tornado 6.5-1 salt 3008.3-1".split()  # noqa: SIM905
    )


def test_a_package_manager_that_runs_keeps_its_lock(bare_node: FakeNode) -> None:
    bundle = bare_node.root / "usr/lib/picloud/packages"
    salt(bundle)
    lock = bare_node.write("var/lib/pacman/db.lck", "")
    bare_node.write("proc/421/comm", "pacman\n")
    assert bare_node.boot().status == 1
    assert lock.exists()
    assert bare_node.note(SALT) == "pacman is at work on this node already"
    shutil.rmtree(bare_node.root / "proc/421")
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert bare_node.note(SALT) == WAYS["card"]


def test_what_a_package_manager_is_at_work_on_is_left_to_it(bare_node: FakeNode) -> None:
    """One that somebody started after this step had looked, as its lock says."""
    bring(bare_node, "card")
    theirs = "$PICLOUD_ROOT/var/lib/pacman/local/vim-9-1"
    words = 'mkdir -p "$PICLOUD_ROOT/proc/421" && echo pacman >"$PICLOUD_ROOT/proc/421/comm"\n'
    bare_node.fake_tool("pacman", f'{words}mkdir -p "{theirs}"\nexit 1\n')
    assert bare_node.boot().status == 1
    vim = bare_node.root / "var/lib/pacman/local/vim-9-1"
    assert vim.exists()
    (vim / "desc").write_text(description("vim", "9-1"))
    (vim / "files").write_text("")
    shutil.rmtree(bare_node.root / "proc/421")
    bare_node.real_tool("pacman")
    assert bare_node.run().status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert "vim 9-1" in pacman(bare_node, "-Q")


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


@pytest.mark.parametrize("master", [True, False])
def test_a_master_without_a_minion_gets_what_its_salt_needs(
    bare_node: FakeNode, master: bool
) -> None:
    bare_node.configure(MINION="no")
    bare_node.write(UNIT, "[Service]\n")
    bundle = bare_node.root / "usr/lib/picloud/packages"
    package(bundle, "python", "3.13.1-1", {"usr/bin/python3.13": "\n"})
    if master:
        bare_node.write("enabled/salt-master.service", "")
    boot = bare_node.boot()
    assert boot.status == 0, bare_node.read("boot/picloud/firstboot.log")
    assert ("python 3.13.1-1" in pacman(bare_node, "-Q")) == master
    assert ("systemctl start --no-block salt-master.service" in boot.calls) == master
    assert "systemctl start --no-block salt-minion.service" not in boot.calls

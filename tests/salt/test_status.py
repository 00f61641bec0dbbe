"""``rack status`` and ``lock promote`` ask a real master through a real sshd, each as its finished
card made it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imager.base.cache import Cache
from imager.base.progress import Quiet
from imager.base.run import find_tool
from imager.disk.ext4.filesystem import Ext4
from imager.disk.fat.volume import FatVolume
from imager.image.compose.compose import compose
from imager.node.image import NodeImage
from imager.packages.wish import PackageWish
from imager.rack.master.presence import load_presence
from imager.release.lock import PacmanPin, RackLock, SetPin
from tests.support.pacman import description
from tests.support.racks import rack_in
from tests.support.release import build_release
from tests.support.salt import Box, SaltPrograms
from tests.support.saltrack import RunningRack, running
from tests.support.sshd import Sshd, sshd_in
from tests.support.workplace import Said

pytestmark = [
    pytest.mark.salt,
    pytest.mark.long(minutes=3),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
]

ROOT = Path(__file__).resolve().parents[2]
JOIN_SECONDS = 300
OLD, NEW, CHECK = "1:1.6.2-1", "1:1.7.0-1", "sh /boot/check"


@dataclass
class Place:
    """A rack of four: pi0 to pi2 are switched on, and pi0's sshd lets the person in."""

    running: RunningRack
    folder: Path
    images: dict[str, NodeImage]
    sshd: Sshd

    def status(self, *words: str, rack: Path | None = None) -> Said:
        """``rack status`` run on a computer of the rack's network that is none of its nodes."""
        return self.ask("rack", "status", *words, rack=rack)

    def ask(self, *words: str, rack: Path | None = None) -> Said:
        """A command that asks the master, run on such a computer."""
        command = [*self.running.entering, sys.executable, "-m", "imager", *words]
        ssh = ["--rack", str(rack or self.folder / "rack")]
        if "--identity" not in words:
            ssh += ["--identity", str(self.folder / "me")]
        done = subprocess.run(
            [*command, *ssh],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)


@dataclass
class OnTrial:
    """A rack on whose canary nodes docker 1.7 is tried; all others are to have 1.6."""

    place: Place
    folder: Path

    def canary(self, *nodes: str) -> None:
        """Write rack.toml with these canary nodes, and both locks."""
        toml = (self.place.folder / "rack/rack.toml").read_text()
        packages = f'[packages]\ninstall = ["docker"]\ncanary = {json.dumps(nodes)}\n'
        (self.folder / "rack.toml").write_text(f'{toml}{packages}check = "{CHECK}"\n')
        key = PackageWish(("docker",)).key
        for lock, version, digit in (("rack.lock", OLD, "a"), ("canary.lock", NEW, "c")):
            pin = PacmanPin(
                version, "any", f"docker-{version}-any.pkg.tar.xz", digit * 64, 1, "A" * 40,
                "http://m/x", "2026-11-02T10:00:00+00:00",
            )  # fmt: skip
            its = SetPin("b" * 64, ("docker",), ("docker",), ())
            RackLock.load(self.folder / lock).with_packages({"docker": pin}, {key: its})

    def node(self, name: str, version: str, check: str) -> None:
        """Give the node ``name`` this docker, as its pacman tells, and what ``check`` does."""
        box = self.place.running[name]
        database = box.folder / "pacman"
        shutil.rmtree(database / "local", ignore_errors=True)
        entry = database / f"local/docker-{version}"
        entry.mkdir(parents=True)
        (entry / "desc").write_text(description("docker", version))
        (entry / "files").write_text("%FILES%\n")
        (database / "local/ALPM_DB_VERSION").write_text("9\n")
        (box.folder / "boot/check").write_text(check)
        words = ("mount", "--bind", str(database), "/var/lib/pacman")
        subprocess.run([*box.entering, *words], check=True)

    def promote(self, *words: str) -> Said:
        return self.place.ask("lock", "promote", *words, rack=self.folder)

    @property
    def pinned(self) -> str:
        return RackLock.load(self.folder / "rack.lock").pacman["docker"].version


def boot_folder(image: NodeImage, folder: Path) -> None:
    """The small files of the card's boot partition, where a node would have it mounted."""
    with image.open() as reader:
        boot = image.layout.boot
        volume = FatVolume.parse(reader.read, boot.offset, boot.length)
        (folder / "boot/picloud").mkdir(parents=True)
        (folder / "boot/picloud/node.json").write_bytes(volume.read_file("picloud/node.json"))


def mount_boot(box: Box) -> None:
    words = ("mount", "--bind", str(box.folder / "boot"), "/boot")
    subprocess.run([*box.entering, *words], check=True)


@contextmanager
def stranger_at(place: Place, name: str) -> Iterator[None]:
    """A minion that rack.toml does not know asks to be let in."""
    folder, master = "/etc/salt/pki/master/minions_pre", place.running.master
    key = place.folder / "rack/.picloud/keys/pi1/salt/minion.pub"
    subprocess.run([*master.entering, "mkdir", "-p", folder], check=True)
    subprocess.run([*master.entering, "cp", str(key), f"{folder}/{name}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*master.entering, "rm", f"{folder}/{name}"], check=True)


@pytest.fixture(scope="module")
def place(salt_programs: SaltPrograms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("status")
    (folder / "nodes").mkdir()
    golden = compose(build_release(folder), Cache(folder / "cache"), Quiet())
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "me"], check=True)
    rack = rack_in(
        folder / "rack",
        '[rack]\nnodes = "pi[0-3]"\nmaster = "pi0"\nslots = "A[1-4]"\n'
        '[network]\naddresses = "10.77.0.[10-13]"\n'
        '[login]\nauthorized_keys_files = ["../me.pub"]\n',
    )
    with ExitStack() as stack:
        on = stack.enter_context(running(folder / "nodes", rack, golden, salt_programs))
        names = ["pi0", "pi1", "pi2"]
        images = {name: on.image(name) for name in names}
        for name in names:
            boot_folder(images[name], folder / "nodes" / name)
        on.switch_on(*names)
        for name in names:
            mount_boot(on[name])
        firstboot: dict[str, object] = {
            "format": 1,
            "node": "pi1",
            "state": "failed",
            "step": "30-swap",
        }
        firstboot |= {"note": "no room", "hint": "make some", "steps": []}
        (folder / "nodes/pi1/boot/picloud/firstboot.json").write_text(json.dumps(firstboot))
        sshd = stack.enter_context(sshd_in(on.master, images["pi0"], salt_programs.folder))
        on.master.wait_until_answering(set(names), seconds=JOIN_SECONDS)
        yield Place(on, folder, images, sshd)


def test_who_answers_who_does_not_and_what_they_say(place: Place) -> None:
    with stranger_at(place, "intruder"):
        said = place.status("--json")
    assert said.code == 0, said.err + said.out
    nodes = {node["node"]: node for node in said.result["nodes"]}
    assert {name: node["presence"] for name, node in nodes.items()} == {
        "pi0": "joined",
        "pi1": "joined",
        "pi2": "joined",
        "pi3": "silent",
    }
    assert said.result["strangers"] == {"intruder": "pending"}
    assert any(event["event"] == "warning" for event in said.events)
    assert nodes["pi1"]["step"] == "30-swap"
    assert nodes["pi1"]["note"] == "no room"
    golden = place.images["pi0"].golden
    assert nodes["pi2"]["release_sha256"] == golden.release_sha256
    assert nodes["pi2"]["imaged_at"].startswith("20")
    assert load_presence(place.folder / "rack")["pi1"].is_joined


def test_waiting_ends_with_30_when_a_node_stays_away(place: Place) -> None:
    said = place.status("--wait", "20", "--json")
    assert said.code == 30, said.err
    waits = [event for event in said.events if event["event"] == "waiting"]
    assert waits[0]["missing"] == ["pi3"]
    assert said.events[-2]["kind"] == "BatchFailed"
    assert said.result["missing"] == ["pi3"]


def test_waiting_ends_at_once_when_all_that_are_asked_about_are_there(place: Place) -> None:
    assert place.status("pi[0-2]", "--wait").code == 0


def test_on_the_master_no_ssh_is_needed_and_a_person_reads_it_in_80_columns(place: Place) -> None:
    command = [*place.running.master.entering, sys.executable, "-m", "imager", "rack", "status"]
    path = f"{place.sshd.programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [*command, "--rack", str(place.folder / "rack")],
        env={"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(place.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(this computer)" in done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines[:7]) <= 80
    assert lines[2].split()[:3] == ["A2", "pi1", "joined"]
    assert lines[4].split()[:4] == ["A4", "pi3", "silent", "never"]
    assert "3 of 4 joined" in lines
    assert lines[lines.index("pi1: first boot failed at 30-swap: no room") + 1] == "    make some"
    assert any(line.startswith("pi3: see that it is switched on") for line in lines)


def test_another_host_in_the_master_s_place_is_not_believed(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder / "rack", tmp_path / "rack")
    shutil.copy(place.folder / "me.pub", tmp_path)
    other = tmp_path / "rack/.picloud/keys"
    for kind in ("ed25519", "ecdsa", "rsa"):
        name = f"ssh_host_{kind}_key.pub"
        shutil.copy(other / "pi1/ssh" / name, other / "pi0/ssh" / name)
    said = place.status("--json", rack=tmp_path / "rack")
    assert said.code == 12, said.out
    assert "not the master of this rack" in said.events[-2]["what"]


def test_a_key_the_master_does_not_know_is_not_let_in(place: Place, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "x"], check=True
    )
    said = place.status("--identity", str(tmp_path / "x"), "--json")
    assert said.code == 10, said.out
    assert "does not let you in" in said.events[-2]["what"]


def test_a_master_that_is_off_is_a_network_error(place: Place) -> None:
    assert place.status("--port", "9").code == 11


def test_a_master_without_salt_says_so(place: Place, tmp_path: Path) -> None:
    with place.sshd.without_salt() as port:
        said = place.status("--port", str(port), "--json")
    assert said.code == 40, said.out
    assert "salt-key is not installed there" in said.events[-2]["what"]


@pytest.fixture
def on_trial(place: Place, tmp_path: Path) -> OnTrial:
    shutil.copytree(place.folder / "rack", tmp_path / "rack")
    shutil.copy(place.folder / "me.pub", tmp_path)
    return OnTrial(place, tmp_path / "rack")


@pytest.mark.skipif(find_tool("pacman") is None, reason="pacman is not installed")
def test_a_moved_lock_is_promoted_when_the_master_finds_the_canary_well(on_trial: OnTrial) -> None:
    """One node has the old card, and its check fails after much was said; one is switched off."""
    on_trial.canary("pi1", "pi3")
    on_trial.node("pi1", OLD, "seq 3000000; echo cannot start a container >&2; exit 125\n")
    said = on_trial.promote()
    assert said.code == 30, said.err
    lines = said.out.splitlines()
    assert lines[0] == f"~ docker {OLD} -> {NEW}"
    assert f"pi1: it does not run what is on trial: docker is {OLD}, not {NEW}" in lines
    at = lines.index(f"pi1: {CHECK} ended with 125")
    assert lines[at + 1 : at + 4] == ["    2999999", "    3000000", "    cannot start a container"]
    assert any(line.startswith("pi3: it does not answer: see that it is") for line in lines)
    assert "not promoted: pi[1,3] are not well" in said.err
    assert on_trial.pinned == OLD

    on_trial.canary("pi1")
    for words, code in ((["--port", "9"], 11), (["--user", "a b"], 2)):
        assert on_trial.promote(*words).code == code
    with on_trial.place.sshd.without_salt() as port:
        assert on_trial.promote("--port", str(port)).code == 40
    assert on_trial.pinned == OLD

    on_trial.node("pi1", NEW, "exit 0\n")
    said = on_trial.promote("--json")
    assert said.code == 0, said.err + said.out
    assert said.result["nodes"] == [
        {"node": "pi1", "answers": True, "check": 0, "said": [], "faults": []}
    ]
    assert on_trial.pinned == NEW
    assert not (on_trial.folder / "canary.lock").exists()


def test_the_login_is_the_card_s_own(place: Place) -> None:
    image = place.images["pi0"]
    with image.open() as reader:
        root = Ext4.open(reader.read, image.layout.root.offset)
        assert (
            root.read_file("/root/.ssh/authorized_keys")
            == (place.folder / "me.pub").read_bytes().strip() + b"\n"
        )

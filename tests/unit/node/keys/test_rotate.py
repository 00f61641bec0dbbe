"""A rotation leaves the old key or the new one, never a mix, and says what else must be done."""

from __future__ import annotations

import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imager.base.errors import ConfigurationError
from imager.config.load import load_rack
from imager.config.rack import Node, Rack
from imager.node.keys import rotate as module
from imager.node.keys.identity import Identity, identity_of
from imager.node.keys.rotate import KeyKind, key_in_use, rotate, steps_after, undo
from imager.node.keys.salt import fingerprint
from tests.support.racks import rack_in

TEXT = '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rack = rack_in(tmp_path_factory.mktemp("rotate") / "rack", TEXT)
    for node in rack.nodes:
        identity_of(rack, node)
    return rack.folder


@pytest.fixture
def rack(made: Path, tmp_path: Path) -> Rack:
    shutil.copytree(made, tmp_path / "rack")
    return load_rack(tmp_path / "rack")


def identity(rack: Rack, name: str = "pi1") -> Identity:
    return identity_of(rack, rack.node(name))


def files_of(rack: Rack) -> dict[str, bytes]:
    files = (path for path in rack.keys.path.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(rack.keys.path)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("kind", "node"), [(KeyKind.SALT, "pi1"), (KeyKind.SSH, "pi1"), (KeyKind.MASTER, "pi0")]
)
def test_only_what_was_asked_for_changes_and_the_old_is_kept(
    rack: Rack, kind: KeyKind, node: str
) -> None:
    before = files_of(rack)
    done = rotate(rack, rack.node(node), kind)
    after = files_of(rack)
    changed = {path for path in before if after[path] != before[path]}
    own = {path for path in before if path.startswith(f"{node}/{kind}/")}
    assert changed == own
    kept = {path.replace(f"/{kind}/", f"/{kind}.old/"): before[path] for path in own}
    assert {path: after[path] for path in after.keys() - before.keys()} == kept
    assert done.before != done.after
    assert undo(rack, rack.node(node), kind).after == done.before
    assert files_of(rack) == before


def test_each_kind_has_a_name_for_people() -> None:
    assert [kind.noun for kind in KeyKind] == ["Salt key", "ssh host key", "Salt master's key"]


def test_the_master_s_card_gets_the_new_key(rack: Rack) -> None:
    done = rotate(rack, rack.node("pi1"), KeyKind.SALT)
    accepted = dict(identity(rack, "pi0").master.accepted)
    assert fingerprint(accepted["pi1"]) == done.after == fingerprint(identity(rack).minion.public)


def test_a_host_key_is_told_by_the_one_that_ssh_shows_first(rack: Rack) -> None:
    before = identity(rack).ssh
    done = rotate(rack, rack.node("pi1"), KeyKind.SSH)
    first = [key for key in (*before, *identity(rack).ssh) if "ed25519" in key.name]
    assert [key.fingerprint for key in first] == [done.before, done.after]


def test_a_second_rotation_forgets_the_first_key(rack: Rack) -> None:
    first = rotate(rack, rack.node("pi1"), KeyKind.SALT)
    second = rotate(rack, rack.node("pi1"), KeyKind.SALT)
    assert second.before == first.after
    assert undo(rack, rack.node("pi1"), KeyKind.SALT).after == first.after
    with pytest.raises(ConfigurationError, match="nothing to go back to"):
        undo(rack, rack.node("pi1"), KeyKind.SALT)
    assert fingerprint(identity(rack).minion.public) == first.after


def test_new_private_files_are_private_and_so_are_old_ones(rack: Rack) -> None:
    rotate(rack, rack.node("pi1"), KeyKind.SALT)
    for name in ("salt", "salt.old"):
        folder = rack.keys.path / "pi1" / name
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "minion.pem").stat().st_mode) == 0o600


def test_a_node_without_keys_gets_its_first(tmp_path: Path) -> None:
    rack = rack_in(tmp_path / "rack", TEXT)
    done = rotate(rack, rack.node("pi1"), KeyKind.SALT)
    assert (done.before, done.steps) == (None, ())
    assert fingerprint(identity(rack).minion.public) == done.after
    assert not (rack.keys.path / "pi1/salt.old").exists()


def test_a_damaged_key_is_named_and_nothing_is_changed(rack: Rack) -> None:
    (rack.keys.path / "pi1/salt/minion.pub").unlink()
    before = files_of(rack)
    with pytest.raises(ConfigurationError, match=r"minion\.pub"):
        rotate(rack, rack.node("pi1"), KeyKind.SALT)
    assert files_of(rack) == before


def test_a_key_out_of_use_does_not_come_back_for_a_damaged_one(rack: Rack) -> None:
    done = rotate(rack, rack.node("pi1"), KeyKind.SALT)
    (rack.keys.path / "pi1/salt/minion.pub").unlink()
    with pytest.raises(ConfigurationError) as caught:
        identity(rack)
    *_, folders = caught.value.hint.partition(")")[0].partition("rm -r ")
    for folder in shlex.split(folders):
        shutil.rmtree(folder)
    assert fingerprint(identity(rack).minion.public) not in (done.before, done.after)


@pytest.mark.parametrize("name", ["salt", "salt.old"])
def test_an_undo_that_finds_a_damaged_key_changes_nothing(rack: Rack, name: str) -> None:
    rotate(rack, rack.node("pi1"), KeyKind.SALT)
    (rack.keys.path / "pi1" / name / "minion.pub").unlink()
    before = files_of(rack)
    for act in (undo, key_to_undo):
        with pytest.raises(ConfigurationError, match=rf"{name}/minion\.pub"):
            act(rack, rack.node("pi1"), KeyKind.SALT)
    assert files_of(rack) == before


def key_to_undo(rack: Rack, node: Node, kind: KeyKind) -> str | None:
    return key_in_use(rack, node, kind, undo=True)


def test_a_key_is_looked_at_without_making_one(rack: Rack, tmp_path: Path) -> None:
    now = fingerprint(identity(rack).minion.public)
    assert key_in_use(rack, rack.node("pi1"), KeyKind.SALT, undo=False) == now
    new = rack_in(tmp_path / "new", TEXT)
    assert key_in_use(new, new.node("pi1"), KeyKind.SALT, undo=False) is None
    assert not new.state.exists()


# Kills itself just before the nth thing that changes the store.
KILLED = """
import os, pathlib, shutil, signal, sys
from imager.node.keys import store as keystore
from imager.node.keys import rotate
from imager.config.load import load_rack
rack, kind, act, fatal = load_rack(pathlib.Path(sys.argv[1])), *sys.argv[2:4], int(sys.argv[4])
count = 0
def watched(real):
    def call(*words, **rest):
        global count
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return real(*words, **rest)
    return call
real_open = os.open
making = watched(real_open)
def opened(path, flags, *words, **rest):
    return (making if flags & os.O_CREAT else real_open)(path, flags, *words, **rest)
os.open = opened
for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
    setattr(os, name, watched(getattr(os, name)))
getattr(rotate, act)(rack, rack.node("pi1"), rotate.KeyKind(kind))
"""


@pytest.mark.parametrize("act", [pytest.param("rotate", marks=pytest.mark.long(minutes=1)), "undo"])
def test_a_kill_at_any_moment_leaves_the_old_pair_or_the_new_one(rack: Rack, act: str) -> None:
    root = Path(module.__file__).parents[3]
    node = rack.node("pi1")
    rotate(rack, node, KeyKind.SALT)
    start = rack.folder.with_name("start")
    shutil.copytree(rack.folder, start)
    for moment in range(200):
        shutil.rmtree(rack.folder)
        shutil.copytree(start, rack.folder)
        pair, kept = (
            identity(rack).minion,
            (rack.keys.path / "pi1/salt.old/minion.pem").read_bytes(),
        )
        done = subprocess.run(
            [sys.executable, "-c", KILLED, rack.folder, "salt", act, str(moment)],
            cwd=root,
            check=False,
        )
        there = {path.read_bytes() for path in rack.keys.path.rglob("minion.pem")}
        now = identity(rack).minion
        assert now.private in there, "no third pair was made"
        assert not list(rack.keys.path.glob("*/.new-*")), "what was half done is swept away"
        if act == "undo":
            assert now.private in (pair.private, kept)
        elif now != pair:
            assert (rack.keys.path / "pi1/salt.old/minion.pem").read_bytes() == pair.private
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert now != pair
    assert moment > 10, "there are more moments than that"


def test_two_at_once_make_two_rotations(rack: Rack) -> None:
    root = Path(module.__file__).parents[3]
    words = [sys.executable, "-c", KILLED, str(rack.folder), "salt", "rotate", "-1"]
    first = identity(rack).minion
    both = [subprocess.Popen(words, cwd=root) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    kept = (rack.keys.path / "pi1/salt.old/minion.pem").read_bytes()
    assert len({first.private, kept, identity(rack).minion.private}) == 3


STEPS_FOR_PI1 = """\
1. Switch pi1 off and write its card anew:
    picloud-image write /dev/sdX --node pi1 --rack {rack}
2. Let the master pi0 forget the old key and accept the new one:
    ssh root@pi0 salt-key --yes --delete pi1
    scp {rack}/.picloud/keys/pi1/salt/minion.pub root@pi0:/etc/salt/pki/master/minions/pi1
   or write pi0's card anew as well:
    picloud-image write /dev/sdX --node pi0 --rack {rack}
3. Switch pi1 on."""


def test_the_steps_are_commands_for_this_very_rack(rack: Rack) -> None:
    lines = steps_after(rack, rack.node("pi1"), KeyKind.SALT)
    assert "\n".join(lines) == STEPS_FOR_PI1.format(rack=rack.folder)
    ssh = steps_after(rack, rack.node("pi1"), KeyKind.SSH)
    assert "    ssh-keygen -R pi1" in ssh
    assert f"    picloud-image write /dev/sdX --node pi1 --rack {rack.folder}" in ssh
    assert not any("salt" in line for line in ssh)
    own = "\n".join(steps_after(rack, rack.node("pi0"), KeyKind.SALT))
    assert "--node pi0" in own
    assert "salt-key" not in own, "its card has both halves on it"
    all_cards = f"    picloud-image rack flash --rack {rack.folder}"
    assert all_cards in steps_after(rack, rack.node("pi0"), KeyKind.MASTER)


def test_the_steps_name_a_master_elsewhere_by_its_address(tmp_path: Path) -> None:
    text = '[rack]\nnodes = "pi[0-1]"\nmaster = "salt.lab"\n[salt]\nmaster_address = "10.0.0.1"\n'
    rack = rack_in(tmp_path / "a rack", text)
    lines = steps_after(rack, rack.node("pi1"), KeyKind.SALT)
    assert "    ssh root@10.0.0.1 salt-key --yes --delete pi1" in lines
    export = next(line for line in lines if "keys export" in line)
    assert shlex.split(export)[-1] == str(tmp_path / "a rack")
    assert shlex.split(export)[:4] == ["picloud-image", "rack", "keys", "export"]


@pytest.mark.parametrize(
    ("master", "hint"), [("pi0", "name pi0"), ("salt", "replace it on salt itself")]
)
def test_only_the_owner_of_a_master_s_key_can_replace_it(
    tmp_path: Path, master: str, hint: str
) -> None:
    rack = rack_in(tmp_path, f'[rack]\nnodes = "pi[0-1]"\nmaster = "{master}"\n')
    for act in (rotate, undo, steps_after):
        with pytest.raises(ConfigurationError, match="pi1 has no master's key") as caught:
            act(rack, rack.node("pi1"), KeyKind.MASTER)
        assert hint in caught.value.hint
    assert not rack.keys.exists()

"""``rack keys …`` and ``rack known-hosts`` as a person or a program runs them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imager.config.load import load_rack
from imager.node.keys.identity import identity_of
from tests.support.starter import run_command

ROOT = Path(__file__).resolve().parents[4]
RACK = """
[rack]
nodes = "pi[0-1],head"
master = "pi0"
[network]
addresses = "10.0.0.[10-12]"
prefix = 24
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "rack").mkdir()
    (tmp_path / "rack/rack.toml").write_text(RACK)
    return tmp_path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keyed") / "rack"
    folder.mkdir()
    (folder / "rack.toml").write_text(RACK)
    rack = load_rack(folder)
    for node in rack.nodes:
        identity_of(rack, node)
    return folder


@pytest.fixture
def keyed(template: Path, tmp_path: Path) -> Path:
    """The same place, with the keys that writing every card makes."""
    shutil.copytree(template, tmp_path / "rack")
    return tmp_path


def run(
    place: Path, *words: str | Path, stdin: int | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "PICLOUD_RACK": str(place / "rack"),
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
    }
    line = ["rack", *map(str, words)]
    if stdin is None:
        ended = run_command(line, cwd=place, env=environment, stdin="", seconds=60)
        return subprocess.CompletedProcess(line, *ended)
    return subprocess.run(
        [sys.executable, "-m", "imager", *line],
        env=environment,
        cwd=place,
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def result(place: Path, *words: str | Path) -> dict[str, Any]:
    done = run(place, *words, "--json")
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "result"
    assert last["exit_code"] == done.returncode
    return last


def test_ssh_finds_every_node_in_known_hosts_by_name_and_address(keyed: Path) -> None:
    done = run(keyed, "known-hosts")
    assert done.returncode == 0, done.stderr
    file = keyed / "known_hosts"
    file.write_text(done.stdout)
    for host, node in (("pi1", "pi1"), ("10.0.0.11", "pi1"), ("head", "head")):
        words = ["ssh-keygen", "-F", host, "-f", str(file)]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        keys = {tuple(line.split()[1:]) for line in said.splitlines() if line[0] != "#"}
        folder = keyed / "rack/.picloud/keys" / node / "ssh"
        assert keys == {tuple(pub.read_text().split()[:2]) for pub in folder.glob("*.pub")}
    assert len(done.stdout.splitlines()) == 9, "nothing but keys on standard output"
    assert result(keyed, "known-hosts", "pi1")["known_hosts"] == [
        line for line in done.stdout.splitlines() if line.startswith("pi1,10.0.0.11 ")
    ]


def test_the_fingerprints_are_those_ssh_and_salt_show(keyed: Path) -> None:
    listed = result(keyed, "keys", "list")
    assert [row["node"] for row in listed["nodes"]] == ["pi0", "pi1", "head"]
    row = listed["nodes"][1]
    public = keyed / "rack/.picloud/keys/pi1/ssh/ssh_host_ed25519_key.pub"
    said = subprocess.run(
        ["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True
    ).stdout
    assert row["ssh"]["ssh_host_ed25519_key"] == said.split()[1]
    shown = run(keyed, "keys", "list", "pi1").stdout
    assert row["salt"] in shown
    assert listed["master"] in shown
    assert re.fullmatch(r"([0-9a-f]{2}:){31}[0-9a-f]{2}", row["salt"])


def test_rotate_says_what_changed_and_what_to_do(keyed: Path) -> None:
    before = result(keyed, "keys", "list", "pi1")["nodes"][0]["salt"]
    planned = result(keyed, "keys", "rotate", "pi1", "--dry-run")
    assert result(keyed, "keys", "list", "pi1")["nodes"][0]["salt"] == before
    (done,) = result(keyed, "keys", "rotate", "pi1")["rotated"]
    after = result(keyed, "keys", "list", "pi1")["nodes"][0]["salt"]
    assert (done["before"], done["after"]) == (before, after)
    assert done["steps"] == planned["steps"]["salt"]
    assert "    ssh root@10.0.0.10 salt-key --yes --delete pi1" in done["steps"]
    said = run(keyed, "keys", "rotate", "pi1", "--undo").stdout
    assert said.startswith("pi1 has its former Salt key\n")
    assert result(keyed, "keys", "list", "pi1")["nodes"][0]["salt"] == before


def test_two_kinds_are_replaced_at_once(keyed: Path) -> None:
    done = result(keyed, "keys", "rotate", "pi1", "--ssh", "--salt")["rotated"]
    assert [rotation["kind"] for rotation in done] == ["salt", "ssh"]
    said = run(keyed, "keys", "rotate", "pi1", "--ssh").stdout
    assert "    ssh-keygen -R pi1\n" in said


def files_of(place: Path) -> dict[Path, bytes]:
    keys = (place / "rack").rglob("*")
    return {path: path.read_bytes() for path in keys if path.is_file()}


def test_an_undo_of_two_kinds_needs_both_before_either_changes(keyed: Path) -> None:
    result(keyed, "keys", "rotate", "pi1", "--salt")
    before = files_of(keyed)
    done = run(keyed, "keys", "rotate", "pi1", "--undo", "--salt", "--ssh")
    assert done.returncode == 10
    assert "pi1/ssh.old: no such folder, so there is nothing to go back to" in done.stderr
    assert done.stdout == ""
    assert files_of(keyed) == before


def test_a_damaged_key_of_one_kind_keeps_the_others_as_they_are(keyed: Path) -> None:
    (keyed / "rack/.picloud/keys/pi1/ssh/ssh_host_rsa_key").write_text("damaged")
    before = files_of(keyed)
    done = run(keyed, "keys", "rotate", "pi1", "--salt", "--ssh")
    assert done.returncode == 10
    assert "pi1/ssh/ssh_host_rsa_key: is not an OpenSSH private key" in done.stderr
    assert files_of(keyed) == before


def test_a_dry_run_for_a_node_without_a_key_says_it_is_the_first(place: Path) -> None:
    dry = run(place, "keys", "rotate", "pi1", "--dry-run")
    assert dry.stdout == "pi1 has no Salt key yet; it would get its first\n"
    assert result(place, "keys", "rotate", "pi1", "--dry-run")["steps"] == {"salt": []}
    assert not (place / "rack/.picloud").exists()
    (done,) = result(place, "keys", "rotate", "pi1")["rotated"]
    assert (done["before"], done["steps"]) == (None, [])


def test_the_master_s_key_is_not_replaced_unasked(keyed: Path) -> None:
    before = result(keyed, "keys", "list")["master"]
    done = run(keyed, "keys", "rotate", "pi0", "--master")
    assert done.returncode == 2
    assert "say --yes" in done.stderr
    ours, theirs = pty.openpty()
    os.write(ours, b"no\n")
    done = run(keyed, "keys", "rotate", "pi0", "--master", stdin=theirs)
    assert done.returncode == 130
    assert "Type pi0 to go on" in done.stderr
    assert result(keyed, "keys", "list")["master"] == before
    os.write(ours, b"pi0\n")
    done = run(keyed, "keys", "rotate", "pi0", "--master", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "Every card pins the master's key" in done.stdout
    assert result(keyed, "keys", "list")["master"] != before


def test_export_shows_each_key_and_where_to_copy_them(place: Path) -> None:
    dry = run(place, "keys", "export", "--pki", "pki", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "nothing was changed" in dry.stdout
    assert not (place / "pki").exists()
    done = run(place, "keys", "export", "--pki", "pki")
    assert f"    scp -r {place}/pki/. root@10.0.0.10:/etc/salt/pki/master/" in done.stdout
    assert sorted(path.name for path in (place / "pki/minions").iterdir()) == ["head", "pi0", "pi1"]
    (place / "pki/minions/pi1").write_text("another")
    refused = run(place, "keys", "export", "--pki", "pki")
    assert refused.returncode == 20
    assert f"{place}/pki/minions/pi1: another key" in refused.stderr
    assert (place / "pki/minions/pi1").read_text() == "another"
    (place / "pki/minions_pre").mkdir()
    (place / "pki/minions_pre/pi1").write_text("another")
    keys = result(place, "keys", "export", "--pki", "pki", "--replace")["keys"]
    assert [key["found"] for key in keys] == ["there already", "another key", "there already"]
    assert keys[1]["removed"] == [f"{place}/pki/minions_pre/pi1"]


def test_a_dry_export_makes_no_key(place: Path) -> None:
    words = ("keys", "export", "--pki", "pki", "--master-key", "--dry-run")
    dry = run(place, *words)
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.count("new; the key would be made\n") == 5
    assert "nothing was changed" in dry.stdout
    assert not (place / "rack/.picloud").exists()

    result(place, "keys", "rotate", "pi1")
    before = files_of(place)
    keys = result(place, *words)["keys"]
    made = {Path(key["path"]).name: key["key_made"] for key in keys}
    assert made == {
        "pi0": False, "pi1": True, "head": False, "master.pem": False, "master.pub": False
    }  # fmt: skip
    assert files_of(place) == before


def test_a_dry_export_names_what_is_in_the_way_of_a_key_to_be_made(place: Path) -> None:
    (place / "pki/minions").mkdir(parents=True)
    (place / "pki/minions/pi1").write_text("another")
    dry = run(place, "keys", "export", "--pki", "pki", "--dry-run")
    assert dry.returncode == 20
    (line,) = (line for line in dry.stderr.splitlines() if "pki/minions/pi1" in line)
    assert line.rpartition(", ")[0].endswith("pki/minions/pi1: another key")
    assert "pi1's" not in line, "a key that nobody keeps has no fingerprint to tell"
    assert not (place / "rack/.picloud").exists()


def test_an_export_that_is_refused_makes_no_key(place: Path) -> None:
    (place / "pki/minions").mkdir(parents=True)
    (place / "pki/minions/pi1").write_text("another")
    assert run(place, "keys", "export", "--pki", "pki").returncode == 20
    assert not (place / "rack/.picloud").exists()


def test_an_outside_master_nobody_pinned_is_warned_of(place: Path) -> None:
    (place / "rack/rack.toml").write_text('[rack]\nnodes = "pi1"\nmaster = "salt"\n')
    done = run(place, "keys", "export", "--pki", "pki")
    assert done.returncode == 0
    assert "the cards do not know salt's key" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["keys", "rotate", "pi9"], 10, "no node is called 'pi9'"),
        (["keys", "rotate", "pi0", "--master"], 2, "there is nobody to ask"),
        (["keys", "rotate", "pi1", "--salt", "--master", "--yes"], 10, "pi1 has no master's key"),
        (["keys", "rotate", "pi1", "--undo"], 10, "nothing to go back to"),
        (["keys", "rotate", "pi1", "--undo", "--dry-run"], 10, "nothing to go back to"),
        (["keys", "export"], 2, "Missing option '--pki'"),
        (["keys", "list", "pi[1-"], 2, "is not a list of names"),
        (["known-hosts", "pi[1-2]"], 10, "no node is called 'pi2'"),
    ],
)
def test_what_cannot_be_is_said_in_two_lines(
    place: Path, words: list[str], code: int, what: str
) -> None:
    done = run(place, *words)
    assert done.returncode == code, done.stderr
    first, last = done.stderr.strip().splitlines()
    assert what in first
    assert last.startswith("  → ")
    assert done.stdout == ""


def test_what_is_not_made_yet_is_said_to_be_so(place: Path) -> None:
    done = run(place, "keys", "list")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "master pi0: not made yet",
        *(
            line
            for node in ("pi0", "pi1", "head")
            for line in (node, "    salt not made yet", "    ssh  not made yet")
        ),
    ]
    assert done.stderr == "a node's keys are made when its card is first written\n"
    assert result(place, "keys", "list", "pi1")["nodes"] == [
        {"node": "pi1", "salt": None, "ssh": {}}
    ]
    done = run(place, "known-hosts")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no host keys yet for head,pi[0-1]" in done.stderr


def test_some_keys_are_made_and_the_others_are_named(place: Path) -> None:
    result(place, "keys", "rotate", "pi1", "--ssh")
    listed = result(place, "keys", "list")["nodes"]
    assert [(row["node"], row["salt"], len(row["ssh"])) for row in listed] == [
        ("pi0", None, 0),
        ("pi1", None, 3),
        ("head", None, 0),
    ]
    known = result(place, "known-hosts")
    assert [line.split()[0] for line in known["known_hosts"]] == ["pi1,10.0.0.11"] * 3
    assert known["without_keys"] == ["pi0", "head"]
    assert run(place, "known-hosts", "pi1").stderr == ""

"""``rack init``: asks a person on a terminal, and nobody anywhere else."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from imager.config.load import load_rack
from tests.support.racks import KEY

ROOT = Path(__file__).resolve().parents[4]
COMMAND = [sys.executable, "-m", "imager", "rack", "init"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "rack").mkdir()
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "PICLOUD_RACK": str(place / "rack"),
        "PYTHONPATH": str(ROOT),
        "LANG": "C.UTF-8",
    }


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        env=environment(place),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def on_a_terminal(place: Path, answers: list[str], *words: str) -> tuple[int, str]:
    """What the command shows on a real terminal, and its exit code; each answer is typed when a
    question stands there, and after the last one the line is closed (Ctrl-D)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words], env=environment(place), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, typed = "", list(answers)
    try:
        while True:
            ready, _, _ = select.select([ours], [], [], 60)
            assert ready, f"it hangs after {shown!r}"
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            shown += data.decode()
            if shown.endswith("]: "):
                os.write(ours, (typed.pop(0) + "\n").encode() if typed else b"\x04")
    finally:
        os.close(ours)
        process.kill() if process.poll() is None and not shown else None
        code = process.wait(60)
    return code, shown.replace("\r\n", "\n")


def toml(place: Path) -> dict[str, Any]:
    return tomllib.loads((place / "rack/rack.toml").read_text())


def test_without_a_terminal_the_example_is_written(place: Path) -> None:
    said = run(place)
    assert said.returncode == 0, said.stderr
    rack = load_rack(place / "rack")
    assert [node.name for node in rack.nodes] == [f"pi{number}" for number in range(14)]
    assert (rack.master.name, rack.master.is_node) == ("pi0", True)
    assert [node.slot for node in rack.nodes] == [f"{t}{n}" for t in "AB" for n in range(1, 8)]
    assert all(node.address is None for node in rack.nodes)
    assert "put your SSH key under [login]" in said.stdout


def test_your_own_key_is_taken_where_there_is_one(place: Path) -> None:
    (place / "home/.ssh/id_ed25519.pub").write_text(KEY + "\n")
    assert run(place).returncode == 0
    assert toml(place)["login"] == {"authorized_keys_files": ["~/.ssh/id_ed25519.pub"]}


def test_and_left_out_on_request(place: Path) -> None:
    (place / "home/.ssh/id_ed25519.pub").write_text(KEY + "\n")
    assert run(place, "--ssh-key", "none").returncode == 0
    assert toml(place)["login"] == {}


@pytest.mark.parametrize(
    ("key", "code", "what"),
    [
        ("n" * 300, 41, "File name too long"),
        (os.fsdecode(b"caf\xe9.pub"), 2, r"caf\udce9.pub is not UTF-8, as all of rack.toml is"),
    ],
)
def test_a_key_that_rack_toml_cannot_name_is_told(
    place: Path, key: str, code: int, what: str
) -> None:
    (place / "rack" / key[:200]).write_text(f"{KEY}\n")
    done = run(place, "--ssh-key", key)
    assert done.returncode == code, done.stderr
    assert what in done.stderr
    assert not (place / "rack.toml").exists()


def test_options_say_it_all(place: Path) -> None:
    words = ["--nodes", "n[1-3]", "--master", "salt", "--model", "pi3", "--slots", "none"]
    said = run(place, *words, "--addresses", "10.0.0.[11-13]", "--json")
    assert json.loads(said.stdout)["nodes"] == ["n1", "n2", "n3"]
    rack = load_rack(place / "rack")
    assert (rack.master.is_node, rack.nodes[0].model, rack.nodes[0].slot) == (False, "pi3", None)
    assert str(rack.nodes[2].address) == "10.0.0.13/24"


@pytest.mark.parametrize(
    ("nodes", "slots"),
    [("a", "A[1-1]"), ("a[1-5]", "A[1-5]"), ("a[1-56]", "A[1-7],B[1-7]"), ("a[1-20]", "A[1-20]")],
)
def test_towers_of_seven_where_they_come_out_even(place: Path, nodes: str, slots: str) -> None:
    assert run(place, "--nodes", nodes).returncode == 0
    assert toml(place)["rack"]["slots"].startswith(slots)


def test_enter_takes_every_default(place: Path) -> None:
    code, shown = on_a_terminal(place, [""] * 6)
    assert code == 0, shown
    assert "[pi[0-13]]: " in shown
    assert load_rack(place / "rack").master.name == "pi0"


def test_an_answer_that_cannot_be_is_asked_for_again(place: Path) -> None:
    answers = ["pi_[0-3]", "n[1-4]", "", "pi9", "pi4", "A[1-3]", "B[1-4]", "", "no.pub", "none"]
    code, shown = on_a_terminal(place, answers)
    assert code == 0, shown
    for fault in ("underscore", "is not a board", "3 slots for 4 nodes", "no.pub"):
        assert fault in shown
    rack = load_rack(place / "rack")
    assert [node.slot for node in rack.nodes] == ["B1", "B2", "B3", "B4"]
    assert (rack.master.name, rack.release.source) == ("n1", "alarm-rpi-aarch64")


def test_whoever_stops_answering_gets_no_rack(place: Path) -> None:
    code, shown = on_a_terminal(place, ["", ""])
    assert code == 130, shown
    assert "nothing was made" in shown
    assert list((place / "rack").iterdir()) == []


@pytest.mark.parametrize("words", [["--yes"], ["--json"], ["--nodes", "pi[0-3]"]])
def test_nothing_is_asked_when_the_line_says_enough(place: Path, words: list[str]) -> None:
    code, shown = on_a_terminal(place, [], *words)
    assert code == 0, shown
    assert "Names of the nodes" not in shown


def test_a_rack_that_is_there_is_said_before_anything_is_asked(place: Path) -> None:
    (place / "rack/rack.toml").write_text("")
    code, shown = on_a_terminal(place, [])
    assert code == 10
    assert "Names of the nodes" not in shown

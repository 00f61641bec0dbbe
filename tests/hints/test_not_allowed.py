"""What a user may not do is one sentence, with what to do about it: never a traceback, never 70.

Every command runs as an ordinary user, where something it needs is root's alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imager.cli.main import cli
from tests.hints.collected import command_called
from tests.support.rackhistory import rack_with_history
from tests.support.starter import run_command
from tests.support.workplace import ROOT
from tests.unit.cli.test_looking import command_names

PERSON = 1234
STATE = "rack/.picloud"
LOCKED: dict[str, tuple[str, ...]] = {
    "rack": (
        "rack show",
        "compose --offline",
        "verify card.img",
        "archive export a.tar",
    ),
    "rack/rack.toml": (
        "fetch --offline",
        "lock promote",
        "lock undo",
        "rack plan",
        "rack serve --listen 127.0.0.1:0",
        "rack slots forget A1",
        "rack slots learn A1",
        "rack slots show",
        "rack stations install desk1 --host 127.0.0.1 --port 1",
        "rack stations list --host 127.0.0.1 --port 1",
        "rack watch",
        "write a.img --node pi1",
    ),
    "rack/rack.lock": ("lock --offline", "rack flash --images images --offline --yes"),
    STATE: ("rack show", "rack plan"),
    "saves": ("rack save saves", "rack restore saves"),
    f"{STATE}/receipts": ("receipt --node pi1", "rack report"),
    f"{STATE}/keys": (
        "rack keys list",
        "rack keys rotate pi1",
        "rack known-hosts",
        "rack status --ssh --host 127.0.0.1 --port 1",
    ),
    "cache": ("archive list", "fetch --offline", "lock --offline"),
    "card.img": (
        "inspect card.img",
        "verify card.img",
        "explain card.img --rainbow",
        "read card.img saved.img",
        "clone card.img new.img",
    ),
    "receipt.json": ("receipt receipt.json", "verify card.img --receipt receipt.json"),
    "rack.tar": ("archive import rack.tar --dry-run",),
    "key.asc": ("fetch --release http://127.0.0.1:1/a.tar.gz --signing-key key.asc --offline",),
    "pki": ("rack keys export --pki pki",),
    "images": (
        "probe images/a.img",
        "rack init --yes --rack images",
        "rack plan --images images",
        "rack report --out images/rack.html",
        "read card.img images/saved.img",
        "clone card.img images/new.img",
        "write images/a.img --node pi1",
    ),
}
"""What is root's alone, and who needs it."""
NEEDS_NOTHING = {"completion", "devices", "docs", "help", "version"}
ANSWERS = {"doctor"}
"""Whose answer it is that something may not be read."""
CARDS = (
    "inspect card.img",
    "verify card.img",
    "explain card.img --rainbow",
    "read card.img saved.img",
    "clone card.img new.img",
)
"""A card that may not be read is refused as a target."""
LINES = [(locked, line) for locked, lines in LOCKED.items() for line in lines]

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else"),
    pytest.mark.skipif(not ROOT.stat().st_mode & 1, reason="nobody else can reach this tree"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A person's folder, with a rack that has a history, in a place that they can reach."""
    folder = Path(tempfile.mkdtemp(prefix="picloud-denied-"))
    try:
        folder.chmod(0o755)
        for name in ("rack", "cache", "pki", "images", "saves", "home"):
            (folder / name).mkdir()
        rack_with_history(folder / "rack", 14)
        for name in ("card.img", "stamped.img", "rack.tar", "receipt.json", "key.asc"):
            (folder / name).write_bytes(bytes(1 << 16))
        for path in (folder, *folder.rglob("*")):
            os.chown(path, PERSON, PERSON)
        yield folder
    finally:
        shutil.rmtree(folder)


def as_person(place: Path, line: str) -> tuple[int, str, str]:
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(place / "home"),
        "PICLOUD_RACK": str(place / "rack"),
        "PICLOUD_CACHE": str(place / "cache"),
    }
    return run_command(line.split(), cwd=place, env=environment, stdin="", seconds=60, user=PERSON)


@pytest.mark.parametrize(("locked", "line"), LINES)
def test_it_is_said_what_to_do(place: Path, locked: str, line: str) -> None:
    path = place / locked
    mode = path.stat().st_mode & 0o7777
    os.chown(path, 0, 0)
    path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        code, _, err = as_person(place, line)
    finally:
        path.chmod(mode)
        os.chown(path, PERSON, PERSON)
    refused = locked == "card.img" and line in CARDS
    assert code == (20 if refused else 41), err
    what, hint = err.splitlines()
    assert what.startswith("picloud-image: ")
    assert Path(locked).name in what
    assert "Permission denied" in what
    assert "sudo" in hint


def test_a_rack_that_is_another_users_can_be_copied(place: Path) -> None:
    os.chown(place / "rack", PERSON + 1, PERSON + 1)
    try:
        code, _, err = as_person(place, "rack show")
        assert code == 10, err
        shell(place, "cp -r" + err.rpartition("cp -r")[2].replace("NEW", "copy"), user=PERSON)
        code, _, err = as_person(place, "rack show --rack copy")
    finally:
        os.chown(place / "rack", PERSON, PERSON)
    assert code == 0, err


def test_what_a_run_with_sudo_left_to_root_can_be_taken_back(place: Path) -> None:
    state = place / STATE
    os.chown(state, 0, 0)
    state.chmod(0o700)
    code, _, err = as_person(place, "rack show")
    assert code == 41, err
    shell(place, "chown -R" + err.rpartition("sudo chown -R")[2], user=0)
    assert state.stat().st_uid == PERSON
    code, _, err = as_person(place, "rack show")
    assert code == 0, err


def shell(place: Path, line: str, *, user: int) -> None:
    """Type ``line`` into a shell as ``user``, in ``place``."""
    subprocess.run(line, shell=True, cwd=place, check=True, user=user, group=user)


def test_every_command_is_tried() -> None:
    lines = [line for _, line in LINES]
    tried = {name for name in command_names(cli) for line in lines if f"{line} ".startswith(name)}
    assert tried == set(command_names(cli)) - NEEDS_NOTHING - ANSWERS


def test_the_doctor_finds_a_rack_that_may_not_be_read(place: Path) -> None:
    toml = place / "rack/rack.toml"
    os.chown(toml, 0, 0)
    toml.chmod(0o600)
    try:
        code, out, err = as_person(place, "doctor --offline")
    finally:
        os.chown(toml, PERSON, PERSON)
    assert (code, err) == (41, "")
    assert "rack.toml: Permission denied for user 1234" in " ".join(out.split())


def test_click_does_not_ask_whether_a_path_is_readable() -> None:
    paths = [
        parameter.type
        for name in command_names(cli)
        for parameter in command_called(name).params
        if isinstance(parameter.type, click.Path)
    ]
    assert len(paths) > 60
    assert not [path for path in paths if path.readable]

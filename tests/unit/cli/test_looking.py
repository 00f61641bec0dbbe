"""Looking never writes: not in an empty home, not in a rack that was only just made.

Every command that looks is run, and every file and folder around it is compared with what was
there before: names, modes, times of change, contents.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from imager.cli.main import cli, run
from imager.config.load import load_rack
from imager.node.keys.identity import identity_of
from tests.support.rackhistory import rack_with_history

Snapshot = dict[str, tuple[int, int, bytes]]

LOOKING: dict[str, tuple[int, ...]] = {
    "archive export rack.tar --dry-run": (10, 11),
    "archive import card.img --dry-run": (10, 13),
    "archive list": (0,),
    "completion bash": (0,),
    "devices": (0,),
    "docs": (0,),
    "docs salt": (0,),
    "doctor --offline": (0,),
    "explain --blinks 4": (0,),
    "explain card.img --rainbow": (0,),
    "help": (0,),
    "help rack flash": (0,),
    "inspect card.img": (25,),
    "verify card.img": (23,),
    "clone card.img new.img --dry-run": (0, 20),
    "read card.img saved.img --dry-run": (0, 20),
    "receipt --node pi1": (0, 10),
    "write card.img --image none.img --dry-run": (10,),
    "lock --dry-run --offline": (11,),
    "lock promote --dry-run": (0, 10),
    "lock undo --dry-run": (0,),
    "version": (0,),
    "write new.img --node pi1 --dry-run": (0,),
    "write new.img --node pi1 --dry-run --offline": (11,),
    "rack show": (0,),
    "rack plan": (0,),
    "rack plan --images .": (0,),
    "rack flash --images . --dry-run": (0,),
    "rack slots show": (0,),
    "rack save saves --dry-run": (0,),
    "rack restore saves --dry-run": (2,),
    "rack keys list": (0,),
    "rack keys list pi1": (0,),
    "rack keys rotate pi1 --dry-run": (0,),
    "rack keys rotate pi1 --ssh --salt --dry-run": (0,),
    "rack keys export --pki pki --dry-run": (0,),
    "rack known-hosts": (0,),
    "rack status --ssh --host 127.0.0.1 --port 1": (10,),
    "rack stations list --ssh --host 127.0.0.1 --port 1": (10,),
    "rack stations install desk1 --dry-run --ssh --host 127.0.0.1 --port 1": (10,),
    "rack stations list desk[1-": (2,),
    "rack stations list desk/1": (2,),
    "rack report --out -": (0, 10),
    "rack serve --listen 1": (2, 10),
}
"""What looks, and how it may end: an empty home has no rack to report; the card is a blank one."""
CHANGING = (
    "compose",
    "fetch",
    "probe",
    "rack init",
    "rack slots forget",
    "rack slots learn",
    "rack watch",
)
"""Commands that have no way to be called that only looks."""


def command_names(group: click.Group, before: str = "") -> Iterator[str]:
    """Every command below ``group`` that is no group itself, with the words before it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from command_names(command, f"{before}{name} ")
        else:
            yield before + name


def test_of_every_command_it_is_said_whether_it_looks() -> None:
    names = set(command_names(cli))
    looking = {name for name in names for line in LOOKING if f"{line} ".startswith(f"{name} ")}
    assert set(CHANGING) == names - looking
    assert all(any(f"{line} ".startswith(f"{name} ") for name in names) for line in LOOKING)


def snapshot(folder: Path) -> Snapshot:
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of a person who never used the program, standing in an empty folder of it."""
    for name in [name for name in os.environ if name.startswith(("PICLOUD_", "XDG_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    (home / "here").mkdir(parents=True)
    (home / "here/card.img").write_bytes(bytes(1 << 20))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "here")
    return home


@pytest.fixture
def fresh(home: Path) -> Path:
    """The same, standing in a rack in which no card was made yet."""
    toml = '[rack]\nnodes = "pi[0-3]"\nmaster = "pi0"\nslots = "A[1-4]"\n'
    (home / "here/rack.toml").write_text(toml)
    return home


@pytest.fixture
def used(home: Path) -> Path:
    """The same, in a rack with a history of cards, receipts and answers of its master."""
    rack_with_history(home / "here", 14)
    return home


def look(home: Path, line: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and all output of a line that must change nothing."""
    before = snapshot(home)
    code = run(line.split())
    said = capfd.readouterr()
    after = snapshot(home)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert not changed, said.err
    return code, said.out + said.err


@pytest.mark.parametrize("line", LOOKING)
def test_in_an_empty_home_nothing_is_made(
    home: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = look(home, line, capfd)
    assert code in LOOKING[line], said
    assert "Traceback" not in said


@pytest.mark.parametrize("line", LOOKING)
def test_in_a_fresh_rack_nothing_is_made(
    fresh: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = look(fresh, line, capfd)
    assert code in LOOKING[line], said
    assert "Traceback" not in said


@pytest.mark.parametrize("line", LOOKING)
def test_in_a_used_rack_nothing_is_changed(
    used: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _, said = look(used, line, capfd)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "line",
    [
        "rack status",
        "rack stations list",
        "rack stations install desk1 --dry-run",
        "rack plan --stations desk1",
        "rack flash --stations desk1 --dry-run",
    ],
)
def test_a_master_that_is_asked_over_ssh_leaves_no_trace(
    used: Path, tmp_path: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The rack has made its host key, so ssh is run with it, and finds nobody."""
    rack = load_rack(used / "here")
    identity_of(rack, rack.node("pi0"))
    code, said = look(used, f"{line} --ssh --host 127.0.0.1 --port 1", capfd)
    assert code == 11, said
    assert "cannot be reached: " in said


def test_without_a_rack_the_default_one_is_shown_as_it_would_be(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, said = look(home, "rack show", capfd)
    assert f"will be made in {home}/.local/share/picloud-image/default-rack" in said
    assert "picloud-image rack init" in said
    _, said = look(home, "rack show --json", capfd)
    result = json.loads(said.splitlines()[-1])
    assert [node["node"] for node in result["nodes"]] == [f"pi{number}" for number in range(14)]


def test_without_a_rack_there_is_nothing_to_ask_or_report(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in ("rack status", "rack report"):
        code, said = look(home, line, capfd)
        assert code == 10
        assert "no rack.toml here or above, and no default rack yet" in said
        assert "picloud-image rack init" in said

"""Commands in hints stand there as the person who reads them has to type them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from imager.cli.main import cli, run
from imager.cli.pasting import pasting
from imager.cli.settings import Settings
from imager.cli.stations.stations import list_stations

HINT = "run {} once without --offline"


@pytest.fixture
def rack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A rack whose release is not archived, in a folder whose name must be quoted."""
    for name in [name for name in os.environ if name.startswith(("PICLOUD_", "SUDO_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my rack").mkdir()
    (tmp_path / "my rack/rack.toml").write_text('[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n')
    return "my rack"


def told(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    capfd.readouterr()
    assert run([*words, "compose", "--offline"]) == 11
    return capfd.readouterr().err.splitlines()[-1].removeprefix("  → ")


def test_options_are_carried_from_before_and_after_the_command(
    rack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = HINT.format("picloud-image --rack 'my rack' --cache c fetch")
    assert told(capfd, "--rack", rack, "--cache", "c") == wanted
    assert run(["--cache", "c", "compose", "--offline", "--rack", rack]) == 11
    assert wanted in capfd.readouterr().err
    typed = shlex.split(wanted.split(" once")[0].removeprefix("run picloud-image "))
    assert run([*typed, "--offline"]) == 11
    assert wanted in capfd.readouterr().err


def test_the_environment_holds_for_the_next_command_too(
    rack: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICLOUD_RACK", rack)
    assert told(capfd) == HINT.format("picloud-image fetch")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as sudo gives it")
def test_sudo_is_carried_and_forgets_the_environment(
    rack: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICLOUD_RACK", rack)
    monkeypatch.setenv("SUDO_UID", "1234")
    for path in (Path(), Path(rack)):
        os.chown(path, 1234, 1234)
    assert told(capfd) == HINT.format("sudo picloud-image --rack 'my rack' fetch")


def test_what_the_text_gives_itself_is_not_repeated(
    rack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["rack", "show", "--rack", "none here", "--cache", "c"]) == 10
    said = capfd.readouterr().err
    assert "make one with picloud-image --cache c rack init --rack 'none here'" in said


def test_how_the_master_is_reached_is_carried_to_commands_that_ask_it() -> None:
    root = cli.make_context("picloud-image", ["rack"])
    context = list_stations.make_context("list", ["--host", "10.0.0.9", "--ssh"], parent=root)
    pasted = pasting(context, Settings())
    install = "no program yet: picloud-image rack stations install desk1"
    assert pasted(install) == install.replace("install", "install --host 10.0.0.9 --ssh")
    assert pasted("then: picloud-image rack status --wait") == (
        "then: picloud-image rack status --host 10.0.0.9 --ssh --wait"
    )
    assert pasted("picloud-image rack show") == "picloud-image rack show"


def test_prose_with_the_program_s_name_is_no_command() -> None:
    context = cli.make_context("picloud-image", ["--rack", "there", "compose"])
    pasted = pasting(context, Settings(rack=Path("there")))
    assert pasted("try picloud-image fetch") == "try picloud-image --rack there fetch"
    for prose in ("install picloud-image again", "no picloud-image-fetch", "by picloud-image 0.1"):
        assert pasted(prose) == prose

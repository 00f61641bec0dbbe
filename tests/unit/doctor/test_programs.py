"""The table of programs is whole, and what is missing is missing only where it is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from imager.base.programs import CARD_USES, TOOLS, ToolUse
from imager.doctor import programs
from imager.doctor.checkup import Checkup, Verdict
from imager.doctor.programs import library_checkups, program_checkups, uses_of
from tests.support.racks import rack_in

ROOT = Path(__file__).resolve().parents[3]
RUN = re.compile(r'\b(?:run|running|run_bounded|find_tool|require_tools)\(\s*\[?"([\w.-]+)"')
OUR_OWN = {
    "cat": "coreutils: every computer has it",
    "salt-run": "says whether this computer is a Salt master",
}


def test_every_program_that_is_run_is_in_the_table() -> None:
    found = {
        name for path in (ROOT / "imager").rglob("*.py") for name in RUN.findall(path.read_text())
    }
    assert {"debugfs", "mcopy", "udevadm", "blkid", "zstd"} <= found
    assert found - OUR_OWN.keys() <= TOOLS.keys()


def test_what_cards_need_is_missing_and_the_rest_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imager.base.run._SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {one.name: one for one in program_checkups(CARD_USES)}
    assert found["mcopy"].verdict is Verdict.MISSING
    assert found["mcopy"].exit_code == 40
    assert found["mcopy"].to_do == "Debian, Ubuntu: apt install mtools · Arch: pacman -S mtools"
    assert {name for name, one in found.items() if one.verdict is Verdict.WARNING} == {
        *("zstd", "xz", "gzip", "pacman", "vercmp", "prlimit", "ssh", "udevadm", "blkid")
    }
    more = {one.name: one for one in program_checkups([ToolUse.RESOLVE])}
    assert more["pacman"].verdict is Verdict.MISSING
    assert more["mcopy"].verdict is Verdict.WARNING


def test_a_program_is_named_with_its_place_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ones of this computer, and one that never says what was asked."""
    found = {one.name: one for one in program_checkups(CARD_USES)}
    assert re.match(r"/\S+/mke2fs 1\.\d+", found["mke2fs"].found)
    assert re.match(r"/\S+/mcopy \d\.\d+", found["mcopy"].found)
    assert re.match(r"/\S+/zstd 1\.\d+", found["zstd"].found)
    mute = tmp_path / "mke2fs"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(programs, "_SECONDS", 0.2)
    found = {one.name: one for one in program_checkups(CARD_USES)}
    assert found["mke2fs"].found == f"{mute}, for composing golden images"


def test_pacman_is_needed_by_a_rack_whose_packages_are_not_locked(tmp_path: Path) -> None:
    toml = '[rack]\nnodes = "pi[0-1]"\nmaster = "pi0"\n'
    assert uses_of(None) == uses_of(rack_in(tmp_path / "plain", toml)) == CARD_USES
    rack = rack_in(tmp_path / "asks", f'{toml}[packages]\ninstall = ["vim"]\n')
    assert uses_of(rack) == (*CARD_USES, ToolUse.RESOLVE)


def libraries() -> dict[str, Checkup]:
    return {one.name.lower(): one for one in library_checkups()}


def test_the_libraries_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {line.partition(">")[0].lower() for line in project["dependencies"]}
    found = libraries()
    assert set(found) == {"python", *wanted}
    assert {one.verdict for one in found.values()} == {Verdict.OK}


def test_a_library_that_is_old_or_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["click>=99.1", "no-such-library>=2", "tqdm", 'mypy>=99; extra == "dev"']
    monkeypatch.setattr(programs, "requires", lambda name: lines)
    found = libraries()
    assert found["click"].verdict is Verdict.WARNING
    assert "install click 99.1 or newer" in found["click"].to_do
    assert found["no-such-library"].verdict is Verdict.MISSING
    assert found["tqdm"].verdict is Verdict.OK
    assert "mypy" not in found

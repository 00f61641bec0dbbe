"""The wheel has all that the program reads when it runs, and runs where no source tree is."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "imager": "imager",
    **{f"imager/data/{n}": n for n in ("docs", "firstboot", "overlays")},
    "imager/data/udev": "packaging/udev",
}
COMMANDS = (
    "--version",
    "docs exit-codes",
    "rack init --rack rack --nodes pi[0-3] --master pi0",
    "rack show --rack rack",
    "write x.img --size 4GiB --node pi1 --rack rack --cache cache --dry-run",
)


def built_into(folder: Path) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def run_all(program: list[str], where: Path, environment: dict[str, str]) -> str:
    """Run each of COMMANDS in ``where`` and return what all of them said."""
    own = {"PATH": os.environ["PATH"], "HOME": str(where), "LC_ALL": "C.UTF-8"} | environment
    said = ""
    for line in COMMANDS:
        done = subprocess.run(
            [*program, *line.split()], cwd=where, env=own, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said += done.stdout + done.stderr
    return said


def test_the_version_stands_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", heading) for heading in headings)
    assert len(headings) == len(set(headings))
    for path in (ROOT / "packaging").rglob("*"):
        assert not path.is_file() or version not in path.read_text(), f"{path} has the version too"


def test_every_document_that_is_spoken_of_is_there() -> None:
    told = {}
    for path in (ROOT / "imager").rglob("*.py"):
        for name in re.findall(r"picloud-image docs ([a-z-]+)", path.read_text()):
            told[name] = path
    assert "exit-codes" in told
    assert {
        name: path for name, path in told.items() if not (ROOT / f"docs/{name}.md").exists()
    } == {}


def test_the_wheel_has_what_the_program_reads_and_runs_alone(tmp_path: Path) -> None:
    """With the modules of this folder's .venv, which are no part of it."""
    wheel = built_into(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        held = {one.filename: one.external_attr >> 16 for one in archive.infolist()}
    listed = subprocess.run(
        ["git", "ls-files", "--", *SHIPPED.values()],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for place, tree in SHIPPED.items():
        for name in (name for name in listed if name.startswith(f"{tree}/")):
            mode = (ROOT / name).stat().st_mode
            kept = held.pop(place + name.removeprefix(tree), 0)
            assert kept & stat.S_IXUSR == mode & stat.S_IXUSR, f"{name}: not there, or its mode"
            assert kept, f"the wheel lacks {name}"
    assert {name.partition("/")[0] for name in held if ".dist-info" not in name} == set()

    alone = tmp_path / "alone"
    alone.mkdir()
    subprocess.run(["bsdtar", "-xf", wheel, "-C", alone], check=True)
    start = "import imager.cli.main as m; print(m.__file__); m.main()"
    said = run_all([sys.executable, "-P", "-c", start], tmp_path, {"PYTHONPATH": str(alone)})
    assert said.count(f"{alone}/imager/cli/main.py") == len(COMMANDS)
    assert "# Exit codes" in said


@pytest.mark.long(minutes=2)
def test_pip_installs_it_with_all_it_needs(tmp_path: Path) -> None:
    """Into an environment of its own, as pipx does."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, str(built_into(tmp_path))], check=True, cwd=tmp_path)
    assert "# Exit codes" in run_all([str(tmp_path / "venv/bin/picloud-image")], tmp_path, {})

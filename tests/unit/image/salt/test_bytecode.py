"""Bytecode made ahead: what a node's Python makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imager.base.errors import ToolFailed
from imager.image.salt.bytecode import compiled, interpreter, source_bytes, versions

CACHED = f"__pycache__/{{}}.{sys.implementation.cache_tag}.pyc"
NAMES = '{"a", "b", "c", "d", "e"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with a module, and a file that is no Python."""
    package = tmp_path / "staged" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"def known(name):\n    return name in {NAMES}\n")
    (package / "broken.py").write_text("def:\n")
    (package.parent / "alone.py").write_text("VALUE = 1\n")
    return package.parent


def laid_down(folder: Path) -> dict[str, bytes]:
    return compiled(folder, "opt/it", sys.executable, lambda size: None)


def imported(folder: Path, words: str) -> tuple[str, bool]:
    """What a Python prints that finds ``folder``, and whether it believed the bytecode there."""
    done = subprocess.run(
        [sys.executable, "-B", "-v", "-c", words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, f"{CACHED.format('alone')} matches" in done.stderr


def test_every_sound_module_has_its_own(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert list(laid_down(folder)) == [
        CACHED.format("alone"),
        f"package/{CACHED.format('__init__')}",
    ]
    assert sorted(folder.rglob("*")) == before, "the files themselves are left alone"


def test_how_far_it_is_can_be_shown(folder: Path) -> None:
    done: list[int] = []
    compiled(folder, "opt/it", sys.executable, done.append)
    sizes = [path.stat().st_size for path in sorted(folder.rglob("*.py"))]
    assert done == sizes
    assert sum(sizes) == source_bytes(folder)


def test_python_uses_it_until_the_source_is_another(folder: Path) -> None:
    for path, code in laid_down(folder).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(code)
    words = "import alone; print(alone.VALUE)"
    assert imported(folder, words) == ("1\n", True)
    source = folder / "alone.py"
    status = source.stat()
    source.write_text("VALUE = 2\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert imported(folder, words) == ("2\n", False)


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    elsewhere = folder.rename(tmp_path / "elsewhere")
    first = laid_down(elsewhere)
    assert laid_down(elsewhere.rename(folder)) == first


def test_a_python_that_fails_is_told_of(folder: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Illegal instruction >&2\nexit 132\n")
    python.chmod(0o755)
    with pytest.raises(ToolFailed, match="failed with status 132: Illegal instruction"):
        compiled(folder, "opt/it", str(python), print)


def test_only_a_python_of_that_very_version_will_do() -> None:
    assert interpreter(sys.version_info.minor) == sys.executable
    assert interpreter(99) is None


def test_a_python_that_does_not_run_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pyenv puts one on PATH for every version it knows, chosen or not."""
    said = {"shim": "echo no such version >&2\nexit 127\n", "whole": "echo Python 3.29.0\n"}
    for folder, script in said.items():
        place = tmp_path / folder / "python3.29"
        place.parent.mkdir()
        place.write_text(f"#!/bin/sh\n{script}")
        place.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shim"), prepend=os.pathsep)
    assert interpreter(29) is None
    monkeypatch.setenv("PATH", str(tmp_path / "whole"), prepend=os.pathsep)
    assert interpreter(29) == str(place)
    assert "Python 3.29.0" in versions()


def test_this_one_is_named_with_its_version() -> None:
    assert f"Python {sys.version.split()[0]}" in versions()


def test_what_is_a_link_or_costs_too_much_has_none(folder: Path, tmp_path: Path) -> None:
    """A release may have files of its own there. A link in it leads into this computer, and ten
    megabytes of source took four gigabytes of memory."""
    before = laid_down(folder)
    (tmp_path / "secrets.py").write_text('PASSWORD = "of this computer"\n')
    (folder / "secret.py").symlink_to(tmp_path / "secrets.py")
    (folder / "zero.py").symlink_to("/dev/zero")
    (folder / "large.py").write_text("a=1\n" * 300_000)
    assert laid_down(folder) == before

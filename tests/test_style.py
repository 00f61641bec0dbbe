"""The linters are tests, so that a green suite means clean code too."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BY_PATH = {
    "the one way itself, and what it stands on": (
        "base/below.py",
        "base/durable.py",
        "base/ownership.py",
        "base/trusted_folder.py",
    ),
    "disks, image files, and what the kernel says of them": (
        "card/host/arrivals.py",
        "card/host/eject.py",
        "card/host/exclusive.py",
        "card/host/image_file.py",
        "card/host/private_file.py",
        "card/host/sysfs.py",
        "card/host/targets.py",
        "card/inspect/verify.py",
        "card/save/at_rest.py",
        "card/save/original.py",
        "card/medium/reopen.py",
        "doctor/computer.py",
    ),
    "a private folder that this run made in work/": (
        "image/compose/boot_fs.py",
        "image/compose/cache.py",
        "image/compose/compose.py",
        "image/compose/root_fs.py",
        "image/packages/database.py",
        "image/packages/hooks.py",
        "image/salt/bytecode.py",
        "image/salt/tree.py",
        "image/unpack/stager.py",
        "packages/carry/take_in.py",
        "packages/resolve/pacman.py",
        "release/salt/pip.py",
        "release/salt/salt.py",
    ),
    "a file or folder that a person named, or a keyring of this computer": (
        "card/save/pack.py",
        "card/save/save.py",
        "card/save/saved_file.py",
        "card/save/smaller.py",
        "cli/rack/init.py",
        "cli/rack/report.py",
        "config/folder.py",
        "config/sections.py",
        "doctor/storage.py",
        "node/keys/export.py",
        "packages/carry/export.py",
        "packages/rack_folder.py",
        "rack/plan/saved.py",
        "rack/plan/to_save.py",
        "release/signing_keys.py",
    ),
    "the key of a station in /run, and what is offered to all minions": (
        "stations/salt/offering.py",
        "stations/salt/on_minion.py",
        "stations/salt/sealing.py",
        "stations/wire/golden.py",
    ),
    "what comes with this program, or /dev/null": (
        "cli/terminal/streams.py",
        "config/shipped_trees.py",
        "rack/page/page.py",
        "rack/report/report.py",
        "stations/salt/install.py",
        "stations/salt/program.py",
    ),
}
"""Modules that open or look at something by its path, and what it is. Nothing of it lies below a
rack or a cache: that is opened with ``TrustedFolder``, ``Below`` or ``kept_file``, and so is what
a new module opens, unless it belongs in this table."""
_LOOKS = {
    *("read_bytes", "read_text", "write_bytes", "write_text", "stat", "lstat", "readlink"),
    *("iterdir", "rglob", "listdir", "scandir", "is_file", "is_dir", "is_symlink", "touch"),
}


def passes(*words: str) -> None:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check() -> None:
    passes(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    passes(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    passes(sys.executable, "-m", "mypy")


def shell_scripts() -> list[str]:
    """Every tracked or new file that begins with a shell's #! line."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                first = file.readline(80)
            if first.startswith((b"#!/bin/sh", b"#!/usr/bin/env bash", b"#!/bin/bash")):
                found.append(name)
    return found


def test_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = shell_scripts()
    assert scripts, "no shell script found: the list is broken"
    passes("shellcheck", *scripts)


def test_modules_can_be_read_in_one_sitting() -> None:
    for path in (ROOT / "imager").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines; split it"


def looks_by_path(tree: ast.AST) -> Iterator[int]:
    """The lines on which a module opens, reads, lists or asks for something by its path."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "dir_fd" for word in node.keywords):
            continue
        match node.func:
            case ast.Attribute(attr=name) if name in _LOOKS:
                yield node.lineno
            case ast.Name(id="open") | ast.Attribute(value=ast.Name(id="os"), attr="open"):
                yield node.lineno
            case ast.Attribute(attr="open") if [
                mode for mode in node.args[:1] if isinstance(mode, ast.Constant)
            ]:
                yield node.lineno  # a path's: what else has the name takes no mode
            case _:
                pass


def test_what_lies_below_a_rack_or_a_cache_is_opened_in_one_way() -> None:
    known = {name for names in BY_PATH.values() for name in names}
    found = {
        str(path.relative_to(ROOT / "imager")): lines
        for path in sorted((ROOT / "imager").rglob("*.py"))
        if (lines := list(looks_by_path(ast.parse(path.read_text()))))
    }
    assert {name: lines for name, lines in found.items() if name not in known} == {}
    assert known <= set(found), "BY_PATH names modules that need not be there any more"


def test_what_the_page_on_security_names_is_there() -> None:
    """Tests and modules. A name of a test may be cut short with an ellipsis."""
    page = (ROOT / "docs/security.md").read_text()
    files = list((ROOT / "tests").rglob("test_*.py"))
    text = "\n".join(path.read_text() for path in files)
    there = {path.name for path in files} | {
        f"{one}(" for one in re.findall(r"def (test_\w+)", text)
    }
    for name in set(re.findall(r"\btest_\w+(?:\.py)?", page)):
        assert any(one.startswith(name) for one in there), (
            f"docs/security.md names {name}, which is nowhere"
        )
    for name in set(re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.py)`", page)):
        assert any((ROOT / wing / name).is_file() for wing in ("imager", "")), name

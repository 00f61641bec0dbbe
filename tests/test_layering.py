"""Imports point one way, between wings and between the rooms of a wing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ORDER = ("base", "disk", "release", "config", "bootcheck", "image", "node", "card", "rack", "cli")
PACKAGE = Path(__file__).resolve().parent.parent / "imager"


def imported_modules(source: str) -> set[str]:
    """Every module named by an import statement anywhere in ``source``."""
    found: set[str] = set()
    for statement in ast.walk(ast.parse(source)):
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "imports are absolute here"
            found.add(statement.module or "")
    return found


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    return ORDER.index(parts[1]) if parts[0] == "imager" and len(parts) > 1 else None


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_imports_point_left(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return
    own = ORDER.index(parts[0])
    for module in imported_modules(path.read_text()):
        layer = layer_of(module)
        assert layer is None or layer <= own, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_init_files_hold_only_a_docstring(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_every_folder_is_a_known_layer() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ORDER)
